"""`tfprune sensitivity MODEL --data PATH`."""

from tfprune._analysis.sensitivity.analysis import sensitivity
from tfprune.cli.loading import load_data, load_model
from tfprune.cli.saving import check_output
from tfprune.cli.training import check_labels, compile_for


def run(args, output):
    if args.plot is not None:
        check_output(args.plot, force=True)
    model = load_model(args.model, args, compile=True)
    data = load_data(args, model)
    check_labels(model, data.train[1])
    if not model.compiled or args.loss is not None:
        compile_for(model, data, args.loss, "adam")
    x, y = data.train
    # The test part is for what is told of a model: a choice of layers that sees it fits it.
    held = max(1, round(len(x) * args.held_out))
    given = {} if args.sparsities is None else {"sparsities": args.sparsities}
    found = sensitivity(
        model,
        (x[-held:], y[-held:]),
        pattern=args.pattern,
        criterion=args.criterion,
        layers=args.layer,
        batch_size=args.batch_size,
        path=args.record,
        verbose=0 if args.json else 1,
        **given,
    )
    if args.plot is not None:
        found.plot(args.plot)
    output.give(found.to_dict(), found.table())
