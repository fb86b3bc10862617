"""`tfprune prune MODEL --data PATH --sparsity S -o FILE`."""

import keras

from tfprune import patterns, schedules
from tfprune._base import validation as check
from tfprune._reports.report import sparsity_report
from tfprune._wrapping.methods import Rule
from tfprune._wrapping.strip import strip_pruning
from tfprune.callbacks import UpdatePruningStep
from tfprune.cli.loading import add_data, add_model, add_trust, load_data, load_model
from tfprune.cli.saving import add_target, check_output, save_plain, save_wrapped
from tfprune.cli.schedules import sparsities
from tfprune.cli.training import check_labels, compile_for, measured
from tfprune.prune import prune_low_magnitude
from tfprune.structural import shrink


def add(commands, shared):
    parser = commands.add_parser(
        "prune",
        parents=[shared],
        help="train a model on while its sparsity rises",
        description="Trains a model on data while a schedule raises its sparsity, and writes the "
        "pruned model, a plain Keras model.",
    )
    add_model(parser)
    add_target(parser, "the pruned model, a .keras file")
    parser.add_argument("--sparsity", type=float, required=True, help="share of zeros, as 0.9")
    parser.add_argument("--epochs", type=int, default=3, help="(3)")
    parser.add_argument(
        "--pruning-epochs",
        type=float,
        metavar="EPOCHS",
        help="when the sparsity is reached; two thirds of the epochs by default",
    )
    parser.add_argument(
        "--schedule", choices=tuple(schedules.built_in()), default="polynomial_decay"
    )
    parser.add_argument("--initial-sparsity", type=float, default=0.0, help="(0)")
    parser.add_argument("--frequency", type=int, help="steps between two updates of the masks")
    parser.add_argument("--criterion", default="magnitude", help="what weights are scored by")
    parser.add_argument(
        "--scope", default="local", help="local, global, or a distribution such as erdos_renyi"
    )
    units = parser.add_mutually_exclusive_group()
    units.add_argument("--pattern", help="what is pruned as one: unstructured, filter, channel ...")
    units.add_argument("--block", type=int, nargs=2, metavar=("HEIGHT", "WIDTH"))
    units.add_argument("--n-of-m", type=int, nargs=2, metavar=("ZEROS", "GROUP"))
    parser.add_argument(
        "--exclude",
        action="append",
        default=[],
        metavar="LAYER",
        help="a layer that is not pruned, by name; * stands for anything; several times",
    )
    parser.add_argument(
        "--shrink", action="store_true", help="remove the channels that are silent at the end"
    )
    parser.add_argument(
        "--keep-wrappers", action="store_true", help="write the masks too, to train on"
    )
    training = parser.add_argument_group("training")
    training.add_argument("--batch-size", type=int, default=32, help="(32)")
    training.add_argument(
        "--learning-rate",
        type=float,
        help="of Adam; without it the model's own optimizer, or Adam at 0.0001",
    )
    training.add_argument("--loss", help="a Keras loss, where the model's own does not fit")
    add_data(parser, "an .npz file, or a folder with a folder of images for each class", True)
    add_trust(parser)
    parser.set_defaults(run=run)


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
                "A smaller model has no masks: leave one out.",
            )
        )
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
    if args.keep_wrappers:
        save_wrapped(pruned, args.output)
    else:
        save_plain(shrink(pruned) if args.shrink else strip_pruning(pruned), args.output)
    size = args.output.stat().st_size
    numbers = {name: [before[name], after[name]] for name in before if name in after}
    result = {
        "path": str(args.output),
        "bytes": size,
        "sparsity": report.to_dict(),
        "metrics": numbers,
    }
    lines = [f"{name}: {old:.4f} before, {new:.4f} after" for name, (old, new) in numbers.items()]
    output.give(result, report.table(), *lines, f"{args.output}: {size:,} bytes")


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
    """With the original model's own loss and optimizer, where it has any and none are given."""
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
        # Losses raise errors of many kinds for labels of another form.
        raise ValueError(
            check.message(
                f"labels that the loss of '{model.name}' takes",
                f"labels of shape {data.test[1].shape[1:]} and type {data.test[1].dtype} ({error})",
                "Give another --loss, for instance sparse_categorical_crossentropy.",
            )
        ) from error
