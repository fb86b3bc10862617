"""The parser of `tfprune sparse MODEL -o FILE`."""

from tfprune.cli.parsers.options import add_data, add_model, add_name, add_target, add_trust


def add(commands, shared):
    parser = commands.add_parser(
        "sparse",
        parents=[shared],
        help="store and multiply only nonzero weights",
        description="Times each pruned layer in its dense and in its sparse form, and keeps the "
        "faster one. The result is a .keras file for prediction; load it after `import tfprune`.",
    )
    add_model(parser)
    add_target(parser, "the .keras file to write the sparse model to")
    parser.add_argument(
        "--batch-size",
        type=int,
        default=1,
        metavar="N",
        help="examples in the batches that the model will get (default: 1)",
    )
    parser.add_argument(
        "--threads", type=int, metavar="N", help="threads to time with; by default, all"
    )
    meaning = "speed (default) times each layer; size keeps the form with fewer bytes"
    add_name(parser, "--prefer", ("speed", "size"), meaning, default="speed")
    add_data(parser, "inputs to time with, instead of random ones: an .npz file, or images")
    add_trust(parser)
    parser.set_defaults(command="tfprune.cli.sparse")
