"""The parser of `tfprune report MODEL`."""

from tfprune.cli.parsers.options import add_model, add_target, add_trust


def add(commands, shared):
    parser = commands.add_parser(
        "report", parents=[shared], help="count a model's parameters, zeros and multiplications"
    )
    add_model(parser)
    add_target(parser, "plot the sparsity of each layer (.png, .svg or .pdf)", required=False)
    add_trust(parser)
    parser.set_defaults(command="tfprune.cli.report")
