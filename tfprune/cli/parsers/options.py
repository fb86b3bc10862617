"""Arguments shared by several subcommands."""

from pathlib import Path


def add_model(
    parser,
    name="model",
    meaning="a .keras or .h5 file, or the folder of a SavedModel written by tf_keras",
):
    """Adds the argument for a model."""
    parser.add_argument(name, type=Path, metavar=name.upper(), help=meaning)


def add_target(parser, meaning, required=True):
    """Adds the options for the output file."""
    parser.add_argument(
        "-o", "--output", type=Path, required=required, metavar="FILE", help=meaning
    )
    parser.add_argument("--force", action="store_true", help="replace the file if it exists")


def add_name(parser, option, choices, meaning, default=None):
    """Adds an option that takes one of several names."""
    parser.add_argument(
        option, choices=choices, default=default, metavar="NAME", help=f"{meaning}: %(choices)s"
    )


def add_trust(parser):
    """Adds the options for models that need code."""
    group = parser.add_argument_group("models that need code")
    group.add_argument(
        "--import",
        dest="imports",
        action="append",
        default=[],
        metavar="MODULE",
        help="import a Python module that registers the model's custom layers; repeatable",
    )
    group.add_argument(
        "--unsafe",
        action="store_true",
        help="run code contained in the file, as in Lambda layers; use it only for files you trust",
    )


def add_data(parser, meaning, required=False):
    """Adds the options for data."""
    group = parser.add_argument_group("data")
    group.add_argument("--data", type=Path, required=required, metavar="PATH", help=meaning)
    group.add_argument(
        "--scale",
        type=float,
        default=1.0,
        metavar="FACTOR",
        help="multiply the inputs by this factor, for instance 0.00392157 for bytes",
    )
    group.add_argument(
        "--held-out",
        type=float,
        default=0.1,
        metavar="SHARE",
        help="share held out for testing if the data has no test part (default: 0.1)",
    )


def add_training(parser):
    """Adds the options of a training."""
    group = parser.add_argument_group("training")
    group.add_argument(
        "--epochs",
        type=int,
        default=3,
        metavar="N",
        help="number of epochs to train (default: 3)",
    )
    group.add_argument(
        "--batch-size", type=int, default=32, metavar="N", help="examples per batch (default: 32)"
    )
    group.add_argument(
        "--learning-rate",
        type=float,
        metavar="RATE",
        help="train with Adam at this learning rate (default: the model's own optimizer, or Adam "
        "at 0.0001)",
    )
    group.add_argument("--loss", help="a Keras loss to use instead of the model's own")
    add_seed(group)


def add_seed(parser):
    """Adds the option that makes a training repeatable."""
    parser.add_argument(
        "--seed",
        type=int,
        metavar="N",
        help="seed for all random numbers; runs with the same seed train in the same way",
    )
