"""Plots the widths of the layers of two models."""

import keras

from tfprune._base import validation as check
from tfprune._channels.graph import channel_groups, follow, without_wrappers
from tfprune._keras.checks import check_followable
from tfprune.plots import drawing


def plot_channels(before, after, path=None):
    """Draws how many channels each layer has in a model and in a smaller version of it.

    Layers that only pass channels on, such as depthwise convolutions, have no bar.

    Needs matplotlib: `pip install "tfprune[plots]"`.

    Args:
        before: A built Sequential or Functional model, wrapped or plain. It is not changed.
        after: The same model with fewer channels; layers are matched by their paths.
        path: File to save the plot to; its suffix selects PNG, PDF or SVG. `None` saves nothing.

    Returns:
        The `matplotlib.figure.Figure`.

    Raises:
        ImportError: If matplotlib is not installed.
        TypeError: If one is not a Keras 3 model.
        ValueError: If a model is not built, its `call` is code, or no layer makes channels.

    Example:

    >>> model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(4), keras.layers.Dense(2)])
    >>> small = tfprune.remove_channels(model, {model.layers[0].name: [0, 1]})
    >>> figure = tfprune.plot_channels(model, small)
    >>> [text.get_text() for text in figure.axes[0].texts]
    ['4 → 2', '2']
    """
    for name, model in (("before", before), ("after", after)):
        check_followable(model, name)
    old, new = widths(before), widths(after)
    if not old:
        raise ValueError(
            check.message(
                "a model with layers that make channels",
                f"'{before.name}', which has none",
                "Pass a model with convolutions or dense layers.",
            )
        )
    figure = drawing.new_figure(9, 1.3 + 0.21 * len(old))
    from matplotlib.patches import Patch
    from matplotlib.ticker import MaxNLocator

    axes = figure.add_subplot()
    for place, (layer, width) in enumerate(old.items()):
        left = new.get(layer, 0)
        axes.barh(place, width, 0.78, color=drawing.PALE)
        axes.barh(place, left, 0.78, color=drawing.COLOURS[0])
        text = f"{width:,}" if left == width else f"{width:,} → {left:,}"
        end = max(width, left)
        axes.annotate(
            text, (end, place), (4, 0), textcoords="offset points", va="center", fontsize=7.5
        )
    drawing.name_rows(axes, list(old))
    axes.set_xlim(0, 1.02 * max([*old.values(), *new.values()]))
    axes.set_xlabel("channels", fontsize=9)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.xaxis.set_major_formatter("{x:,.0f}")
    drawing.open_frame(axes, "left")
    colours = {"before": drawing.PALE, "after": drawing.COLOURS[0]}
    drawing.legend(figure, [Patch(color=colour, label=name) for name, colour in colours.items()])
    return drawing.finished(figure, path)


def widths(model):
    """Returns `{path: channels}` of the layers that make channels, in the order of the model."""
    groups, _ = channel_groups(follow(without_wrappers(model)))
    found = {path: len(units) for group in groups for path, units in group.makers.items()}
    order = {path: place for place, path in enumerate(_paths(model))}
    return dict(sorted(found.items(), key=lambda item: order.get(item[0], len(order))))


def _paths(model, prefix=""):
    for layer in model.layers:
        yield prefix + layer.name
        if isinstance(layer, keras.Model):
            yield from _paths(layer, f"{prefix}{layer.name}/")
