"""The entry of the command `tfprune`.

It is outside the package, because an import of anything inside runs `tfprune/__init__.py`,
which imports Keras and takes seconds. Here the package is found but not run yet. So its parsers
can be imported, and `--help`, `--version` and a mistyped option are answered at once; `__init__.py`
runs when there is something to do.
"""

import importlib.util
import sys


def main():
    """Runs the command with the words that the process was started with; returns the exit code."""
    load = None
    if "tfprune" not in sys.modules:
        spec = importlib.util.find_spec("tfprune")
        package = importlib.util.module_from_spec(spec)
        sys.modules["tfprune"] = package

        def load():
            spec.loader.exec_module(package)

    from tfprune.cli import process

    return process.main(load)


if __name__ == "__main__":
    sys.exit(main())
