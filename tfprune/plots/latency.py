"""Plots how long models and files take to predict."""

from tfprune._base import validation as check
from tfprune._reports.latency import Latencies, conditions, in_milliseconds
from tfprune.plots import drawing

# Beyond this ratio, the shortest bars could not be told apart on a linear axis.
_WIDE = 10


def plot_latency(latencies, path=None):
    """Draws the latency of models and files as bars, with the quartiles as lines.

    Needs matplotlib: `pip install "tfprune[plots]"`.

    Args:
        latencies: Result of `tfprune.compare_latency`.
        path: File to save the plot to; its suffix selects PNG, PDF or SVG. `None` saves nothing.

    Returns:
        The `matplotlib.figure.Figure`, with one panel for each batch size.

    Raises:
        ImportError: If matplotlib is not installed.
        TypeError: If `latencies` is something else.

    Example:

    >>> model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(4)])
    >>> found = tfprune.compare_latency({"model": model}, batch_size=[1, 8], runs=3)
    >>> figure = tfprune.plot_latency(found, "latency.png")
    >>> [axes.get_title() for axes in figure.axes]
    ['batch size 1', 'batch size 8']
    """
    if not isinstance(latencies, Latencies):
        raise TypeError(
            check.message(
                "the result of tfprune.compare_latency",
                f"latencies={type(latencies).__name__}",
                'Pass tfprune.compare_latency({"before": model, "after": small}).',
            )
        )
    rows = latencies.by_batch()
    sizes = list(dict.fromkeys(size for found in rows.values() for size in found))
    figure = drawing.new_figure(9, 1.4 + 0.26 * len(rows))
    panels = figure.subplots(1, len(sizes), sharey=True, squeeze=False)[0]
    for axes, size in zip(panels, sizes, strict=True):
        known = {name: found[size] for name, found in rows.items() if size in found}
        for place, name in enumerate(rows):
            if name not in known:
                continue
            one = known[name]
            middle, low, high = (1000 * value for value in (one.median, one.low, one.high))
            after = name.endswith("after")
            axes.barh(place, middle, 0.72, color=drawing.COLOURS[0 if after else 5])
            axes.plot([low, high], [place, place], color="black", linewidth=1)
            end = max(middle, high)
            axes.annotate(
                in_milliseconds(one.median),
                (end, place),
                (4, 0),
                textcoords="offset points",
                va="center",
                fontsize=7.5,
            )
        least = 1000 * min(one.low for one in known.values())
        most = 1000 * max(max(one.median, one.high) for one in known.values())
        label = "milliseconds a batch"
        if most > _WIDE * least:
            axes.set_xscale("log")
            axes.set_xlim(least / 2, 2 * most)
            label += ", logarithmic"
        else:
            axes.set_xlim(0, 1.18 * most)
        axes.set_title(f"batch size {size}", fontsize=9)
        axes.set_xlabel(label, fontsize=9)
        drawing.open_frame(axes, "left")
    drawing.name_rows(panels[0], list(rows))
    first = next(iter(next(iter(rows.values())).values()))
    figure.suptitle(conditions(first), fontsize=9)
    return drawing.finished(figure, path)
