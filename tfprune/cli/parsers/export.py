"""The parser of `tfprune export MODEL -o FILE`."""

from tfprune.cli.choices import FORMATS, IO_DTYPES, QUANTIZED
from tfprune.cli.parsers.options import add_data, add_model, add_name, add_target, add_trust


def add(commands, shared):
    parser = commands.add_parser(
        "export",
        parents=[shared],
        help="export a model for deployment, and verify the file in its runtime",
    )
    add_model(parser)
    meaning = "output: a .keras, .onnx, .tflite or .pt2 file, or a folder for a SavedModel"
    add_target(parser, meaning)
    add_name(parser, "--format", FORMATS, "output format; by default, the file extension decides")
    parser.add_argument(
        "--shrink", action="store_true", help="remove silent channels before exporting"
    )
    parser.add_argument(
        "--quantize",
        choices=QUANTIZED,
        help="quantize the weights (.tflite; .onnx except float16); int8 needs --data",
    )
    parser.add_argument(
        "--io-dtype",
        choices=IO_DTYPES,
        help="dtype of inputs and outputs, with --quantize int8 (.tflite only)",
    )
    parser.add_argument(
        "--sparse", action="store_true", help="store weights without their zeros (.tflite only)"
    )
    parser.add_argument(
        "--opset", type=int, metavar="N", help="version of the ONNX operator set (.onnx only)"
    )
    parser.add_argument(
        "--tolerance",
        type=float,
        metavar="SHARE",
        help="largest difference allowed, as a share of the largest output",
    )
    parser.add_argument(
        "--samples",
        type=int,
        metavar="N",
        help="most examples to use (default: 32 to verify the file, all for int8's ranges)",
    )
    add_data(parser, "examples to verify the file on: an .npz file, or a folder of images")
    add_trust(parser)
    parser.set_defaults(command="tfprune.cli.export")
