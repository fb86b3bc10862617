"""Plots a metric by layer and sparsity, as a heat map with numbers."""

import numpy as np

from tfprune.plots import drawing

# With more columns than this, the numbers would not fit.
_MOST_NUMBERS = 14


def draw(sensitivity, path=None):
    """Draws a `Sensitivity`: one row per layer or group, one column per sparsity.

    The first column is the unpruned model.

    Args:
        sensitivity: The `Sensitivity`.
        path: File to save the plot to; `None` saves nothing.

    Returns:
        The `matplotlib.figure.Figure`.

    Raises:
        ImportError: If matplotlib is not installed.
    """
    layers = [_name(row) for row in sensitivity.rows]
    values = np.array([[sensitivity.baseline, *row.values] for row in sensitivity.rows])
    columns = values.shape[1]
    width = min(14, max(6, 3.6 + 0.58 * columns))
    figure = drawing.new_figure(width, 1.5 + 0.25 * len(layers))
    axes = figure.add_subplot()
    known = values[np.isfinite(values)]
    low, high = (known.min(), known.max()) if known.size else (0, 1)
    shown = axes.imshow(np.ma.masked_invalid(values), "cividis", vmin=low, vmax=high, aspect="auto")
    if columns <= _MOST_NUMBERS:
        for (row, column), value in np.ndenumerate(values):
            dark = np.isfinite(value) and value < (low + high) / 2
            colour = "white" if dark and high > low else "black"
            text = _short(value)
            axes.text(column, row, text, ha="center", va="center", fontsize=7, color=colour)
    names = [f"{100 * sparsity:g}%" for sparsity in sensitivity.sparsities]
    ticks = list(enumerate(["as it is", *names]))[:: -(-columns // _MOST_NUMBERS)]
    axes.set_xticks([place for place, _ in ticks], [name for _, name in ticks])
    drawing.name_rows(axes, layers)
    axes.set_ylim(len(layers) - 0.5, -0.5)
    drawing.open_frame(axes, "left", "bottom")
    axes.tick_params(length=0)
    axes.set_xlabel("sparsity of this layer alone", fontsize=9)
    axes.axvline(0.5, color="white", linewidth=2.5)
    title = f"Sensitivity: {sensitivity.metric.replace('_', ' ')}"
    figure.suptitle(title, fontsize=10)
    bar = figure.colorbar(shown, ax=axes, fraction=0.03, pad=0.015)
    bar.ax.tick_params(labelsize=7)
    bar.outline.set_visible(False)
    return drawing.finished(figure, path)


def _name(row):
    return f"{row.layer} +{len(row.others)}" if row.others else row.layer


def _short(value):
    """Formats a number in at most six characters where possible."""
    if not np.isfinite(value) or abs(value) >= 1000:
        return f"{value:.2g}"
    return f"{value:.3f}" if abs(value) < 10 else f"{value:.4g}"
