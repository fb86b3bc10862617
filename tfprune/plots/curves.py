"""Plots the curve of a schedule."""

import numpy as np

from tfprune.plots import drawing


def draw(schedule, path=None, steps=None, ax=None):
    """Draws the sparsity over the steps, with a dot at every mask update.

    Args:
        schedule: A `PruningSchedule`.
        path: File to save the plot to; `None` saves nothing.
        steps: Last step to draw; by default, 10 % past the end of the schedule.
        ax: matplotlib axes to draw on; `None` makes a new figure.

    Returns:
        The `matplotlib.figure.Figure`.
    """
    if ax is None:
        ax = drawing.new_figure(7, 3.5).add_subplot()
    end = int(getattr(schedule, "end_step", -1))
    begin = int(getattr(schedule, "begin_step", 0))
    if steps is None:
        last = end if end > begin else begin + 10 * int(getattr(schedule, "frequency", 100))
        steps = last + max(1, (last - begin) // 10)
    axis = np.arange(int(steps) + 1)
    due, value = schedule.evaluate(axis)
    # The masks hold the value of the latest update, so the curve is a staircase.
    known = np.maximum.accumulate(np.where(due, axis, -1))
    held = np.where(known >= 0, value[np.maximum(known, 0)], 0.0)
    (line,) = ax.step(axis, held, where="post", label=type(schedule).__name__)
    ax.plot(axis[due], value[due], "o", markersize=3, color=line.get_color())
    ax.set_xlabel("optimizer step")
    ax.set_ylabel("sparsity")
    ax.set_ylim(-0.02, 1.02)
    drawing.percent_axis(ax.yaxis)
    ax.spines[["top", "right"]].set_visible(False)
    ax.grid(alpha=0.3)
    ax.legend(loc="lower right", frameon=False)
    return drawing.finished(ax.figure, path)
