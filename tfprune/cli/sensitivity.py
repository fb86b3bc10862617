"""`tfprune sensitivity MODEL --data PATH`."""

from tfprune._analysis.sensitivity.analysis import sensitivity
from tfprune.cli.saving import check_output
from tfprune.cli.training import evaluated


def run(args, output):
    if args.plot is not None:
        check_output(args.plot, force=True)
    model, _, validation = evaluated(args)
    given = {} if args.sparsities is None else {"sparsities": args.sparsities}
    found = sensitivity(
        model,
        validation,
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
