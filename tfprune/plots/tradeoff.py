"""Plots accuracy against sparsity or latency."""

import math

import numpy as np

from tfprune._base import validation as check
from tfprune._reports.latency import Latency
from tfprune.plots import drawing

_MARKERS = "os^Dv<>P"
_MEND = 'Use for instance {"magnitude": [(0.5, 0.91), (0.9, 0.88)]}.'


def plot_tradeoff(points, path=None, x="sparsity", y="accuracy"):
    """Draws one quantity of several models against another, with one line per series.

    If a series has several points at one `x`, for instance from several seeds, the line runs
    through their median, and a bar shows their range.

    Needs matplotlib: `pip install "tfprune[plots]"`.

    Args:
        points: `{name of the series: [(x, y), ...]}`, in any order.
        path: File to save the plot to; its suffix selects PNG, PDF or SVG. `None` saves nothing.
        x: Label of the horizontal axis. It selects the unit: "sparsity" takes fractions in
            [0, 1), drawn in percent; "latency" takes seconds or `Latency`s, drawn in milliseconds
            with quartiles. Numbers with any other label are drawn unchanged.
        y: The same for the vertical axis.

    Returns:
        The `matplotlib.figure.Figure`.

    Raises:
        ImportError: If matplotlib is not installed.
        TypeError: If `points` does not have this form.
        ValueError: If a series is empty, or a number is not finite or out of range.

    Example:

    >>> points = {"magnitude": [(0.5, 0.91), (0.9, 0.86), (0.9, 0.88), (0.9, 0.80)]}
    >>> figure = tfprune.plot_tradeoff(points, "tradeoff.png")
    >>> figure.axes[0].lines[0].get_ydata().tolist()
    [0.91, 0.86]
    """
    for argument, label in (("x", x), ("y", y)):
        if not isinstance(label, str):
            raise TypeError(
                check.message(
                    f"`{argument}` to be the label of an axis, a string",
                    f"{argument}={label!r}",
                    'Use for instance "sparsity" or "latency".',
                )
            )
    series = {str(name): _series(name, given, x, y) for name, given in _items(points)}
    figure = drawing.new_figure(7, 4.4)
    axes = figure.add_subplot()
    for number, known in enumerate(series.items()):
        _draw(axes, number, *known)
    for axis, label in ((axes.xaxis, x), (axes.yaxis, y)):
        axis.set_label_text(_label(label), fontsize=9)
        if label == "sparsity":
            drawing.percent_axis(axis)
    drawing.open_frame(axes)
    axes.grid(alpha=0.3)
    axes.margins(0.06)
    figure.suptitle(f"{_plain(y).capitalize()} against {_plain(x)}", fontsize=10)
    several = any(len(values) > 1 for known in series.values() for values in known.values())
    handles = [line for line in axes.lines if not line.get_label().startswith("_")]
    drawing.legend(figure, handles)
    if several:
        axes.set_title("median, and the range of several runs", fontsize=8, color="#505050")
    return drawing.finished(figure, path)


def _items(points):
    if not isinstance(points, dict):
        raise TypeError(
            check.message(
                "`points` to be a dictionary from the names of series to points",
                f"points={points!r}"[:200],
                _MEND,
            )
        )
    if not points:
        raise ValueError(check.message("at least one series", "points={}", _MEND))
    return points.items()


def _series(name, given, x, y):
    """Returns `{x: [y of each run]}` by rising x; both are `(low, middle, high)`."""
    pairs = list(given) if isinstance(given, (list, tuple)) else None
    if pairs is None or not all(isinstance(p, (list, tuple)) and len(p) == 2 for p in pairs):
        raise TypeError(
            check.message(f"{name!r} to be a list of pairs (x, y)", f"{given!r}"[:200], _MEND)
        )
    if not pairs:
        raise ValueError(check.message(f"at least one point in {name!r}", "none", _MEND))
    found: dict = {}
    for one, other in pairs:
        found.setdefault(_number(name, one, x), []).append(_number(name, other, y))
    return dict(sorted(found.items(), key=lambda item: item[0][1]))


def _number(name, value, label):
    """Returns `(low, middle, high)` of a number, in the unit of the axis."""
    if isinstance(value, Latency) and label == "latency":
        return tuple(1000 * part for part in (value.low, value.median, value.high))
    number = isinstance(value, (int, float, np.number)) and not isinstance(value, bool)
    if not number:
        raise TypeError(check.message(f"numbers as {label} of {name!r}", f"{value!r}"[:200], _MEND))
    if label == "sparsity":
        value = check.sparsity(f"sparsity of {name!r}", value)
    if not math.isfinite(value) or (label == "latency" and value < 0):
        kind = "seconds" if label == "latency" else "finite numbers"
        raise ValueError(check.message(f"{kind} as {label} of {name!r}", f"{value!r}", _MEND))
    value = 1000 * float(value) if label == "latency" else float(value)
    return (value, value, value)


def _draw(axes, number, name, known):
    style = {
        "color": drawing.COLOURS[number % len(drawing.COLOURS)],
        "marker": _MARKERS[number % len(_MARKERS)],
    }
    xs = np.array(list(known))
    middles, lows, highs = [], [], []
    for runs in known.values():
        middles.append(float(np.median([run[1] for run in runs])))
        lows.append(min(run[0] for run in runs))
        highs.append(max(run[2] for run in runs))
    axes.plot(xs[:, 1], middles, markersize=4.5, linewidth=1.3, label=name, **style)
    thin = {"color": style["color"], "linewidth": 1, "alpha": 0.7}
    for place, low, high in zip(xs[:, 1], lows, highs, strict=True):
        if high > low:
            axes.vlines(place, low, high, **thin)
    for (low, _, high), middle in zip(xs, middles, strict=True):
        if high > low:
            axes.hlines(middle, low, high, **thin)


def _label(name):
    return "latency in ms" if name == "latency" else _plain(name)


def _plain(name):
    return name.replace("_", " ")
