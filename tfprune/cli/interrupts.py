"""Ctrl-C ends the command in one line, whenever it comes."""

import os
import signal
import sys
import threading

EXIT_CODE = 130
MESSAGE = "tfprune: interrupted"


class Interrupts:
    """What Ctrl-C does to this process.

    Attributes:
        at_once: Whether it ends the process on the spot. So it does while modules are imported:
            some of them catch every exception, and nothing has been written yet. Otherwise it
            raises KeyboardInterrupt, so that unfinished files are removed; a second one ends the
            process on the spot.
        came: Whether there was one. Libraries turn a KeyboardInterrupt into errors of their own.
        said: Whether the user was told.
    """

    def __init__(self):
        self.at_once = True
        self.came = False
        self.said = False

    def catch(self):
        """Begins, unless the user's shell told the process to ignore Ctrl-C."""
        in_main_thread = threading.current_thread() is threading.main_thread()
        if in_main_thread and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
            signal.signal(signal.SIGINT, self._handle)

    def release(self):
        """Gives Ctrl-C back to Python."""
        if signal.getsignal(signal.SIGINT) == self._handle:
            signal.signal(signal.SIGINT, signal.default_int_handler)

    def say(self):
        """Tells the user, once, and returns the exit code."""
        if not self.said:
            self.said = True
            print(MESSAGE, file=sys.stderr)
        return EXIT_CODE

    def _handle(self, number, frame):
        if self.at_once or self.came:
            if not self.said:
                # A progress bar hides the cursor.
                shown = "\x1b[?25h" if sys.stderr.isatty() else ""
                # This may come amid a write to the buffered stream, so it goes past that.
                os.write(sys.stderr.fileno(), f"{shown}{MESSAGE}\n".encode())
            os._exit(EXIT_CODE)
        self.came = True
        raise KeyboardInterrupt


INTERRUPTS = Interrupts()
