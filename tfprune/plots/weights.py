"""Histograms of the weights before and after pruning."""

import math

import numpy as np

from tfprune import _keras
from tfprune._base import validation as check
from tfprune._reports import prunable_weights
from tfprune.plots import drawing

_BINS = 48


def plot_weights(before, after, layers=None, path=None):
    """Draws histograms of the weights of two models, one histogram for each weight.

    The histograms leave out exact zeros, which would dwarf all other values; the share of zeros
    is printed above each. The remaining values show the magnitudes that pruning removed.

    Needs matplotlib: `pip install "tfprune[plots]"`.

    Args:
        before: A built model: plain, wrapped or stripped.
        after: Another model with the same layer paths: pruned, fine-tuned or shrunk.
        layers: Names of the layers to draw, as shown in reports; by default, all layers with
            prunable weights. Weights missing from one of the models are left out.
        path: File to save the plot to; its suffix selects PNG, PDF or SVG. `None` saves nothing.

    Returns:
        The `matplotlib.figure.Figure`, with one axes for each weight.

    Raises:
        ImportError: If matplotlib is not installed.
        TypeError: If an argument is not a Keras 3 model, or `layers` are not names.
        ValueError: If a model is not built or has nothing to prune, the models have no weight in
            common, a name is unknown, or a weight is not finite.

    Example:

    >>> model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(4, name="a")])
    >>> after = tfprune.strip_pruning(tfprune.prune_low_magnitude(model))
    >>> figure = tfprune.plot_weights(model, after, path="weights.png")
    >>> [axes.get_title() for axes in figure.axes]
    ['a']
    """
    pairs = _pairs(before, after, layers)
    columns = min(4, len(pairs))
    rows = math.ceil(len(pairs) / columns)
    figure = drawing.new_figure(max(4.2, 2.5 * columns), 0.9 + 1.75 * rows)
    from matplotlib.patches import Patch

    for place, (name, old, new) in enumerate(pairs):
        _histogram(figure.add_subplot(rows, columns, place + 1), name, old, new)
    figure.suptitle("Nonzero weights, before and after", fontsize=10)
    blue = drawing.COLOURS[0]
    handles = [
        Patch(facecolor="#C8C8C8", label="before"),
        Patch(facecolor=blue + "55", edgecolor=blue, label="after"),
    ]
    drawing.legend(figure, handles)
    return drawing.finished(figure, path)


def _pairs(before, after, layers):
    """Lists `(name, values before, values after)` for the weights that both models have."""
    first = prunable_weights.find(before)
    second = {weight.name: weight for weight in prunable_weights.find(after)}
    common = [weight for weight in first if weight.name in second]
    if not common:
        raise ValueError(
            check.message(
                "two models with layers of the same names",
                f"'{before.name}' and '{after.name}', which have none in common",
                "Pass a model and another one made from it.",
            )
        )
    return [
        (weight.name, _values(weight), _values(second[weight.name]))
        for weight in prunable_weights.chosen(common, layers)
    ]


def _values(weight):
    values = np.asarray(_keras.host_array(weight.variable), dtype="float32").reshape(-1)
    if not np.isfinite(values).all():
        raise ValueError(
            check.message(
                f"finite weights in {weight.name}",
                "NaN or infinity",
                "Exclude this layer with `layers`, or restore the last good checkpoint.",
            )
        )
    return values


def _histogram(axes, name, old, new):
    from matplotlib.ticker import MaxNLocator

    everything = np.concatenate([old[old != 0], new[new != 0]])
    reach = float(np.abs(everything).max()) if everything.size else 1.0
    edges = np.linspace(-reach, reach, _BINS + 1)
    counts = [np.histogram(values[values != 0], edges)[0] for values in (old, new)]
    axes.stairs(counts[0], edges, fill=True, color="#C8C8C8")
    blue = drawing.COLOURS[0]
    axes.stairs(counts[1], edges, fill=True, facecolor=blue + "55", edgecolor=blue, linewidth=0.9)
    axes.set_title(drawing.without_middle(name, 36), fontsize=7.5, pad=14)
    zeros = " → ".join(drawing.as_percent(np.mean(values == 0)) for values in (old, new))
    axes.annotate(
        f"zeros: {zeros}",
        (0.5, 1),
        (0, 3),
        xycoords="axes fraction",
        textcoords="offset points",
        ha="center",
        fontsize=7,
        color="#505050",
    )
    axes.set_xlim(-reach, reach)
    axes.set_ylim(bottom=0)
    axes.xaxis.set_major_locator(MaxNLocator(3, symmetric=True))
    axes.yaxis.set_major_locator(MaxNLocator(3, integer=True))
    axes.yaxis.set_major_formatter("{x:,.0f}")
    drawing.open_frame(axes)
    axes.tick_params(labelsize=6.5)
