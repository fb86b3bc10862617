"""Plots a metric over the rounds of lottery tickets."""

from tfprune.plots import drawing

_MARKERS = "os^Dv"
# More labels than this would overlap.
_MOST_TICKS = 9


def draw(found, metric, path=None, ax=None):
    """Draws a metric against the sparsity.

    Args:
        found: List of `Tickets`. A line shows the dense model of the first one.
        metric: Name of the metric.
        path: File to save the plot to; `None` saves nothing.
        ax: matplotlib axes to draw on; `None` makes a new figure.

    Returns:
        The `matplotlib.figure.Figure`.
    """
    if ax is None:
        ax = drawing.new_figure(7, 4).add_subplot()
    from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

    ticks: set = set()
    for number, tickets in enumerate(found):
        points = [
            (1 - one.zeros / one.parameters, one.metrics[metric])
            for one in tickets.rounds
            if metric in one.metrics
        ]
        label = (tickets.control or "lottery ticket").replace("_", " ")
        marker = _MARKERS[number % len(_MARKERS)]
        ax.plot(*zip(*points, strict=True), marker=marker, markersize=4, label=label)
        ticks |= {density for density, _ in points}
    dense = found[0].rounds[0].metrics
    if metric in dense:
        ax.axhline(dense[metric], color="gray", linewidth=0.8, linestyle=":")
    # Each round removes the same share of the remaining weights: equal steps on a log axis.
    ax.set_xscale("log")
    ax.invert_xaxis()
    shown = sorted(ticks, reverse=True)
    shown = shown[:: -(-len(shown) // _MOST_TICKS)]
    ax.xaxis.set_major_locator(FixedLocator(shown))
    ax.xaxis.set_minor_locator(NullLocator())
    ax.xaxis.set_major_formatter(FuncFormatter(lambda density, _: f"{1 - density:.1%}"))
    ax.set_xlabel("sparsity")
    ax.set_ylabel(metric.replace("_", " "))
    ax.grid(alpha=0.3)
    ax.legend()
    return drawing.finished(ax.figure, path)
