"""The parser of `tfprune prune MODEL --data PATH --sparsity S -o FILE`."""

from tfprune.cli.choices import CRITERIA, DISTRIBUTIONS, PATTERNS, SCHEDULES, SCOPES
from tfprune.cli.parsers.options import (
    add_data,
    add_model,
    add_name,
    add_target,
    add_training,
    add_trust,
)


def add(commands, shared):
    parser = commands.add_parser(
        "prune",
        parents=[shared],
        help="prune a model while training it",
        description="Trains a model while a schedule raises its sparsity, and writes the pruned "
        "model as a plain Keras model.",
    )
    add_model(parser)
    add_target(parser, "the .keras file to write the pruned model to")
    parser.add_argument(
        "--sparsity",
        type=float,
        required=True,
        help="final share of zeros, for instance 0.9",
    )
    parser.add_argument(
        "--pruning-epochs",
        type=float,
        metavar="EPOCHS",
        help="epochs until the final sparsity is reached (default: two thirds of --epochs)",
    )
    meaning = "how the sparsity rises"
    add_name(parser, "--schedule", SCHEDULES, meaning, default="polynomial_decay")
    parser.add_argument(
        "--initial-sparsity",
        type=float,
        default=0.0,
        metavar="SPARSITY",
        help="sparsity at the first step (default: 0)",
    )
    parser.add_argument(
        "--frequency", type=int, metavar="STEPS", help="steps between two mask updates"
    )
    meaning = "how weights are scored"
    add_name(parser, "--criterion", CRITERIA, meaning, default="magnitude")
    meaning = "which weights compete, or how layers share the sparsity"
    add_name(parser, "--scope", SCOPES + DISTRIBUTIONS, meaning, default="local")
    units = parser.add_mutually_exclusive_group()
    add_name(units, "--pattern", PATTERNS, "which weights are pruned together")
    units.add_argument(
        "--block",
        type=int,
        nargs=2,
        metavar=("HEIGHT", "WIDTH"),
        help="prune blocks of this size",
    )
    units.add_argument(
        "--n-of-m",
        type=int,
        nargs=2,
        metavar=("ZEROS", "GROUP"),
        help="zero this many weights in each group, for instance 2 of 4",
    )
    parser.add_argument(
        "--exclude",
        action="append",
        default=[],
        metavar="LAYER",
        help="exempt a layer by name; * matches any text; repeatable",
    )
    parser.add_argument(
        "--shrink", action="store_true", help="remove silent channels after training"
    )
    parser.add_argument(
        "--keep-wrappers",
        action="store_true",
        help="save the wrapped model with its masks, to continue training",
    )
    add_training(parser)
    add_data(parser, "an .npz file, or a folder with one subfolder of images per class", True)
    add_trust(parser)
    parser.set_defaults(command="tfprune.cli.prune")
