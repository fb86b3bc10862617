"""The command `tfprune`: one file for each of its subcommands.

Each of these has `add(commands)`, which adds its parser, and a function that gets the arguments
and the `Output`.
"""

import argparse
import traceback

from tfprune.cli import compare, export, prune, report, schedule, shrink
from tfprune.cli.output import Output

_COMMANDS = (report, prune, shrink, export, compare, schedule)
_EXITS = """exit codes:
  0  done
  1  something was wrong with a file, an argument or the model; one line says what
  2  the command line itself was not understood
  130  interrupted
"""


def main(arguments=None):
    """Runs the command line.

    Args:
        arguments: List of words; those that the process was started with by default.

    Returns:
        The exit code: 0 done, 1 an error, 130 interrupted. A command line that is not understood
        exits with 2.
    """
    args = _parser().parse_args(arguments)
    output = Output(as_json=args.json)
    try:
        args.run(args, output)
    except KeyboardInterrupt:
        output.say("tfprune: interrupted; nothing was written")
        return 130
    except Exception as error:
        # Whatever goes wrong, a user of the command line gets one line and the way to the rest.
        if args.traceback:
            traceback.print_exc()
        output.fail(error)
        return 1
    return 0


def _parser():
    shared = argparse.ArgumentParser(add_help=False)
    shared.add_argument("--json", action="store_true", help="print JSON instead of tables")
    shared.add_argument("--traceback", action="store_true", help="on an error, show where it arose")
    parser = argparse.ArgumentParser(
        prog="tfprune",
        description="Prune, shrink, export and compare Keras 3 models.",
        epilog=_EXITS,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for command in _COMMANDS:
        command.add(commands, shared)
    return parser
