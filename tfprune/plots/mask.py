"""Plots masks: kept and pruned weights."""

import math
from dataclasses import dataclass

import numpy as np

from tfprune._base.renamed import renamed
from tfprune._reports import prunable_weights
from tfprune.plots import drawing

# Largest number of distinguishable cells per side, in a single plot and in one of many.
_LARGE, _SMALL = 288, 96
_MOST_WINDOWS = 48


@dataclass(frozen=True)
class _Image:
    """A weight's mask as an image, with inputs as rows and outputs as columns.

    `window` is the height and width of one convolution window. `dot` is the number of windows,
    down and across, averaged in one pixel; `None` if each cell is one weight.
    """

    pixels: np.ndarray
    window: tuple
    dot: tuple | None
    labels: tuple


@renamed(layer="layers")
def plot_mask(model, layers=None, path=None):
    """Draws the masks of a model, with kept weights in blue and pruned weights pale.

    Rows are inputs and columns are outputs. For a convolution, white lines separate the windows;
    for a depthwise convolution, the windows are arranged row by row. Weights too large to be
    drawn one by one are drawn as densities: the darker a dot, the more of its weights are kept.

    Needs matplotlib: `pip install "tfprune[plots]"`.

    Args:
        model: A built layer or model. For wrapped weights, the masks are drawn; for plain
            weights, the nonzero positions.
        layers: Name of the layer to draw, or a list of names, as shown in reports, or patterns of
            names as in `tfprune.Rule`; by default, all layers with prunable weights.
        path: File to save the plot to; its suffix selects PNG, PDF or SVG. `None` saves nothing.

    Returns:
        The `matplotlib.figure.Figure`, with one axes for each weight and, if there are densities,
        one for their scale.

    Raises:
        ImportError: If matplotlib is not installed.
        TypeError: If `model` is not a Keras 3 layer or model, or `layers` is not a name.
        ValueError: If the model is not built or has nothing to prune, or a name is unknown.

    Example:

    >>> model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(2, name="a")])
    >>> _ = model.layers[0].kernel.assign([[1, 0], [0, 3]])
    >>> figure = tfprune.plot_mask(model, "a", "mask.png")
    >>> figure.axes[0].images[0].get_array().tolist()
    [[1.0, 0.0], [0.0, 1.0]]
    """
    found = prunable_weights.chosen(prunable_weights.find(model), layers)
    one = len(found) == 1
    columns = min(4, len(found))
    rows = math.ceil(len(found) / columns)
    images = [_image(w.kept, w.axes, _LARGE if one else _SMALL) for w in found]
    size = (max(5.0, 2.6 * columns), 1.0 + 2.7 * rows)
    if one:
        tall, wide = images[0].pixels.shape
        size = (6.5, 1.9 + 5.4 * min(max(tall / wide, 0.25), 1))
    figure = drawing.new_figure(*size)
    from matplotlib.colors import LinearSegmentedColormap
    from matplotlib.patches import Patch

    colours = [drawing.PALE, drawing.COLOURS[0]]
    scale = LinearSegmentedColormap.from_list("kept", colours)
    dense = []
    for place, (weight, image) in enumerate(zip(found, images, strict=True)):
        axes = figure.add_subplot(rows, columns, place + 1)
        kept = weight.kept
        shown = _show(axes, image, scale, one)
        name = drawing.without_middle(weight.name, 60 if one else 38)
        shape = "x".join(str(size) for size in kept.shape)
        share = drawing.as_percent(1 - kept.mean())
        axes.set_title(f"{name}\n{shape}, sparsity {share}", fontsize=9 if one else 7)
        if image.dot is not None:
            dense.append(shown)
    figure.suptitle(f"Masks of '{drawing.without_middle(model.name)}'", fontsize=10)
    if dense:
        _colour_bar(figure, dense[0])
    handles = [
        Patch(facecolor=c, label=t) for c, t in zip(colours, ("pruned", "kept"), strict=True)
    ]
    drawing.legend(figure, handles[::-1])
    return drawing.finished(figure, path)


