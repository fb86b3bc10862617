"""The parser of `tfprune schedule plot NAME`."""

from tfprune.cli.choices import SCHEDULES
from tfprune.cli.parsers.options import add_target


def add(commands, shared):
    parser = commands.add_parser("schedule", help="draw a schedule")
    inner = parser.add_subparsers(metavar="ACTION", required=True)
    plot = inner.add_parser("plot", parents=[shared], help="draw sparsity over steps")
    plot.add_argument("schedule", choices=SCHEDULES, metavar="NAME", help="one of %(choices)s")
    plot.add_argument("--initial-sparsity", type=float, default=0.0, help="(0)")
    plot.add_argument("--sparsity", type=float, default=0.9, help="at the end (0.9)")
    plot.add_argument("--begin-step", type=int, default=0, help="(0)")
    plot.add_argument("--end-step", type=int, default=1000, help="(1000)")
    plot.add_argument("--frequency", type=int, default=100, help="steps between updates (100)")
    add_target(plot, "a picture, .png, .svg or .pdf; without it, drawn as text", required=False)
    plot.set_defaults(command="tfprune.cli.schedule")
