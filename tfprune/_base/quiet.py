"""Keeps what compiled code logs out of what the command `tfprune` prints.

TensorFlow logs to the standard error as soon as it is imported, and its converters do so whatever
they are told. So this has to be imported before, and only in a process that is the command.
"""

import os
import sys
import warnings
from pathlib import Path

# While Python looks for the package of `python -m tfprune`, the first argument is "-m".
_COMMANDS = ("-m", "tfprune", "tfprune.exe")


def is_command():
    """Whether this process was started as the command."""
    return Path((getattr(sys, "argv", None) or [""])[0]).name in _COMMANDS


if is_command() and "--traceback" not in sys.argv:
    # What Python writes goes on to the standard error; what is written past Python goes nowhere.
    sys.stderr = os.fdopen(os.dup(2), "w", buffering=1)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    # Of libraries about each other: their developers are meant, not who types a command.
    warnings.filterwarnings("ignore", category=FutureWarning)
    warnings.filterwarnings("ignore", category=DeprecationWarning)
