"""`tfprune schedule plot NAME`."""

import numpy as np

from tfprune import schedules
from tfprune._base import validation as check
from tfprune.cli.saving import check_output
from tfprune.cli.schedule_options import sparsities

_COLUMNS, _LINES = 64, 10
# Steps, of which each takes some bytes.
_MOST = 10_000_000


def run(args, output):
    if args.output is not None:
        check_output(args.output, args.force)
    if args.end_step > _MOST:
        raise ValueError(
            check.message(
                f"at most {_MOST:,} steps to draw", f"--end-step {args.end_step}", "Use fewer."
            )
        )
    schedule = schedules.built_in()[args.schedule]
    schedule = schedule(
        *sparsities(schedule, args.initial_sparsity, args.sparsity),
        begin_step=args.begin_step,
        end_step=args.end_step,
        frequency=args.frequency,
    )
    steps = np.arange(args.end_step + 1)
    due, value = schedule.evaluate(steps)
    updates = [
        {"step": int(step), "sparsity": float(str(np.float32(value[step])))} for step in steps[due]
    ]
    data = {"schedule": schedule.get_config(), "updates": updates}
    if args.output is None:
        output.give(data, _drawn(steps, due, value), f"{len(updates)} updates of the masks")
        return
    schedule.plot(args.output)
    output.give(data, f"{args.output}: {len(updates)} updates of the masks")


def _drawn(steps, due, value):
    """The sparsity of the masks over the steps, as a text plot."""
    latest = np.maximum.accumulate(np.where(due, steps, -1))
    held = np.where(latest >= 0, value[np.maximum(latest, 0)], 0.0)
    columns = held[np.linspace(0, len(steps) - 1, _COLUMNS).round().astype(int)]
    lines = []
    for line in range(_LINES, -1, -1):
        level = line / _LINES
        cells = "".join("█" if column >= level and column > 0 else " " for column in columns)
        lines.append(f"{level:4.1f} ┤{cells}")
    last = f"{steps[-1]:,}"
    return "\n".join([*lines, "     └" + "─" * _COLUMNS, f"      0{last:>{_COLUMNS - 1}} steps"])
