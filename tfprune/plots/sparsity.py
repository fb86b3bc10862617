"""Plots the sparsity of each layer as bars."""

import keras

from tfprune._base import validation as check
from tfprune._reports.prunable_weights import unwrapped
from tfprune._reports.report import SparsityReport, sparsity_report
from tfprune.plots import drawing

_MOST = len(drawing.COLOURS)


def plot_sparsity(models, path=None):
    """Draws the sparsity of each layer as a bar, with several models side by side.

    Layers with nothing to prune have no bar, and neither does a layer that a model lacks.

    Needs matplotlib: `pip install "tfprune[plots]"`.

    Args:
        models: A built model (wrapped, stripped or plain), a `SparsityReport`, or a dictionary
            with up to 6 of these by name. Layers are matched by their paths.
        path: File to save the plot to; its suffix selects PNG, PDF or SVG. `None` saves nothing.

    Returns:
        The `matplotlib.figure.Figure`.

    Raises:
        ImportError: If matplotlib is not installed.
        TypeError: If a value is neither a model nor a report.
        ValueError: If a model is not built, there are too many models, or nothing can be pruned.

    Example:

    >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2, name="a")])
    >>> _ = model.layers[0].kernel.assign([[1, 0], [0, 0], [2, 3], [0, 0]])
    >>> figure = tfprune.plot_sparsity({"before": model, "after": model}, "sparsity.png")
    >>> [float(bar.get_width()) for bar in figure.axes[0].patches]
    [0.625, 0.625]
    """
    reports = _reports(models)
    tables = [_rows(report) for report in reports.values()]
    layers = list(dict.fromkeys(name for table in tables for name in table))
    if not layers:
        raise ValueError(
            check.message(
                "a model with weights that can be pruned",
                "none in " + ", ".join(repr(name) for name in reports),
                "Pass a model with convolutions or dense layers, for instance.",
            )
        )
    many = len(reports)
    figure = drawing.new_figure(9, 1.5 + (0.21 if many == 1 else 0.08 + 0.13 * many) * len(layers))
    from matplotlib.patches import Patch

    axes = figure.add_subplot()
    height = 0.78 / many
    for number, table in enumerate(tables):
        for place, layer in enumerate(layers):
            if layer in table:
                middle = place - 0.39 + (number + 0.5) * height
                _bar(axes, middle, height, drawing.COLOURS[number], table[layer])
    drawing.name_rows(axes, layers)
    axes.set_xlim(0, 1)
    axes.set_xlabel("sparsity", fontsize=9)
    drawing.percent_axis(axes.xaxis)
    drawing.open_frame(axes, "left")
    axes.grid(axis="x", alpha=0.3)
    axes.set_axisbelow(True)
    figure.suptitle("Sparsity of each layer", fontsize=10)
    handles = [
        Patch(facecolor=colour, label=_label(name, report))
        for colour, (name, report) in zip(drawing.COLOURS, reports.items(), strict=False)
    ]
    drawing.legend(figure, handles, columns=1 if many < 3 else 2)
    return drawing.finished(figure, path)


def _reports(models):
    if not isinstance(models, dict):
        name = "all layers" if isinstance(models, SparsityReport) else getattr(models, "name", "")
        models = {name: models}
    if not models or len(models) > _MOST:
        raise ValueError(
            check.message(
                f"1 to {_MOST} models",
                f"{len(models)} in `models`",
                "Draw the others in a second plot.",
            )
        )
    return {str(name): _report(model) for name, model in models.items()}


def _report(model):
    if isinstance(model, SparsityReport):
        return model
    # Remove a wrapper around the whole model, so that paths match those of the plain model.
    return sparsity_report(unwrapped(model) if isinstance(model, keras.layers.Layer) else model)


def _rows(report):
    return {row.layer: row for row in report.rows if row.status != "nothing to prune"}


def _label(name, report):
    total = report.prunable
    name = drawing.without_middle(name)
    share = drawing.as_percent(total.sparsity)
    return f"{name}: {share} of {total.parameters:,} prunable weights"


def _bar(axes, middle, height, colour, row):
    axes.barh(middle, row.sparsity, 0.92 * height, color=colour)
    axes.annotate(
        drawing.as_percent(row.sparsity),
        (row.sparsity, middle),
        (4, 0),
        textcoords="offset points",
        va="center",
        fontsize=7,
    )
