"""The parser of `tfprune shrink MODEL -o FILE`."""

from pathlib import Path

from tfprune.cli.choices import CRITERIA, DISTRIBUTIONS, SCOPES
from tfprune.cli.parsers.options import add_model, add_name, add_target, add_trust


def add(commands, shared):
    parser = commands.add_parser(
        "shrink",
        parents=[shared],
        help="make a model physically smaller",
        description="Removes channels that are silent. With targets, prunes the filters with the "
        "lowest scores until the model costs no more than that; fine-tune the result.",
    )
    add_model(parser)
    add_target(parser, "the smaller model, a .keras file")
    targets = parser.add_argument_group("targets, in parts of what the model costs now")
    for name in ("macs", "parameters", "latency"):
        targets.add_argument(f"--{name}", type=float, metavar="SHARE")
    parser.add_argument(
        "--round-to", type=int, default=1, metavar="N", help="keep multiples of N channels"
    )
    add_name(parser, "--criterion", CRITERIA, "what channels are scored by, with targets")
    meaning = "which channels compete, or how layers share the sparsity, with targets"
    add_name(parser, "--scope", SCOPES + DISTRIBUTIONS, meaning)
    parser.add_argument("--plot", type=Path, metavar="FILE", help="draw which channels go")
    add_trust(parser)
    parser.set_defaults(command="tfprune.cli.shrink")
