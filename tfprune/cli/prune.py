"""`tfprune prune MODEL --data PATH --sparsity S -o FILE`."""

from functools import partial

from tfprune import patterns, schedules
from tfprune._base import validation as check
from tfprune._reports.report import sparsity_report
from tfprune._wrapping.methods import Rule
from tfprune._wrapping.strip import strip_pruning
from tfprune.callbacks import UpdatePruningStep
from tfprune.cli.saving import check_output, save_plain, save_wrapped
from tfprune.cli.schedule_options import sparsities
from tfprune.cli.trained import load_and_train
from tfprune.cli.training import check_training
from tfprune.prune import prune_low_magnitude
from tfprune.structural import plan_shrink


def run(args, output):
    check_output(args.output, args.force, ".keras")
    check.sparsity("--sparsity", args.sparsity)
    check_training(args)
    if args.pruning_epochs is not None and args.pruning_epochs > args.epochs:
        raise ValueError(
            check.message(
                f"--pruning-epochs up to --epochs, {args.epochs}",
                f"--pruning-epochs {args.pruning_epochs:g}, so that {args.sparsity:g} would never "
                "be reached",
                "Raise --epochs: a few after the last pruning let the model recover.",
            )
        )
    if args.shrink and args.keep_wrappers:
        raise ValueError(
            check.message(
                "one of --shrink and --keep-wrappers",
                "both",
                "Leave one out: a shrunk model has no masks.",
            )
        )
    trained = load_and_train(args, partial(_wrapped, args), output)
    pruned = trained.model
    report = sparsity_report(pruned)
    plan = plan_shrink(pruned) if args.shrink else None
    if args.keep_wrappers:
        save_wrapped(pruned, args.output)
    else:
        save_plain(strip_pruning(pruned) if plan is None else plan.apply(), args.output)
    size = args.output.stat().st_size
    result = {
        "path": str(args.output),
        "bytes": size,
        "sparsity": report.to_dict(),
        "metrics": trained.metrics,
        "plan": None if plan is None else plan.to_dict(),
    }
    tables = [report.table()] if plan is None else [report.table(), plan.table()]
    output.give(result, *tables, *trained.lines(), f"{args.output}: {size:,} bytes")


def _wrapped(args, model, data):
    schedule = schedules.built_in()[args.schedule]
    end = 2 * args.epochs / 3 if args.pruning_epochs is None else args.pruning_epochs
    frequency = {} if args.frequency is None else {"frequency": args.frequency}
    pruned = prune_low_magnitude(
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
    return pruned, UpdatePruningStep(data=data.train, batch_size=args.batch_size)


def _pattern(args):
    if args.block is not None:
        return patterns.Block(tuple(args.block))
    if args.n_of_m is not None:
        return patterns.NOfM(*args.n_of_m)
    return args.pattern
