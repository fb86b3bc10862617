"""`python -m tfprune`, the same as the command `tfprune`."""

import sys

from tfprune.cli import process

if __name__ == "__main__":
    sys.exit(process.main())
