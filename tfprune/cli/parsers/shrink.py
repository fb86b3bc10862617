"""The parser of `tfprune shrink MODEL -o FILE`."""

from pathlib import Path

from tfprune.cli.choices import CRITERIA, DISTRIBUTIONS, FORMATS, SCOPES
from tfprune.cli.parsers.options import add_model, add_name, add_target, add_trust


def add(commands, shared):
    parser = commands.add_parser(
        "shrink",
        parents=[shared],
        help="remove channels to make a model smaller",
        description="Removes silent channels. With targets, first prunes the filters with the "
        "lowest scores until the model meets the targets; fine-tune the result.",
    )
    add_model(parser)
    add_target(parser, "the .keras file to write the smaller model to")
    targets = parser.add_argument_group("targets, as shares of the model's present cost")
    costs = {
        "macs": "multiply-accumulate operations",
        "parameters": "parameters",
        "latency": "prediction time, measured on this machine",
    }
    for name, meaning in costs.items():
        targets.add_argument(
            f"--{name}", type=float, metavar="SHARE", help=f"largest share of {meaning} to keep"
        )
    parser.add_argument(
        "--round-to",
        type=int,
        metavar="N",
        help="keep multiples of N channels (default with targets: 8 in groups of 16 and more)",
    )
    where = parser.add_argument_group("where --latency is measured")
    where.add_argument(
        "--runtime",
        choices=FORMATS,
        default="keras",
        help="format and runtime of the candidates: %(choices)s (default: keras)",
    )
    where.add_argument(
        "--threads", type=int, default=1, metavar="N", help="threads of the runtime (default: 1)"
    )
    where.add_argument(
        "--batch-size", type=int, default=1, metavar="N", help="batch size (default: 1)"
    )
    add_name(parser, "--criterion", CRITERIA, "how channels are scored, with targets")
    meaning = "which channels compete, or how layers share the sparsity, with targets"
    add_name(parser, "--scope", SCOPES + DISTRIBUTIONS, meaning)
    parser.add_argument("--plot", type=Path, metavar="FILE", help="plot which channels are removed")
    add_trust(parser)
    parser.set_defaults(command="tfprune.cli.shrink")
