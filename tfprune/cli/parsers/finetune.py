"""The parser of `tfprune finetune MODEL --data PATH -o FILE`."""

from tfprune.cli.parsers.options import add_data, add_model, add_target, add_training, add_trust


def add(commands, shared):
    parser = commands.add_parser(
        "finetune",
        parents=[shared],
        help="train a pruned model further, and keep its zeros",
        description="Trains a pruned model further with its masks fixed: weights that are zero "
        "stay zero. Writes a plain Keras model.",
    )
    add_model(parser)
    add_target(parser, "the .keras file to write the trained model to")
    add_training(parser)
    add_data(parser, "an .npz file or a folder of images, as for prune", required=True)
    add_trust(parser)
    parser.set_defaults(command="tfprune.cli.finetune")
