"""`tfprune prune MODEL --data PATH --sparsity S -o FILE`."""

import keras

from tfprune import patterns, schedules
from tfprune._base import validation as check
from tfprune._reports.report import sparsity_report
from tfprune._wrapping.methods import Rule
from tfprune._wrapping.strip import strip_pruning
from tfprune.callbacks import UpdatePruningStep
from tfprune.cli.loading import load_data, load_model
from tfprune.cli.saving import check_output, save_plain, save_wrapped
from tfprune.cli.schedules import sparsities
from tfprune.cli.training import check_labels, compile_for, measured
from tfprune.prune import prune_low_magnitude
from tfprune.structural import plan_shrink


def run(args, output):
    check_output(args.output, args.force, ".keras")
    check.sparsity("--sparsity", args.sparsity)
    for name, value in (("--epochs", args.epochs), ("--batch-size", args.batch_size)):
        check.integer(name, value, 1, "Give a whole number from 1 up.")
    if args.shrink and args.keep_wrappers:
        raise ValueError(
            check.message(
                "one of --shrink and --keep-wrappers",
                "both",
                "Leave one out: a shrunk model has no masks.",
            )
        )
    if args.seed is not None:
        mend = "Give a whole number below 2**32."
        keras.utils.set_random_seed(check.integer("--seed", args.seed, 0, mend) % 2**32)
    model = load_model(args.model, args, compile=True)
    data = load_data(args, model)
    check_labels(model, data.train[1])
    _compile(model, model, data, args)
    before = _measured(model, data, args)
    pruned = _prune(model, data, args)
    _compile(pruned, model, data, args)
    progress = output.progress(args.epochs)
    try:
        pruned.fit(
            *data.train,
            batch_size=args.batch_size,
            epochs=args.epochs,
            verbose=0,
            callbacks=[UpdatePruningStep(data=data.train, batch_size=args.batch_size), progress],
        )
    finally:
        progress.stop()
    after = _measured(pruned, data, args)
    report = sparsity_report(pruned)
    plan = plan_shrink(pruned) if args.shrink else None
    if args.keep_wrappers:
        save_wrapped(pruned, args.output)
    else:
        save_plain(strip_pruning(pruned) if plan is None else plan.apply(), args.output)
    size = args.output.stat().st_size
    numbers = {name: [before[name], after[name]] for name in before if name in after}
    result = {
        "path": str(args.output),
        "bytes": size,
        "sparsity": report.to_dict(),
        "metrics": numbers,
        "plan": None if plan is None else plan.to_dict(),
    }
    lines = [f"{name}: {old:.4f} before, {new:.4f} after" for name, (old, new) in numbers.items()]
    tables = [report.table()] if plan is None else [report.table(), plan.table()]
    output.give(result, *tables, *lines, f"{args.output}: {size:,} bytes")


def _prune(model, data, args):
    schedule = schedules.built_in()[args.schedule]
    end = 2 * args.epochs / 3 if args.pruning_epochs is None else args.pruning_epochs
    frequency = {} if args.frequency is None else {"frequency": args.frequency}
    return prune_low_magnitude(
        model,
        schedule.from_epochs(
            *sparsities(schedule, args.initial_sparsity, args.sparsity),
            steps_per_epoch=-(-len(data.train[0]) // args.batch_size),
            end_epoch=end,
            **frequency,
        ),
        pattern=_pattern(args),
        scope=args.scope,
        criterion=args.criterion,
        rules=[Rule(name, prune=False) for name in args.exclude],
    )


def _pattern(args):
    if args.block is not None:
        return patterns.Block(tuple(args.block))
    if args.n_of_m is not None:
        return patterns.NOfM(*args.n_of_m)
    return args.pattern


def _compile(model, original, data, args):
    """Compiles with the given loss and optimizer, or else with those of the original model."""
    own = original.get_compile_config() if original.compiled else None
    if args.learning_rate is not None:
        optimizer = keras.optimizers.Adam(args.learning_rate)
    elif own is not None:
        optimizer = keras.optimizers.deserialize(own["optimizer"])
    else:
        optimizer = keras.optimizers.Adam(1e-4)
    if own is None or args.loss is not None:
        compile_for(model, data, args.loss, optimizer)
        return
    model.compile_from_config({**own, "optimizer": keras.optimizers.serialize(optimizer)})


def _measured(model, data, args):
    try:
        return measured(model, data, args.batch_size)
    except Exception as error:
        # Losses raise many kinds of errors for labels of the wrong form.
        raise ValueError(
            check.message(
                f"labels that fit the loss of '{model.name}'",
                f"labels of shape {data.test[1].shape[1:]} and type {data.test[1].dtype} ({error})",
                "Pass another --loss, for instance sparse_categorical_crossentropy.",
            )
        ) from error
