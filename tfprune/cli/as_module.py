"""Makes `python -m tfprune` answer as fast as the command does.

Python imports the package before it runs `__main__.py`. So `tfprune/__init__.py` imports this file
first: if this process is `python -m tfprune`, the arguments are parsed here, and `--help` ends the
process before Keras is imported. In any other process, this file does nothing.
"""

import sys

from tfprune.cli import process
from tfprune.cli.interrupts import INTERRUPTS

if process.is_module():
    INTERRUPTS.catch()
    _with_traceback = process.begin().traceback
    if not _with_traceback:
        # Nothing catches an import error before `__main__.py` runs.
        sys.excepthook = lambda kind, error, trace: process.failed(error)
