"""Makes `python -m tfprune` answer as fast as the command does.

Python imports the package before it runs `__main__.py`. So `tfprune/__init__.py` imports this file
first: where this process is `python -m tfprune`, the words are read here, and `--help` ends the
process before Keras is imported. In any other process, nothing happens.
"""

import sys

from tfprune.cli import process
from tfprune.cli.interrupts import INTERRUPTS

if process.is_module():
    INTERRUPTS.catch()
    _with_traceback = process.begin().traceback
    if not _with_traceback:
        # Until `__main__.py` runs, an error of the import is nobody's to catch.
        sys.excepthook = lambda kind, error, trace: process.failed(error)
