"""`tfprune export MODEL -o FILE`."""

from dataclasses import asdict

from tfprune._deployment.exporting import export
from tfprune.cli.loading import add_data, add_model, add_trust, load_data, load_model
from tfprune.cli.saving import add_target, check_output


def add(commands, shared):
    parser = commands.add_parser(
        "export",
        parents=[shared],
        help="write a model for deployment, and check the file in its own runtime",
    )
    add_model(parser)
    add_target(parser, "a .keras, .onnx or .tflite file, or a folder for a SavedModel")
    parser.add_argument("--format", choices=("keras", "saved_model", "onnx", "litert"))
    parser.add_argument(
        "--shrink", action="store_true", help="remove channels that are silent first"
    )
    parser.add_argument(
        "--quantize",
        choices=("dynamic", "float16", "int8"),
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
    parser.set_defaults(run=run)


def run(args, output):
    check_output(args.output, args.force)
    model = load_model(args.model, args)
    data = load_data(args, model)
    done = export(
        model,
        args.output,
        args.format,
        shrink=args.shrink,
        quantize=args.quantize,
        sparse=args.sparse,
        opset=args.opset,
        data=None if data is None else data.train[0],
        samples=args.samples,
        tolerance=args.tolerance,
    )
    output.give(asdict(done), str(done))
