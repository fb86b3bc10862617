"""What all pictures share: colours, figures without pyplot, names that fit, saving."""

import io
import os
from pathlib import Path

from tfprune._base import validation as check
from tfprune._base.files import check_target, finished_at_once

# Okabe and Ito's colours, told apart by colour-blind people too, without those that are too pale.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
GREY = "#8C8C8C"
PALE = "#E8E8E8"
LONGEST_NAME = 44


def new_figure(width, height):
    """Returns an empty figure, in inches, that pyplot does not know of."""
    try:
        from matplotlib.figure import Figure
        from matplotlib.layout_engine import ConstrainedLayoutEngine
    except ImportError as error:
        raise ImportError(
            check.message("matplotlib", "no such module", 'Run pip install "tfprune[plots]".')
        ) from error

    class Picture(Figure):
        """A figure that a notebook shows, though pyplot does not know of it."""

        def _repr_png_(self):
            data = io.BytesIO()
            self.savefig(data, format="png", dpi=100)
            return data.getvalue()

    layout = ConstrainedLayoutEngine(w_pad=0.1, h_pad=0.08)
    return Picture(figsize=(width, height), layout=layout)


def finished(figure, path):
    """Returns a figure, saved if there is a path, whole or not at all."""
    if path is None:
        return figure
    if not isinstance(path, (str, os.PathLike)):
        # A file that is open already.
        figure.savefig(path, dpi=150)
        return figure
    path = Path(path)
    if not path.suffix:
        path = path.with_name(f"{path.name}.png")
    check_target(path)
    with finished_at_once(path) as unfinished:
        figure.savefig(unfinished, dpi=150)
    return figure


def plain(axes, *hidden):
    """Takes the frame's lines away at the top, at the right and where else it is `hidden`."""
    axes.tick_params(labelsize=8)
    axes.spines[["top", "right", *hidden]].set_visible(False)


def legend(figure, handles, columns=3):
    """Puts a legend below all axes."""
    figure.legend(
        handles=handles, loc="outside lower center", ncols=columns, fontsize=8, frameon=False
    )


def name_rows(axes, names):
    """Names the places 0, 1, ... of the vertical axis from the top to the bottom."""
    axes.set_yticks(range(len(names)), [without_middle(name) for name in names], fontsize=8)
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.tick_params(axis="y", length=0)


def without_middle(name, longest=LONGEST_NAME):
    """Returns a name of at most `longest` letters; "…" stands for what is left out."""
    half = longest // 2
    return name if len(name) <= longest else f"{name[: half - 1]}…{name[-half:]}"


def as_percent(fraction):
    """Returns a fraction in percent, as text; only 0 reads as none and only 1 as all."""
    if 0 < fraction < 0.0005:
        return "<0.1%"
    if 0.9995 <= fraction < 1:
        return ">99.9%"
    return f"{fraction:.1%}"


def percent_axis(axis):
    """Lets an axis over fractions read in percent."""
    from matplotlib.ticker import PercentFormatter

    axis.set_major_formatter(PercentFormatter(1.0))
