"""Measures how pruning a single layer affects a model."""

from dataclasses import asdict, dataclass

import keras
import numpy as np
from rich.table import Table

from tfprune import _keras, criteria, patterns
from tfprune._analysis.sensitivity.meter import Meter
from tfprune._analysis.sensitivity.record import Record
from tfprune._base import validation as check
from tfprune._base.text import as_text
from tfprune._keras.checks import not_keras
from tfprune._reports import prunable_weights
from tfprune._updates.evidence import Evidence
from tfprune._wrapping.pruned_weight import masked
from tfprune._wrapping.strip import strip_pruning
from tfprune._wrapping.wrapper import pruned_weights
from tfprune.masks.computing import compute_mask
from tfprune.plots import sensitivity_map
from tfprune.prune import prune_low_magnitude

_SPARSITIES = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
_BATCHES = 8


@dataclass(frozen=True)
class LayerSensitivity:
    """One line of a sensitivity analysis.

    Attributes:
        layer: Path of the layer in the model.
        parameters: Number of its prunable weights.
        values: The metric at each sparsity, with only this layer pruned.
    """

    layer: str
    parameters: int
    values: tuple


@dataclass(frozen=True)
class Sensitivity:
    """A metric at several sparsities of each layer. `str(sensitivity)` is a table.

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

    def _distance(self, row):
        distance = float(np.mean(np.abs(np.asarray(row.values) - self.baseline)))
        return distance if np.isfinite(distance) else np.inf

    def to_dict(self):
        """Returns the analysis as plain data, for JSON."""
        return {
            "metric": self.metric,
            "baseline": self.baseline,
            "sparsities": list(self.sparsities),
            "layers": [{**asdict(row), "values": list(row.values)} for row in self.rows],
        }

    def table(self):
        """Returns the analysis as a `rich.table.Table`."""
        table = Table(title=f"Sensitivity: {self.metric}, {self.baseline:.4g} without pruning")
        table.add_column("Layer", overflow="fold")
        table.add_column("Parameters", justify="right")
        for sparsity in self.sparsities:
            table.add_column(f"{100 * sparsity:g}%", justify="right", no_wrap=True)
        for row in self.rows:
            values = [f"{value:.4g}" for value in row.values]
            table.add_row(row.layer, f"{row.parameters:,}", *values)
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


def sensitivity(
    model,
    data=None,
    metric=None,
    *,
    pattern=None,
    criterion=None,
    layers=None,
    sparsities=_SPARSITIES,
    batch_size=32,
    path=None,
    verbose=1,
):
    """Measures how pruning a single layer affects a model, for each layer in turn.

    Prunes one layer at once to each sparsity, without fine-tuning, and measures the metric. All
    other layers, and all biases, keep their weights. A layer with little effect can be pruned
    further than the others: give it its own sparsity with a `Rule` or `PerLayer`.

    After each measurement, even after an error, the weights are restored bit for bit.

    Args:
        model: A built model, plain or wrapped. It must be compiled unless `metric` is a function.
        data: Data for `model.evaluate`: a `tf.data.Dataset`, a `keras.utils.PyDataset`, a
            PyTorch `DataLoader`, or arrays as a tuple `(x, y)` or `(x, y, sample_weight)`. It is
            read many times.
        metric: Name of a compiled metric, or "loss"; a function from the model to a number, which
            uses its own data; or `None` for the first compiled metric, or the loss without one.
        pattern: A pattern or its name; by default, single weights.
        criterion: A criterion or its name; by default, the magnitude. Criteria on gradients or
            activations use the first 8 batches of `data`.
        layers: Names of the layers, as shown in reports, or globs as in `tfprune.Rule`; by
            default, all layers with prunable weights.
        sparsities: Fractions of pruned units, in [0, 1).
        batch_size: Batch size for arrays.
        path: A JSON file, written after each measurement. If it exists, its measurements are
            reused, and further sparsities or layers are added.
        verbose: 1 shows a progress bar, 0 does not.

    Returns:
        A `Sensitivity`: `print` it, `plot` it, or read its `rows`.

    Raises:
        TypeError: If an argument is of the wrong kind.
        ValueError: If the model is not built or compiled, a sparsity is out of range or too high
            for the pattern, a name is unknown, data is missing, or the file at `path` was made
            with another model, data, metric, criterion or pattern.

    Example:

    >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1, name="only")])
    >>> _ = model.layers[0].kernel.assign([[1.0], [2.0], [3.0], [4.0]])
    >>> def total(model):
    ...     return np.sum(model.layers[0].kernel)
    >>> tfprune.sensitivity(model, metric=total, sparsities=[0.5, 0.75], verbose=0).rows
    [LayerSensitivity(layer='only', parameters=4, values=(7.0, 4.0))]

    Reference:

    - [Li et al., 2017: Pruning Filters for Efficient ConvNets](https://arxiv.org/abs/1608.08710)
    """
    if not isinstance(model, keras.Model):
        raise TypeError(not_keras(model, "model"))
    sparsities = _checked(sparsities)
    criterion, pattern = criteria.get(criterion), patterns.get(pattern)
    batch_size = check.integer("batch_size", batch_size, 1, "Use for instance 32.")
    found = prunable_weights.chosen(prunable_weights.find(model), layers)
    meter = Meter(model, data, metric, batch_size, set(criterion.needs) & set(criteria.FROM_DATA))
    settings = {
        "weights": _keras.fingerprint(model.weights),
        "data": _keras.fingerprint(data),
        "metric": meter.asked,
        "criterion": repr(criterion),
        "pattern": repr(pattern),
        "batches": [_BATCHES, batch_size] if set(criterion.needs) & set(criteria.FROM_DATA) else [],
    }
    record = Record(path, settings)
    meter.name = record.metric
    evidence = _evidence(model, data, criterion, pattern, batch_size)
    masks = _Masks(criterion, pattern, evidence)
    for weight in found:
        # Raise errors before the first measurement.
        masks(weight, sparsities[-1])
    by_layer: dict = {}
    for weight in found:
        by_layer.setdefault(weight.path, []).append(weight)
    progress = keras.utils.Progbar(
        1 + len(by_layer) * len(sparsities), verbose=verbose, unit_name="measurement"
    )
    if record.baseline is None:
        record.keep_baseline(meter(), meter.name)
    progress.update(1)
    for layer, weights in by_layer.items():
        for sparsity in sparsities:
            if record.value(layer, sparsity) is None:
                value = _measured(meter, masks, weights, sparsity)
                record.keep(layer, sparsity, value)
            progress.add(1)
    rows = [
        LayerSensitivity(
            layer,
            sum(int(np.prod(weight.variable.shape)) for weight in weights),
            tuple(record.value(layer, sparsity) for sparsity in sparsities),
        )
        for layer, weights in by_layer.items()
    ]
    return Sensitivity(record.metric, record.baseline, tuple(sparsities), rows)


def _checked(sparsities):
    mend = "Use for instance (0.3, 0.6, 0.9)."
    # A NumPy scalar has the method, and raises in it.
    is_one = isinstance(sparsities, str) or (
        isinstance(sparsities, np.ndarray) and sparsities.ndim == 0
    )
    if is_one or not hasattr(sparsities, "__iter__"):
        raise TypeError(
            check.message(
                "`sparsities` to be a list of numbers", f"sparsities={sparsities!r}", mend
            )
        )
    found = sorted({check.sparsity("sparsities", value) for value in sparsities})
    if not found:
        raise ValueError(check.message("at least one sparsity", "sparsities=()", mend))
    return found


@dataclass(frozen=True)
class _Masks:
    """Computes the mask of a weight at a sparsity."""

    criterion: criteria.Criterion
    pattern: patterns.Pattern
    evidence: dict

    def __call__(self, weight, sparsity):
        try:
            return compute_mask(
                _keras.host_array(weight.variable),
                sparsity,
                pattern=self.pattern,
                criterion=self.criterion,
                axes=weight.axes,
                evidence=self.evidence.get(weight.name),
            )
        except ValueError as error:
            raise ValueError(
                f"{weight.name}: {error} Or leave the layer out with `layers`."
            ) from error


def _measured(meter, masks, weights, sparsity):
    """Measures the metric with some weights pruned, then restores the weights."""
    before = [(w.variable, np.array(_keras.on_host(w.variable))) for w in weights]
    new = [(w.variable, masks(w, sparsity)) for w in weights]
    try:
        for variable, mask in new:
            variable.assign(masked(variable, mask))
        return meter()
    finally:
        for variable, value in before:
            variable.assign(value)


def _evidence(model, data, criterion, pattern, batch_size):
    """Returns `{weight name: {need: array}}` for criteria that need more than the weights."""
    if not set(criterion.needs) - {"axes", "position"}:
        return {}
    # Evidence can only be collected on a wrapped model, so make a wrapped copy.
    copy = prune_low_magnitude(strip_pruning(model), criterion=criterion, pattern=pattern)
    weights = [weight for weight in pruned_weights(copy) if not weight.follows]
    collected = Evidence(copy, data, _BATCHES, batch_size, compiled=model)(weights)
    by_variable = {id(weight.variable): collected[id(weight)] for weight in weights}
    return {
        weight.name: by_variable[id(weight.variable)]
        for weight in prunable_weights.find(copy)
        if id(weight.variable) in by_variable
    }
