"""The parser of `tfprune sensitivity MODEL --data PATH`."""

from pathlib import Path

from tfprune.cli.choices import CRITERIA, PATTERNS
from tfprune.cli.parsers.options import add_data, add_model, add_name, add_trust


def add(commands, shared):
    parser = commands.add_parser(
        "sensitivity",
        parents=[shared],
        help="measure how pruning each single layer affects a model",
        description="Prunes one layer at a time to each sparsity, without training, and measures "
        "the model on a part of the training data.",
    )
    add_model(parser)
    parser.add_argument(
        "--sparsities",
        type=float,
        nargs="+",
        metavar="SPARSITY",
        help="shares of zeros to try (default: 0.1 to 0.9)",
    )
    parser.add_argument(
        "--layer",
        action="append",
        metavar="LAYER",
        help="measure this layer alone; * matches any text; repeatable",
    )
    add_name(parser, "--pattern", PATTERNS, "which weights are pruned together")
    add_name(parser, "--criterion", CRITERIA, "how weights are scored")
    parser.add_argument("--loss", metavar="NAME", help="a Keras loss, if the model has none")
    parser.add_argument(
        "--batch-size", type=int, default=32, metavar="N", help="examples per batch (default: 32)"
    )
    parser.add_argument(
        "--record", type=Path, metavar="FILE", help="keep measurements here, to resume from them"
    )
    parser.add_argument("--plot", type=Path, metavar="FILE", help="draw the table as a heat map")
    add_data(parser, "an .npz file or a folder of images, as for prune", required=True)
    add_trust(parser)
    parser.set_defaults(command="tfprune.cli.sensitivity")
