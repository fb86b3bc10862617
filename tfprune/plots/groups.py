"""Plots which channels are removed together, and which ones a plan removes."""

from collections import Counter
from dataclasses import dataclass

from tfprune._base import validation as check
from tfprune.plots import drawing
from tfprune.structural import ShrinkPlan, dependency_groups

_LONGEST_NOTE = 58


@dataclass(frozen=True)
class _Row:
    """The bar of one layer."""

    name: str
    before: int
    after: int
    colour: str
    note: str


def plot_groups(model, path=None):
    """Draws the channels of each layer in the colour of the layer's group.

    Layers whose channels can only be removed together are adjacent and share a colour. Layers
    that depend on no other layer are grey. Channels that a plan removes are pale and hatched.
    Layers that only pass channels on, such as depthwise convolutions, have no bar.

    Needs matplotlib: `pip install "tfprune[plots]"`.

    Args:
        model: A `ShrinkPlan`, or a built Sequential or Functional model, drawn with all its
            channels. It is not changed.
        path: File to save the plot to; its suffix selects PNG, PDF or SVG. `None` saves nothing.

    Returns:
        The `matplotlib.figure.Figure`.

    Raises:
        ImportError: If matplotlib is not installed.
        TypeError: If `model` is neither a plan nor a Keras 3 model.
        ValueError: If the model is not built, its `call` is code, or no layer makes channels.

    Example:

    >>> model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(4), keras.layers.Dense(2)])
    >>> figure = tfprune.plot_groups(model, "groups.png")
    >>> [int(bar.get_width()) for bar in figure.axes[0].patches]
    [4, 2]
    """
    rows = _rows(model)
    figure = drawing.new_figure(9, 1.5 + 0.21 * len(rows))
    from matplotlib.patches import Patch
    from matplotlib.ticker import MaxNLocator

    axes = figure.add_subplot()
    widest = max(row.before for row in rows)
    for place, row in enumerate(rows):
        axes.barh(place, row.after, 0.78, color=row.colour)
        gone = row.before - row.after
        if gone:
            axes.barh(place, gone, 0.78, left=row.after, **_pale(row.colour))
        number = f"{row.before:,} → {row.after:,}" if gone else f"{row.before:,}"
        text = f"{number}   {row.note}" if row.note else number
        axes.annotate(
            text, (row.before, place), (4, 0), textcoords="offset points", va="center", fontsize=7.5
        )
    drawing.name_rows(axes, [row.name for row in rows])
    axes.set_xlim(0, 1.02 * widest)
    axes.set_xlabel("channels", fontsize=9)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.xaxis.set_major_formatter("{x:,.0f}")
    drawing.open_frame(axes, "left")
    figure.suptitle(_title(model), fontsize=10)
    legend = []
    if any(row.colour != drawing.GREY for row in rows):
        label = "one colour: layers that lose channels together"
        legend.append(Patch(facecolor=drawing.COLOURS[0], label=label))
    legend.append(Patch(facecolor=drawing.GREY, label="depends on no other layer"))
    if any(row.after < row.before for row in rows):
        legend.append(Patch(label="removed", **_pale(drawing.GREY)))
    drawing.legend(figure, legend)
    return drawing.finished(figure, path)


def _rows(model):
    if isinstance(model, ShrinkPlan):
        groups = [(g.widths, not g.removed, Counter(g.why)) for g in model.groups]
    else:
        groups = [
            (
                {path: (len(units), len(units)) for path, units in group.makers.items()},
                group.removable == 0,
                Counter(group.fixed.values()),
            )
            for group in dependency_groups(model)
        ]
    rows, coupled = [], 0
    for widths, whole, why in groups:
        colour = drawing.GREY
        if len(widths) > 1:
            colour, coupled = drawing.COLOURS[coupled % len(drawing.COLOURS)], coupled + 1
        note = f"all kept: {why.most_common(1)[0][0]}" if whole and why else ""
        for path, (before, after) in widths.items():
            rows.append(_Row(path, before, after, colour, _without_end(note)))
            # One note per group is enough.
            note = ""
    if not rows:
        raise ValueError(
            check.message(
                "a model with layers that make channels",
                "one without such layers",
                "Pass a model with convolutions or dense layers.",
            )
        )
    return rows


def _title(model):
    if not isinstance(model, ShrinkPlan):
        return f"Channels of '{model.name}'"
    parts = []
    for label, name in (("parameters", "parameters"), ("MACs", "macs")):
        old, new = getattr(model.before, name), getattr(model.after, name)
        if old and new is not None:
            parts.append(f"{_round(old)} → {_round(new)} {label}")
    return f"Channels of '{model.apply().name}': " + ", ".join(parts)


def _round(number):
    for size, letter in ((10**9, " G"), (10**6, " M"), (10**3, " k")):
        if number >= size:
            return f"{number / size:.3g}{letter}"
    return str(number)


def _pale(colour):
    return {"facecolor": colour + "33", "edgecolor": colour, "hatch": "/////", "linewidth": 0}


def _without_end(note):
    return note if len(note) <= _LONGEST_NOTE else f"{note[: _LONGEST_NOTE - 1]}…"
