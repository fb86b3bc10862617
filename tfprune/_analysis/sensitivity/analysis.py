"""Measures how pruning a single layer, or one group of filters, affects a model."""

import keras
import numpy as np

from tfprune import _keras, criteria, patterns
from tfprune._analysis.sensitivity.meter import Meter
from tfprune._analysis.sensitivity.record import Record
from tfprune._analysis.sensitivity.result import LayerSensitivity, Sensitivity
from tfprune._analysis.sensitivity.subjects import groups_of_filters, have_groups, single_layers
from tfprune._base import validation as check
from tfprune._base.progress import progress
from tfprune._keras.checks import not_keras
from tfprune._reports import prunable_weights
from tfprune._wrapping.pruned_weight import masked

_SPARSITIES = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
# Criteria on data use as many batches.
_BATCHES = 8


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
    further than the others: give it its own sparsity with a `Rule` or `PerLayer`, or all of them
    with `to_distribution` of the result.

    With `pattern="filter"`, filters that can only be removed together are pruned together, with
    their biases, scales and offsets, as `prune_low_magnitude` does. Each such group has one row. A
    group in which some filters have to stay is pruned as far as possible. Layers that keep all
    filters, such as those that make the outputs, have no row. In subclassed models, each layer's
    filters are pruned alone.

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
        layers: Names of the layers, as shown in reports, or globs as in `tfprune.Rule`; a group of
            filters is meant by any of its layers. By default, all layers with prunable weights.
        sparsities: Fractions of pruned units, in [0, 1).
        batch_size: Batch size for arrays.
        path: A JSON file, written after each measurement. If it exists, its measurements are
            reused, and further sparsities or layers are added.
        verbose: 1 shows a progress bar on a terminal, 0 does not.

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
    [LayerSensitivity(layer='only', parameters=4, values=(7.0, 4.0), units=4, others=())]

    Reference:

    - [Li et al., 2017: Pruning Filters for Efficient ConvNets](https://arxiv.org/abs/1608.08710)
    """
    if not isinstance(model, keras.Model):
        raise TypeError(not_keras(model, "model"))
    sparsities = _checked(sparsities)
    criterion, pattern = criteria.get(criterion), patterns.get(pattern)
    coupled = have_groups(model, pattern)
    find = groups_of_filters if coupled else single_layers
    batch_size = check.integer("batch_size", batch_size, 1, "Use for instance 32.")
    meter = Meter(model, data, metric, batch_size, set(criterion.needs) & set(criteria.FROM_DATA))
    settings = {
        "weights": _keras.fingerprint(model.weights),
        "data": _keras.fingerprint(data),
        "metric": meter.asked,
        "criterion": repr(criterion),
        # Files of older versions have such a pattern in each layer alone.
        "pattern": f"{pattern!r} in groups" if coupled else repr(pattern),
        "batches": [_BATCHES, batch_size] if set(criterion.needs) & set(criteria.FROM_DATA) else [],
    }
    record = Record(path, settings, dict.fromkeys(w.path for w in prunable_weights.find(model)))
    meter.name = record.metric
    evidence = {"data": data, "batches": _BATCHES, "batch_size": batch_size}
    subjects = find(model, layers, criterion, pattern, evidence)
    for subject in subjects:
        # Raise errors before the first measurement.
        subject.masks(sparsities[-1])
    with progress(1 + len(subjects) * len(sparsities), "measurements", verbose) as done:
        if record.baseline is None:
            record.keep_baseline(meter(), meter.name)
        done()
        for subject in subjects:
            for sparsity in sparsities:
                if record.value(subject.layer, sparsity) is None:
                    record.keep(subject.layer, sparsity, _measured(meter, subject.masks(sparsity)))
                done()
    rows = [
        LayerSensitivity(
            subject.layer,
            subject.parameters,
            tuple(record.value(subject.layer, sparsity) for sparsity in sparsities),
            subject.units,
            subject.others,
        )
        for subject in subjects
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


def _measured(meter, pruned):
    """Measures the metric with some weights pruned, then restores the weights.

    Args:
        meter: The `Meter`.
        pruned: List of `(variable, mask)`.
    """
    before = [(variable, np.array(_keras.on_host(variable))) for variable, _ in pruned]
    try:
        for variable, mask in pruned:
            variable.assign(masked(variable, mask))
        return meter()
    finally:
        for variable, value in before:
            variable.assign(value)
