"""`tfprune report MODEL`."""

from dataclasses import asdict

from tfprune import plots
from tfprune._base.files import size_on_disk
from tfprune._reports.cost import model_cost
from tfprune._reports.report import sparsity_report
from tfprune._wrapping.strip import strip_pruning
from tfprune.cli.loading import load_model
from tfprune.cli.saving import check_output


def run(args, output):
    if args.output is not None:
        check_output(args.output, args.force)
    model = load_model(args.model, args)
    report = sparsity_report(model)
    try:
        cost = model_cost(strip_pruning(model))
    except ValueError:
        # The zeros of a model whose `call` is code can be counted, its multiplications cannot.
        cost = None
    if args.output is not None:
        plots.plot_sparsity(report, args.output)
    size = size_on_disk(args.model)
    data = {
        "model": str(args.model),
        "bytes": size,
        "sparsity": report.to_dict(),
        "cost": None if cost is None else asdict(cost),
    }
    lines = [f"File: {size:,} bytes"]
    if cost is not None:
        macs = "unknown" if cost.macs is None else f"{cost.macs:,}"
        lines.append(f"Weights, with biases: {cost.parameters:,}   Multiplications (MACs): {macs}")
        if cost.uncounted:
            lines.append("Not counted: " + ", ".join(cost.uncounted))
    output.give(data, report.table(), *lines)
