"""`tfprune shrink MODEL -o FILE`."""

from tfprune import plots
from tfprune._base import validation as check
from tfprune.cli.loading import load_model
from tfprune.cli.saving import check_output, save_plain
from tfprune.structural import plan_shrink


def run(args, output):
    check_output(args.output, args.force, ".keras")
    if args.plot is not None:
        check_output(args.plot, args.force)
    model = load_model(args.model, args)
    named = {name: getattr(args, name) for name in ("macs", "parameters", "latency")}
    targets = {name: value for name, value in named.items() if value is not None}
    for name, value in targets.items():
        _check_share(name, value)
    how = {name: getattr(args, name) for name in ("criterion", "scope")}
    how = {name: value for name, value in how.items() if value is not None}
    if args.latency is not None or args.runtime != "keras":
        where = {"runtime": args.runtime, "threads": args.threads}
        how.update(where, latency_batch_size=args.batch_size)
    how["verbose"] = 0 if args.json else 1
    plan = plan_shrink(model, targets or None, round_to=args.round_to, **how)
    done = save_plain(plan.apply(), args.output)
    if args.plot is not None:
        plots.plot_groups(plan, args.plot)
    data = {"plan": plan.to_dict(), "path": str(done.path), "bytes": done.bytes}
    output.give(data, plan.table(), str(done))
    if not targets and plan.after.parameters == plan.before.parameters:
        output.say(
            "No channel is silent, so nothing was removed. Give a target, such as --macs 0.5, or "
            "prune whole filters first: tfprune prune --pattern filter."
        )


def _check_share(name, value):
    """Rejects numbers from 1 to 100, which are almost certainly percentages."""
    if 1 < value <= 100:
        raise ValueError(
            check.message(
                f"--{name} as a share of the model's present cost, between 0 and 1",
                f"--{name} {value:g}",
                f"Did you mean {value / 100:g}?",
            )
        )
