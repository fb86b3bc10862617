"""The parser of `tfprune export MODEL -o FILE`."""

from tfprune.cli.choices import FORMATS, QUANTIZED
from tfprune.cli.parsers.options import add_data, add_model, add_name, add_target, add_trust


def add(commands, shared):
    parser = commands.add_parser(
        "export",
        parents=[shared],
        help="write a model for deployment, and check the file in its own runtime",
    )
    add_model(parser)
    add_target(parser, "a .keras, .onnx or .tflite file, or a folder for a SavedModel")
    add_name(parser, "--format", FORMATS, "instead of what the ending of the file says")
    parser.add_argument(
        "--shrink", action="store_true", help="remove channels that are silent first"
    )
    parser.add_argument(
        "--quantize",
        choices=QUANTIZED,
        help="for .tflite; int8 needs --data",
    )
    parser.add_argument(
        "--sparse", action="store_true", help="for .tflite: store weights without their zeros"
    )
    parser.add_argument(
        "--opset", type=int, metavar="N", help="for .onnx: the version of its operations"
    )
    parser.add_argument(
        "--tolerance",
        type=float,
        metavar="SHARE",
        help="the largest difference allowed, in parts of the largest output",
    )
    parser.add_argument(
        "--samples", type=int, default=32, metavar="N", help="examples to compare on (32)"
    )
    add_data(parser, "examples to compare on: an .npz file, or a folder of images")
    add_trust(parser)
    parser.set_defaults(command="tfprune.cli.export")
