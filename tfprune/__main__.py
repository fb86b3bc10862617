"""`python -m tfprune`, which does what the command `tfprune` does."""

import sys

from tfprune.cli import process

if __name__ == "__main__":
    sys.exit(process.main())
