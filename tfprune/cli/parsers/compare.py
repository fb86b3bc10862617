"""The parser of `tfprune compare BEFORE AFTER`."""

from pathlib import Path

from tfprune.cli.choices import COMPARED, COMPARED_BY_DEFAULT
from tfprune.cli.parsers.options import add_data, add_model, add_trust


def add(commands, shared):
    parser = commands.add_parser(
        "compare",
        parents=[shared],
        help="two models side by side: layers, files, latency, accuracy",
    )
    add_model(parser, "before")
    add_model(parser, "after")
    parser.add_argument("--html", type=Path, metavar="FILE", help="write a page with plots")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="write Markdown")
    parser.add_argument("--force", action="store_true", help="replace these files if they exist")
    parser.add_argument(
        "--formats",
        nargs="*",
        choices=COMPARED,
        default=list(COMPARED_BY_DEFAULT),
        metavar="FORMAT",
        help="files to measure: %(choices)s",
    )
    parser.add_argument("--no-latency", action="store_true", help="do not measure seconds")
    parser.add_argument("--batch-size", type=int, default=1, help="for the latency (1)")
    parser.add_argument("--runs", type=int, default=30, help="for the latency (30)")
    add_data(parser, "to measure accuracy on: an .npz file, or a folder of images")
    parser.add_argument("--loss", help="where no model says its own: a Keras loss")
    add_trust(parser)
    parser.set_defaults(command="tfprune.cli.compare")
