"""The parser of `tfprune prune MODEL --data PATH --sparsity S -o FILE`."""

from tfprune.cli.choices import CRITERIA, DISTRIBUTIONS, PATTERNS, SCHEDULES, SCOPES
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
        "prune",
        parents=[shared],
        help="train a model on while its sparsity rises",
        description="Trains a model on data while a schedule raises its sparsity, and writes the "
        "pruned model, a plain Keras model.",
    )
    add_model(parser)
    add_target(parser, "the pruned model, a .keras file")
    parser.add_argument("--sparsity", type=float, required=True, help="share of zeros, as 0.9")
    parser.add_argument("--epochs", type=int, default=3, help="(3)")
    parser.add_argument(
        "--pruning-epochs",
        type=float,
        metavar="EPOCHS",
        help="when the sparsity is reached; two thirds of the epochs by default",
    )
    meaning = "how the sparsity rises"
    add_name(parser, "--schedule", SCHEDULES, meaning, default="polynomial_decay")
    parser.add_argument("--initial-sparsity", type=float, default=0.0, help="(0)")
    parser.add_argument("--frequency", type=int, help="steps between two updates of the masks")
    meaning = "what weights are scored by"
    add_name(parser, "--criterion", CRITERIA, meaning, default="magnitude")
    meaning = "which weights compete, or how layers share the sparsity"
    add_name(parser, "--scope", SCOPES + DISTRIBUTIONS, meaning, default="local")
    units = parser.add_mutually_exclusive_group()
    add_name(units, "--pattern", PATTERNS, "what is pruned as one")
    units.add_argument("--block", type=int, nargs=2, metavar=("HEIGHT", "WIDTH"))
    units.add_argument("--n-of-m", type=int, nargs=2, metavar=("ZEROS", "GROUP"))
    parser.add_argument(
        "--exclude",
        action="append",
        default=[],
        metavar="LAYER",
        help="a layer that is not pruned, by name; * stands for anything; several times",
    )
    parser.add_argument(
        "--shrink", action="store_true", help="remove the channels that are silent at the end"
    )
    parser.add_argument(
        "--keep-wrappers", action="store_true", help="write the masks too, to train on"
    )
    training = parser.add_argument_group("training")
    training.add_argument("--batch-size", type=int, default=32, help="(32)")
    training.add_argument(
        "--learning-rate",
        type=float,
        help="of Adam; without it the model's own optimizer, or Adam at 0.0001",
    )
    training.add_argument("--loss", help="a Keras loss, where the model's own does not fit")
    add_seed(training)
    add_data(parser, "an .npz file, or a folder with a folder of images for each class", True)
    add_trust(parser)
    parser.set_defaults(command="tfprune.cli.prune")
