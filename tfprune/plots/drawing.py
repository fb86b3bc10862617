"""Shared parts of all plots: colours, figures without pyplot, shortened names, saving."""

import io
import os
from pathlib import Path

from tfprune._base import validation as check
from tfprune._base.files import check_target, written_atomically

# The colour-blind-safe palette of Okabe and Ito, without its pale colours.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
GREY = "#8C8C8C"
PALE = "#E8E8E8"
LONGEST_NAME = 44


def new_figure(width, height):
    """Returns an empty figure of a size in inches, not registered with pyplot."""
    try:
        from matplotlib.figure import Figure
        from matplotlib.layout_engine import ConstrainedLayoutEngine
    except ImportError as error:
        raise ImportError(
            check.message("matplotlib", "no such module", 'Run pip install "tfprune[plots]".')
        ) from error

    class Picture(Figure):
        """A figure that notebooks display without pyplot."""

        def _repr_png_(self):
            data = io.BytesIO()
            self.savefig(data, format="png", dpi=100)
            return data.getvalue()

    layout = ConstrainedLayoutEngine(w_pad=0.1, h_pad=0.08)
    return Picture(figsize=(width, height), layout=layout)


def finished(figure, path):
    """Returns a figure, after saving it atomically if there is a path."""
    if path is None:
        return figure
    if not isinstance(path, (str, os.PathLike)):
        # An open file.
        figure.savefig(path, dpi=150)
        return figure
    path = Path(path)
    if not path.suffix:
        path = path.with_name(f"{path.name}.png")
    check_target(path)
    with written_atomically(path) as unfinished:
        figure.savefig(unfinished, dpi=150)
    return figure


def open_frame(axes, *hidden):
    """Hides the lines of the frame at the top, at the right and at the sides in `hidden`."""
    axes.tick_params(labelsize=8)
    axes.spines[["top", "right", *hidden]].set_visible(False)


def legend(figure, handles, columns=3):
    """Puts a legend below all axes."""
    figure.legend(
        handles=handles, loc="outside lower center", ncols=columns, fontsize=8, frameon=False
    )


def name_rows(axes, names):
    """Labels positions 0, 1, ... of the vertical axis from top to bottom."""
    axes.set_yticks(range(len(names)), [without_middle(name) for name in names], fontsize=8)
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.tick_params(axis="y", length=0)


def without_middle(name, longest=LONGEST_NAME):
    """Shortens a name to at most `longest` letters, with "…" in the middle."""
    half = longest // 2
    return name if len(name) <= longest else f"{name[: half - 1]}…{name[-half:]}"


def as_percent(fraction):
    """Formats a fraction as a percentage; only an exact 0 reads 0.0%, only an exact 1 100.0%."""
    if 0 < fraction < 0.0005:
        return "<0.1%"
    if 0.9995 <= fraction < 1:
        return ">99.9%"
    return f"{fraction:.1%}"


def percent_axis(axis):
    """Labels an axis of fractions in percent."""
    from matplotlib.ticker import PercentFormatter

    axis.set_major_formatter(PercentFormatter(1.0))