def _image(kept, axes, most):
    """Arranges a mask as an image of at most `most` cells along each side."""
    spatial, inputs, outputs = axes.as_matrices(kept.ndim)
    sizes = [math.prod(kept.shape[a] for a in part) for part in (inputs, outputs)]
    window = [kept.shape[a] for a in spatial]
    wide = window[-1] if len(window) > 1 else 1
    tall = math.prod(window) // wide
    windows = kept.transpose(inputs + outputs + spatial).reshape(*sizes, tall, wide)
    labels = (f"{sizes[0]:,} inputs", f"{sizes[1]:,} outputs")
    if not inputs:
        windows, labels = _row_by_row(windows[0], tall, wide)
    pixels = windows.transpose(0, 2, 1, 3).reshape(windows.shape[0] * tall, -1)
    if max(pixels.shape) <= most:
        return _Image(pixels.astype("float32"), (tall, wide), None, labels)
    # Average whole windows, so that their shape does not cause stripes.
    means = windows.mean(axis=(2, 3))
    dot = tuple(math.ceil(size / most) for size in means.shape)
    for axis, step in enumerate(dot):
        starts = np.arange(0, means.shape[axis], step)
        sums = np.add.reduceat(np.nan_to_num(means), starts, axis)
        numbers = np.add.reduceat(np.isfinite(means).astype(float), starts, axis)
        with np.errstate(invalid="ignore"):
            means = sums / np.where(numbers, numbers, np.nan)
    return _Image(means.astype("float32"), (tall, wide), dot, labels)


def _row_by_row(windows, tall, wide):
    """Arranges windows without inputs in a roughly square grid; NaN fills the last row."""
    number = len(windows)
    across = max(1, round(math.sqrt(number * tall / wide)))
    down = math.ceil(number / across)
    grid = np.full((down * across, tall, wide), np.nan)
    grid[:number] = windows
    return grid.reshape(down, across, tall, wide), ("", f"{number:,} channels, row by row")


def _show(axes, image, scale, one):
    tall, wide = image.pixels.shape
    flat = not 1 / 4 <= tall / wide <= 4
    shown = axes.imshow(
        image.pixels,
        scale,
        vmin=0,
        vmax=1,
        interpolation="nearest",
        aspect="auto" if flat else "equal",
    )
    across, down = wide // image.window[1], tall // image.window[0]
    thick = 2.0 if one else 1.5 if max(wide, tall) < 48 else 0.8
    lines = {"colors": "white", "linewidth": thick}
    if image.dot is None and image.window != (1, 1) and max(across, down) <= _MOST_WINDOWS:
        axes.vlines(np.arange(1, across) * image.window[1] - 0.5, -0.5, tall - 0.5, **lines)
        axes.hlines(np.arange(1, down) * image.window[0] - 0.5, -0.5, wide - 0.5, **lines)
    axes.set_xticks([])
    axes.set_yticks([])
    note = "" if image.dot is None else "\n" + _meaning(image)
    axes.set_xlabel(image.labels[1] + note, fontsize=7)
    axes.set_ylabel(image.labels[0], fontsize=7)
    axes.spines[:].set_visible(False)
    return shown


def _meaning(image):
    what = "weights" if image.window == (1, 1) else "windows of {}x{}".format(*image.window)
    if image.dot == (1, 1):
        return f"a dot is the mean of a window of {image.window[0]}x{image.window[1]}"
    return f"a dot is the mean of {image.dot[0]}x{image.dot[1]} {what}"


def _colour_bar(figure, shown):
    # Sizes are fractions of the figure; divide by its height to get a constant thickness.
    width, height = figure.get_size_inches()
    bar = figure.colorbar(
        shown,
        ax=figure.axes,
        location="bottom",
        fraction=0.3 / height,
        pad=0.15 / height,
        shrink=0.5,
        aspect=0.5 * width / 0.14,
    )
    drawing.percent_axis(bar.ax.xaxis)
    bar.ax.tick_params(labelsize=7)
    bar.set_label("share of weights kept", fontsize=8)
