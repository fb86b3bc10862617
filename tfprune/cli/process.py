"""Runs the command as a process, from its arguments to its exit code.

This file imports only the standard library, because it runs before Keras is imported.
"""

import os
import sys
import traceback
import warnings

from tfprune import cli
from tfprune.cli.interrupts import INTERRUPTS


def main(load=None):
    """Runs the command with the arguments of the process.

    Args:
        load: Function that imports the rest of tfprune; called once the arguments are parsed.

    Returns:
        The exit code, as in `tfprune.cli.main`.
    """
    INTERRUPTS.catch()
    try:
        args = begin()
        try:
            if load is not None:
                load()
        except Exception as error:
            return failed(error, args.traceback)
        INTERRUPTS.at_once = False
        code = cli.run(args)
        # The result is out: an interrupt may now stop threads and libraries immediately.
        INTERRUPTS.at_once = True
        return code
    except BaseException:
        INTERRUPTS.release()
        raise


def begin():
    """Returns the parsed arguments, or exits after `--help`, `--version` or a wrong argument."""
    args = cli.parser().parse_args()
    if not args.traceback:
        _quieten()
    return args


def failed(error, with_traceback=False):
    """Prints an error that the import of tfprune raised; returns the exit code."""
    if with_traceback:
        traceback.print_exception(error)
    else:
        print(cli.one_line(error), file=sys.stderr)
    return 1


def is_module():
    """Whether this process is `python -m tfprune`, and Python is about to import the package."""
    before = sys.orig_argv[: len(sys.orig_argv) - len(sys.argv) + 1]
    named = before[-2:] == ["-m", "tfprune"] or before[-1:] == ["-mtfprune"]
    return named and sys.argv[0] == "-m"


_quiet = False


def _quieten():
    """Keeps the logs of compiled code out of the command's output.

    TensorFlow logs to stderr as soon as it is imported, and its converters ignore every setting.
    Call this before the import.
    """
    global _quiet
    if _quiet:
        return
    _quiet = True
    # Python keeps writing to stderr; compiled code writes to the null device.
    sys.stderr = os.fdopen(os.dup(2), "w", buffering=1)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    # These warnings address developers of libraries, not users of the command.
    warnings.filterwarnings("ignore", category=FutureWarning)
    warnings.filterwarnings("ignore", category=DeprecationWarning)
