"""`tfprune export MODEL -o FILE`."""

from dataclasses import asdict

from tfprune._deployment.exporting import export
from tfprune.cli.loading import load_data, load_model
from tfprune.cli.saving import check_output


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
        io_dtype=args.io_dtype,
        data=None if data is None else data.train[0],
        samples=args.samples,
        tolerance=args.tolerance,
        verbose=0 if args.json else 1,
    )
    output.give(asdict(done), str(done))
