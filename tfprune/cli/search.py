"""`tfprune search METHOD MODEL --data PATH -o FILE`."""

from dataclasses import fields

from tfprune import patterns, pruners
from tfprune._base import validation as check
from tfprune.cli.saving import check_output, save_plain
from tfprune.cli.training import evaluated
from tfprune.pruners.search.candidate_search import SEARCHES, CandidateSearch


def run(args, output):
    check_output(args.output, args.force, ".keras")
    if args.plot is not None:
        check_output(args.plot, args.force)
    options = _options(args)
    named = {name: getattr(args, name) for name in ("macs", "parameters", "latency")}
    budget = {name: value for name, value in named.items() if value is not None}
    if not budget:
        raise ValueError(
            check.message("a budget", "none", "Give for instance --macs 0.5, half of the MACs.")
        )
    model, training, validation = evaluated(args)

    def evaluate(candidate):
        size = args.batch_size
        return candidate.evaluate(*validation, batch_size=size, verbose=0, return_dict=True)

    search = SEARCHES.by_name()[args.method](
        model,
        budget,
        pattern=patterns.Filter(round_to=args.round_to),
        criterion=args.criterion,
        data=training,
        runtime=args.runtime,
        objective=pruners.Objective(batch_size=args.batch_size),
        seed=0 if args.seed is None else args.seed,
        **options,
    )
    found = search.run(evaluate, args.folder, verbose=0 if args.json else 1)
    done = save_plain(found.model, args.output)
    if args.plot is not None:
        found.plot(args.plot)
    result = {"search": found.to_dict(), "path": str(done.path), "bytes": done.bytes}
    output.give(result, found.table(), str(done))


def _options(args):
    """Returns the given options of the method; raises ValueError for those of other methods."""
    shared = {field.name for field in fields(CandidateSearch)}
    own = {
        method: {field.name for field in fields(cls)} - shared
        for method, cls in SEARCHES.by_name().items()
    }
    known = set().union(*own.values())
    options = {name: v for name, v in vars(args).items() if name in known and v is not None}
    for name in options:
        if name not in own[args.method]:
            takers = " or ".join(method for method, names in own.items() if name in names)
            flag = "--" + name.replace("_", "-")
            raise ValueError(
                check.message(
                    f"{flag} with {takers} alone", f"{flag} with {args.method}", "Leave it out."
                )
            )
    return options
