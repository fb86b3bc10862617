"""Plots the curves of a training run above its sparsity."""

import keras
import numpy as np

from tfprune._base import validation as check
from tfprune.plots import drawing

_MEND = "Pass the return value of model.fit, called with the callback UpdatePruningStep."


def plot_training(history, path=None):
    """Draws the losses and metrics of a training run above its sparsity, epoch by epoch.

    Needs matplotlib: `pip install "tfprune[plots]"`.

    Args:
        history: The return value of `model.fit` with `UpdatePruningStep`, or a dictionary like
            its `history`: `{name: [value of each epoch]}`, including "sparsity". A name with the
            prefix "val_" shares the axes of the name without it.
        path: File to save the plot to; its suffix selects PNG, PDF or SVG. `None` saves nothing.

    Returns:
        The `matplotlib.figure.Figure`, with one axes for each metric, the sparsity last.

    Raises:
        ImportError: If matplotlib is not installed.
        TypeError: If `history` is neither of these.
        ValueError: If the sparsity or the epochs are missing, or a list does not fit the epochs.

    Example:

    >>> history = {"loss": [0.9, 0.5], "val_loss": [1.0, 0.8], "sparsity": [0.5, 0.75]}
    >>> figure = tfprune.plot_training(history, "training.png")
    >>> [axes.get_ylabel() for axes in figure.axes]
    ['loss', 'sparsity']
    """
    curves, epochs = _curves(history)
    panels = _panels(curves)
    figure = drawing.new_figure(7, 0.9 + 1.7 * len(panels))
    axes = figure.subplots(len(panels), 1, sharex=True, squeeze=False)[:, 0]
    for one, (title, names) in zip(axes, panels.items(), strict=True):
        for name, style in names.items():
            one.plot(*_points(name, curves[name], epochs), markersize=3.5, **style)
        one.set_ylabel(title.replace("_", " "), fontsize=9)
        drawing.open_frame(one)
        one.grid(alpha=0.3)
    axes[-1].set_ylim(-0.02, 1.02)
    drawing.percent_axis(axes[-1].yaxis)
    axes[-1].set_xlabel("epoch", fontsize=9)
    _whole_epochs(axes[-1], epochs)
    figure.align_ylabels(axes)
    figure.suptitle("Training and sparsity", fontsize=10)
    drawing.legend(figure, _handles(panels))
    return drawing.finished(figure, path)


def _curves(history):
    """Returns the curves by name, and the epochs, counted from 1."""
    epochs = None
    if isinstance(history, keras.callbacks.History):
        epochs = [epoch + 1 for epoch in history.epoch]
        history = history.history
    if not isinstance(history, dict):
        raise TypeError(
            check.message(
                "`history` to be a keras.callbacks.History or its dictionary",
                f"history={type(history).__name__}",
                _MEND,
            )
        )
    sparsity = history.get("sparsity", ())
    if not len(sparsity):
        names = ", ".join(repr(name) for name in history)
        raise ValueError(
            check.message('"sparsity" of at least one epoch in `history`', names or "none", _MEND)
        )
    if epochs is None:
        epochs = list(range(1, len(sparsity) + 1))
    return {name: np.asarray(values, dtype=float) for name, values in history.items()}, epochs


def _panels(curves):
    """Returns `{title: {name: style}}`, the loss first and the sparsity last."""
    blue, red, green = drawing.COLOURS[:3]
    names = [name for name in curves if name != "sparsity"]
    titles = dict.fromkeys(name.removeprefix("val_") for name in names)
    panels = {}
    for title in sorted(titles, key=lambda title: title != "loss"):
        both = {title: {"color": blue, "marker": "o"}}
        both[f"val_{title}"] = {"color": red, "marker": "s", "linestyle": "--"}
        panels[title] = {name: style for name, style in both.items() if name in curves}
    return {**panels, "sparsity": {"sparsity": {"color": green, "marker": "o"}}}


def _points(name, values, epochs):
    """Returns the epochs and values of a curve, which may skip epochs (`validation_freq`)."""
    if values.ndim == 1 and len(values) == len(epochs):
        return epochs, values
    chances = {
        tuple(epoch for epoch in epochs if epoch % every == 0)
        for every in range(1, max(epochs) + 1)
    }
    fitting = [known for known in chances if values.ndim == 1 and len(known) == len(values)]
    if len(fitting) != 1:
        raise ValueError(
            check.message(
                f"one number for each of {len(epochs)} epochs in {name!r}",
                f"an array of shape {values.shape}",
                "Use NaN for an epoch without a value.",
            )
        )
    return fitting[0], values


def _whole_epochs(axes, epochs):
    from matplotlib.ticker import MaxNLocator

    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    # Leave room on both sides, so that a single epoch is centred, but no tick for an epoch 0.
    room = max(0.5, 0.03 * (epochs[-1] - epochs[0]))
    axes.set_xlim(epochs[0] - min(room, 0.9), epochs[-1] + room)


def _handles(panels):
    from matplotlib.lines import Line2D

    used = {name for names in panels.values() for name in names}
    styles = {name: style for names in panels.values() for name, style in names.items()}
    handles = []
    for label, names in (
        ("training", [n for n in used if not n.startswith("val_") and n != "sparsity"]),
        ("validation", [n for n in used if n.startswith("val_")]),
        ("sparsity", ["sparsity"]),
    ):
        if names:
            handles.append(Line2D([], [], markersize=4, label=label, **styles[names[0]]))
    return handles
