"""The parser of `tfprune compare BEFORE AFTER`."""

from pathlib import Path

from tfprune.cli.choices import COMPARED, COMPARED_BY_DEFAULT
from tfprune.cli.parsers.options import add_data, add_model, add_trust


def add(commands, shared):
    parser = commands.add_parser(
        "compare",
        parents=[shared],
        help="compare two models: layers, file sizes, latency and accuracy",
    )
    kinds = "a .keras, .h5, .tflite, .onnx or .pt2 file, or the folder of a SavedModel"
    add_model(parser, "before", f"the original model: {kinds}")
    add_model(parser, "after", "the pruned or shrunk model, in one of the same forms")
    parser.add_argument("--html", type=Path, metavar="FILE", help="write an HTML page with plots")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="write a Markdown report")
    parser.add_argument(
        "--force", action="store_true", help="replace the report files if they exist"
    )
    parser.add_argument(
        "--formats",
        nargs="*",
        choices=COMPARED,
        default=list(COMPARED_BY_DEFAULT),
        metavar="FORMAT",
        help="file formats to compare: %(choices)s",
    )
    parser.add_argument("--no-latency", action="store_true", help="skip the latency measurement")
    parser.add_argument(
        "--batch-size",
        type=int,
        nargs="+",
        default=1,
        metavar="N",
        help="batch sizes for the latency measurement (default: 1)",
    )
    parser.add_argument(
        "--threads",
        type=int,
        default=1,
        metavar="N",
        help="threads of each runtime in the latency measurement (default: 1)",
    )
    parser.add_argument(
        "--runs",
        type=int,
        default=30,
        metavar="N",
        help="number of timed runs of each model (default: 30)",
    )
    add_data(parser, "data to measure accuracy on: an .npz file, or a folder of images")
    parser.add_argument("--loss", help="a Keras loss, for models that were saved uncompiled")
    add_trust(parser)
    parser.set_defaults(command="tfprune.cli.compare")
