"""`tfprune shrink MODEL -o FILE`."""

from pathlib import Path

from tfprune import plots
from tfprune.cli.loading import add_model, add_trust, load_model
from tfprune.cli.saving import add_target, check_output, save_figure, save_plain
from tfprune.structural import plan_shrink


def add(commands, shared):
    parser = commands.add_parser(
        "shrink",
        parents=[shared],
        help="make a model physically smaller",
        description="Removes channels that are silent. With targets, prunes the filters with the "
        "lowest scores until the model costs no more than that; fine-tune the result.",
    )
    add_model(parser)
    add_target(parser, "the smaller model, a .keras file")
    targets = parser.add_argument_group("targets, in parts of what the model costs now")
    for name in ("macs", "parameters", "latency"):
        targets.add_argument(f"--{name}", type=float, metavar="SHARE")
    parser.add_argument(
        "--round-to", type=int, default=1, metavar="N", help="keep multiples of N channels"
    )
    parser.add_argument("--criterion", help="what channels are scored by, with targets")
    parser.add_argument("--scope", help="local, global or a distribution, with targets")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="draw which channels go")
    add_trust(parser)
    parser.set_defaults(run=run)


def run(args, output):
    check_output(args.output, args.force, ".keras")
    if args.plot is not None:
        check_output(args.plot, args.force)
    model = load_model(args.model, args)
    named = {name: getattr(args, name) for name in ("macs", "parameters", "latency")}
    targets = {name: value for name, value in named.items() if value is not None}
    how = {name: getattr(args, name) for name in ("criterion", "scope")}
    how = {name: value for name, value in how.items() if value is not None}
    plan = plan_shrink(model, targets or None, round_to=args.round_to, **how)
    done = save_plain(plan.apply(), args.output)
    if args.plot is not None:
        save_figure(plots.plot_groups(plan), args.plot)
    data = {"plan": plan.to_dict(), "path": str(done.path), "bytes": done.bytes}
    output.give(data, plan.table(), str(done))
