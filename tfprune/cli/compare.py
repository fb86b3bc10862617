"""`tfprune compare BEFORE AFTER`."""

import keras

from tfprune._analysis.comparison import compare
from tfprune._analysis.comparison.tables import comparison_tables, shown
from tfprune._base import validation as check
from tfprune._base.files import written_atomically
from tfprune.cli.loading import load_data, load_model_or_file
from tfprune.cli.saving import check_output
from tfprune.cli.training import compile_for


def run(args, output):
    for path in (args.html, args.markdown):
        if path is not None:
            check_output(path, args.force)
    before, after = (load_model_or_file(path, args) for path in (args.before, args.after))
    models = [model for model in (before, after) if isinstance(model, keras.Model)]
    data = load_data(args, models[0]) if models else _without_data(args)
    if data is not None and not any(model.compiled for model in models):
        compile_for(models[0], data, args.loss, keras.optimizers.SGD())
    found = compare(
        before,
        after,
        None if data is None else data.test,
        formats=args.formats,
        latency=not args.no_latency,
        batch_size=args.batch_size,
        runs=args.runs,
        threads=args.threads,
        verbose=0 if args.json else 1,
    )
    if args.html is not None:
        found.html(args.html)
    if args.markdown is not None:
        with written_atomically(args.markdown) as unfinished:
            unfinished.write_text(found.markdown(), encoding="utf-8")
    output.give(found.to_dict(), *shown(comparison_tables(found)))


def _without_data(args):
    if args.data is not None:
        raise ValueError(
            check.message(
                "a .keras file on one side, whose metrics to measure on --data",
                f"{args.before} and {args.after}",
                "Leave --data out, or compare with the .keras file.",
            )
        )
    return None
