"""Ends the command with a single line when the user presses Ctrl-C."""

import os
import signal
import sys
import threading

EXIT_CODE = 130
MESSAGE = "tfprune: interrupted"


class Interrupts:
    """Handles Ctrl-C in this process.

    Attributes:
        at_once: Whether Ctrl-C ends the process immediately. This is so while modules are
            imported, because some of them catch every exception and no file has been written yet.
            Otherwise, Ctrl-C raises KeyboardInterrupt, so that unfinished files are removed; a
            second Ctrl-C ends the process immediately.
        came: Whether Ctrl-C was pressed. Libraries may turn a KeyboardInterrupt into other errors.
        said: Whether the message has been printed.
    """

    def __init__(self):
        self.at_once = True
        self.came = False
        self.said = False

    def catch(self):
        """Installs the handler, unless the shell told the process to ignore Ctrl-C."""
        in_main_thread = threading.current_thread() is threading.main_thread()
        if in_main_thread and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
            signal.signal(signal.SIGINT, self._handle)

    def release(self):
        """Restores Python's own handler."""
        if signal.getsignal(signal.SIGINT) == self._handle:
            signal.signal(signal.SIGINT, signal.default_int_handler)

    def say(self):
        """Prints the message once and returns the exit code."""
        if not self.said:
            self.said = True
            print(MESSAGE, file=sys.stderr)
        return EXIT_CODE

    def _handle(self, number, frame):
        if self.at_once or self.came:
            if not self.said:
                # The progress bar hides the cursor; show it again.
                shown = "\x1b[?25h" if sys.stderr.isatty() else ""
                # Bypass the buffered stream: the signal may arrive in the middle of a write to it.
                os.write(sys.stderr.fileno(), f"{shown}{MESSAGE}\n".encode())
            os._exit(EXIT_CODE)
        self.came = True
        raise KeyboardInterrupt


INTERRUPTS = Interrupts()
