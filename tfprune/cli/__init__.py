"""The command `tfprune`: one file for each of its subcommands, and one for its parser.

A file of `parsers/` has `add(commands, shared)`, which adds the parser of a subcommand, and imports
nothing but the standard library: `--help` answers at once. The file of the same name in this folder
has `run(args, output)`, and is imported when the subcommand runs. `.ci/generate` lists them all.
"""

import argparse
import importlib
import traceback
import warnings
from contextlib import contextmanager

from tfprune._base.version import __version__
from tfprune.cli.choices import COMMANDS
from tfprune.cli.interrupts import INTERRUPTS

_EXITS = """exit codes:
  0  done
  1  a file, an argument or the model is wrong; one line explains the error
  2  the command line cannot be parsed
  130  interrupted
"""


def main(arguments=None):
    """Runs the command line.

    Args:
        arguments: List of words. Defaults to the arguments of the process.

    Returns:
        The exit code: 0 done, 1 an error, 130 interrupted. A command line that cannot be parsed
        exits with 2.
    """
    return run(parser().parse_args(arguments))


def run(args):
    """Runs a subcommand with the arguments that `parser()` returned; returns the exit code."""
    from tfprune.cli.output import Output

    output = Output(as_json=args.json)
    try:
        with warnings_in_lines(output.say):
            importlib.import_module(args.command).run(args, output)
    except KeyboardInterrupt:
        return INTERRUPTS.say()
    except Exception as error:
        if INTERRUPTS.came:
            return INTERRUPTS.say()
        # Any error is reported in one line; --traceback shows the rest.
        if args.traceback:
            traceback.print_exc()
        output.say(one_line(error))
        return 1
    return 0


@contextmanager
def warnings_in_lines(say):
    """Within this context, a warning is a line of its own, without the place in the code."""

    def show(message, category, *place):
        say("tfprune: warning: " + " ".join(str(message).split()))

    with warnings.catch_warnings():
        warnings.showwarning = show
        yield


def one_line(error):
    """Returns the line that the command prints for an error."""
    text = str(error) if str(error) else type(error).__name__
    if isinstance(error, KeyError):
        text = f"missing {error}"
    return "tfprune: error: " + " ".join(text.split())


def parser():
    """Returns the parser of the command line."""
    shared = argparse.ArgumentParser(add_help=False)
    shared.add_argument("--json", action="store_true", help="print JSON instead of tables")
    shared.add_argument("--traceback", action="store_true", help="show the traceback of an error")
    top = argparse.ArgumentParser(
        prog="tfprune",
        description="Prune, shrink, export and compare Keras 3 models.",
        epilog=_EXITS,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    top.add_argument("--version", action="version", version=f"tfprune {__version__}")
    commands = top.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for name in COMMANDS:
        importlib.import_module(f"tfprune.cli.parsers.{name}").add(commands, shared)
    return top
