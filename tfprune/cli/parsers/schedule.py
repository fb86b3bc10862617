"""The parser of `tfprune schedule plot NAME`."""

from tfprune.cli.choices import SCHEDULES
from tfprune.cli.parsers.options import add_target


def add(commands, shared):
    parser = commands.add_parser("schedule", help="plot a schedule")
    inner = parser.add_subparsers(metavar="ACTION", required=True)
    plot = inner.add_parser("plot", parents=[shared], help="plot the sparsity over the steps")
    plot.add_argument("schedule", choices=SCHEDULES, metavar="NAME", help="one of %(choices)s")
    plot.add_argument(
        "--initial-sparsity",
        type=float,
        default=0.0,
        metavar="SPARSITY",
        help="sparsity at the first step (default: 0)",
    )
    plot.add_argument(
        "--sparsity", type=float, default=0.9, help="sparsity at the last step (default: 0.9)"
    )
    plot.add_argument(
        "--begin-step", type=int, default=0, metavar="STEP", help="first step (default: 0)"
    )
    plot.add_argument(
        "--end-step", type=int, default=1000, metavar="STEP", help="last step (default: 1000)"
    )
    plot.add_argument(
        "--frequency",
        type=int,
        default=100,
        metavar="STEPS",
        help="steps between two mask updates (default: 100)",
    )
    add_target(
        plot, "a .png, .svg or .pdf file; without it, the plot is printed as text", required=False
    )
    plot.set_defaults(command="tfprune.cli.schedule")
