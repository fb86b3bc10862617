"""The process that is the command: from its words to its exit code.

Nothing but the standard library is imported here, because this runs before Keras is imported.
"""

import os
import sys
import traceback
import warnings

from tfprune import cli
from tfprune.cli.interrupts import INTERRUPTS


def main(load=None):
    """Runs the command with the words that the process was started with.

    Args:
        load: Function that imports the rest of tfprune, once the words are understood.

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
        # What threads and libraries do at the end is of no interest.
        INTERRUPTS.at_once = True
        return code
    except BaseException:
        INTERRUPTS.release()
        raise


def begin():
    """Returns the arguments, or exits where the words ask for no more than a text."""
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
    """Keeps what compiled code logs out of what the command prints.

    TensorFlow logs to the standard error as soon as it is imported, and its converters do so
    whatever they are told. So this comes before the import.
    """
    global _quiet
    if _quiet:
        return
    _quiet = True
    # What Python writes goes on to the standard error; what is written past Python goes nowhere.
    sys.stderr = os.fdopen(os.dup(2), "w", buffering=1)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    # Of libraries about each other: their developers are meant, not who types a command.
    warnings.filterwarnings("ignore", category=FutureWarning)
    warnings.filterwarnings("ignore", category=DeprecationWarning)
