"""The parser of `tfprune search METHOD MODEL --data PATH -o FILE`."""

from pathlib import Path

from tfprune.cli.choices import CRITERIA, FORMATS, SEARCHES
from tfprune.cli.parsers.options import (
    add_data,
    add_model,
    add_name,
    add_seed,
    add_target,
    add_trust,
)


def add(commands, shared):
    parser = commands.add_parser(
        "search",
        parents=[shared],
        help="search how many filters each layer can lose, and make the model smaller",
        description="Evaluates candidates with different numbers of filters on a part of the "
        "training data, and writes the smaller model that meets the budget with the lowest loss. "
        "Fine-tune it.",
    )
    parser.add_argument(
        "method",
        choices=SEARCHES,
        metavar="METHOD",
        help="one of %(choices)s; sensitivity needs the fewest evaluations",
    )
    add_model(parser)
    add_target(parser, "the smaller model, a .keras file")
    budget = parser.add_argument_group("budget, as shares of the model's own cost")
    for name in ("macs", "parameters", "latency"):
        budget.add_argument(f"--{name}", type=float, metavar="SHARE")
    budget.add_argument(
        "--runtime",
        choices=FORMATS,
        default="keras",
        help="where --latency is measured: %(choices)s (default: keras)",
    )
    parser.add_argument(
        "--evaluations", type=int, metavar="N", help="candidates of anneal (default: 60)"
    )
    parser.add_argument(
        "--steps", type=int, metavar="N", help="steps of netadapt (default: by their size)"
    )
    parser.add_argument(
        "--round-to", type=int, default=1, metavar="N", help="keep multiples of N channels"
    )
    add_name(parser, "--criterion", CRITERIA, "how channels are scored")
    parser.add_argument("--loss", metavar="NAME", help="a Keras loss, if the model has none")
    parser.add_argument(
        "--batch-size", type=int, default=128, metavar="N", help="examples at a time (default: 128)"
    )
    parser.add_argument(
        "--folder", type=Path, metavar="FOLDER", help="keep evaluations here, to resume from them"
    )
    parser.add_argument("--plot", type=Path, metavar="FILE", help="draw the evaluations")
    add_data(parser, "an .npz file or a folder of images, as for prune", required=True)
    add_seed(parser)
    add_trust(parser)
    parser.set_defaults(command="tfprune.cli.search")
