"""The result of a sensitivity analysis."""

import math
from dataclasses import asdict, dataclass

import numpy as np
from rich.table import Table

from tfprune._analysis.sensitivity import allocation
from tfprune._base.text import as_text
from tfprune.plots import sensitivity_map


@dataclass(frozen=True)
class LayerSensitivity:
    """One line of a sensitivity analysis: a layer, or layers whose filters go together.

    Attributes:
        layer: Path of the layer in the model; of a group, that of its first layer.
        parameters: Number of its prunable weights.
        values: The metric at each sparsity, with only this layer pruned.
        units: Number of units that are pruned as a whole; `None` for single weights.
        others: Paths of the group's other layers.
    """

    layer: str
    parameters: int
    values: tuple
    units: int | None = None
    others: tuple = ()


@dataclass(frozen=True)
class Sensitivity:
    """A metric at several sparsities of each layer or group. `str(sensitivity)` is a table.

    Attributes:
        metric: Name of the metric.
        baseline: The metric of the unchanged model.
        sparsities: Tuple of the sparsities, in rising order.
        rows: List of `LayerSensitivity`, in the order of the layers.
    """

    metric: str
    baseline: float
    sparsities: tuple
    rows: list

    def most_sensitive(self):
        """Returns the paths of the layers, the one that changes the metric most first.

        Layers are ranked by the mean absolute difference from the baseline over all sparsities. A
        NaN metric counts as an infinite difference.
        """
        return [row.layer for row in sorted(self.rows, key=self._distance, reverse=True)]

    def to_distribution(self, sparsity):
        """Returns a distribution that gives layers less the more they change the metric.

        Of all shares with which the layers together reach `sparsity`, these have the least sum of
        changes of the metric, as if layers did not affect each other. Changes count as absolute
        differences from the baseline, made to rise with the sparsity; between the measurements,
        they follow the lower convex hull. Measure the loss rather than the accuracy, which says
        little about small changes.

        Args:
            sparsity: Overall fraction of pruned units (filters of groups, single weights by
                default), above 0 and at most the highest sparsity that was measured. End the
                schedule there.

        Returns:
            A `PerLayer` distribution, for models in which the same layers are pruned.

        Raises:
            TypeError, ValueError: If `sparsity` is not such a fraction, or there are no rows.

        Example:

        >>> model = keras.Sequential([
        ...     keras.Input((4,)), keras.layers.Dense(4, name="robust"),
        ...     keras.layers.Dense(4, name="delicate")])
        >>> def last_layer(model):
        ...     return np.sum(np.abs(model.layers[1].kernel))
        >>> found = tfprune.sensitivity(model, metric=last_layer, verbose=0)
        >>> found.to_distribution(0.4).sparsities
        (('robust', 0.8), ('delicate', 0.0))
        """
        return allocation.distribution(self, sparsity)

    def _distance(self, row):
        distance = float(np.mean(np.abs(np.asarray(row.values) - self.baseline)))
        return distance if np.isfinite(distance) else np.inf

    def to_dict(self):
        """Returns the analysis as plain data, for JSON."""
        return {
            "metric": self.metric,
            "baseline": self.baseline,
            "sparsities": list(self.sparsities),
            "layers": [
                {**asdict(row), "values": list(row.values), "others": list(row.others)}
                for row in self.rows
            ],
        }

    def table(self):
        """Returns the analysis as a `rich.table.Table`."""
        rows = [row.values for row in self.rows]
        (baseline,), *rows = _aligned([(self.baseline,), *rows])
        table = Table(title=f"Sensitivity: {self.metric}, {baseline} without pruning")
        table.add_column("Layer", overflow="fold")
        table.add_column("Parameters", justify="right")
        for sparsity in self.sparsities:
            table.add_column(f"{100 * sparsity:g}%", justify="right", no_wrap=True)
        for row, values in zip(self.rows, rows, strict=True):
            table.add_row(", ".join((row.layer, *row.others)), f"{row.parameters:,}", *values)
        return table

    def __str__(self):
        width = max(110, 50 + 10 * len(self.sparsities))
        return as_text(self.table(), width=width)

    def plot(self, path=None):
        """Draws the metric of each layer at each sparsity as a heat map.

        Needs matplotlib: `pip install "tfprune[plots]"`.

        Args:
            path: File to save the plot to; its suffix selects PNG, PDF or SVG. `None` saves
                nothing.

        Returns:
            The `matplotlib.figure.Figure`.

        Raises:
            ImportError: If matplotlib is not installed.
        """
        return sensitivity_map.draw(self, path)


# A number that is longer is written with a power of ten.
_LONGEST = 10


def _aligned(rows):
    """Returns rows of numbers as texts, all with the same number of decimals.

    The first number decides: four decimals, and fewer or more where it is above 10 or below 0.01.
    If it is zero or not finite, the largest one decides.
    """
    numbers = [abs(number) for row in rows for number in row if np.isfinite(number)]
    first = abs(rows[0][0])
    scale = first if np.isfinite(first) and first else max(numbers, default=0)
    place = math.floor(math.log10(scale)) if scale else 0
    decimals = min(8, max(4 - max(place, 0), 2 - place, 0))
    return [[_with_decimals(number, decimals) for number in row] for row in rows]


def _with_decimals(number, decimals):
    text = f"{number:.{decimals}f}"
    return text if len(text) <= _LONGEST else f"{number:.3e}"
