"""Sparsity reports, as data and as text."""

import math
from dataclasses import asdict, dataclass

import keras
import numpy as np
from rich.table import Table

from tfprune import _keras
from tfprune._base import validation as check
from tfprune._base.text import as_text
from tfprune._keras.checks import not_keras
from tfprune._layers import registry
from tfprune._layers.exemptions import exempt_by_default
from tfprune._layers.stored import number_of_weights, stores_nonzeros
from tfprune._wrapping.wrapper import MaskWrapper, mask_owners, plain_path, pruned_weights


@dataclass(frozen=True)
class LayerSparsity:
    """One line of a report.

    Attributes:
        layer: Path of the layer in the model.
        type: Class name of the layer.
        parameters: Number of its weights that can be pruned; of all its weights if none can.
        zeros: How many of these are exactly zero.
        status: "pruned", "pruned, frozen", the reason why a layer was not pruned, as "exempt by
            Rule('head')", "not wrapped" (it could be pruned, or it was and is
            stripped), "token embedding: exempt by default", "quantized", "not built: it never ran",
            "zeros not stored", or "nothing to prune".
            Where a weight holds those of all experts, "experts" is added.
        weights: Number of all its own weights, biases and zeros that are not stored included.
    """

    layer: str
    type: str
    parameters: int
    zeros: int
    status: str
    weights: int = 0

    @property
    def sparsity(self):
        """Fraction of zeros."""
        return self.zeros / self.parameters if self.parameters else 0.0


@dataclass(frozen=True)
class SparsityReport:
    """The sparsity of a model, layer by layer. `str(report)` is a table.

    Attributes:
        rows: List of `LayerSparsity`.
        weights: Number of all weights of the plain model, biases and others that are never pruned
            included; as `tfprune.model_cost` counts parameters. Of a layer that stores only
            nonzero weights, the zeros count too.
    """

    rows: list
    weights: int = 0

    @property
    def prunable(self):
        """The total over all prunable weights, as a `LayerSparsity`."""
        return _total(
            "prunable weights", [r for r in self.rows if r.status not in (_NOTHING, _QUANTIZED)]
        )

    @property
    def pruned(self):
        """The total over all weights with masks, as a `LayerSparsity`: the part that schedules set.

        Exempt layers count as prunable, and have no masks.
        """
        return _total("pruned weights", [r for r in self.rows if r.status.startswith("pruned")])

    @property
    def total(self):
        """The total over all weights, biases included, with the zeros of the prunable ones.

        Other zeros do not come from pruning: the offsets of BatchNormalization start as zeros.
        """
        return LayerSparsity("total", "", self.weights, self.prunable.zeros, "", self.weights)

    @property
    def sparsity(self):
        """Fraction of zeros among the prunable weights."""
        return self.prunable.sparsity

    def to_dict(self):
        """Returns the report as plain data, for JSON."""
        rows = [{**asdict(row), "sparsity": row.sparsity} for row in self.rows]
        totals = {
            name: {
                "parameters": row.parameters,
                "zeros": row.zeros,
                "sparsity": row.sparsity,
            }
            for name, row in (
                ("pruned", self.pruned),
                ("prunable", self.prunable),
                ("total", self.total),
            )
        }
        return {"layers": rows, **totals, "weights": self.weights}

    def table(self):
        """Returns the report as a `rich.table.Table`."""
        table = Table(title="Sparsity")
        table.add_column("Layer", overflow="fold")
        table.add_column("Type")
        for name in ("Prunable", "Zeros", "Sparsity", "With biases"):
            table.add_column(name, justify="right")
        table.add_column("Status")
        for row in self.rows:
            table.add_row(*_cells(row))
        table.add_section()
        if 0 < self.pruned.parameters < self.prunable.parameters:
            table.add_row(*_cells(self.pruned))
        table.add_row(*_cells(self.prunable))
        total = self.total
        cells = (f"{total.zeros:,}", f"{total.sparsity:.2%}", f"{total.weights:,}", "")
        table.add_row("all, with biases", "", "", *cells)
        return table

    def __str__(self):
        return as_text(self.table())


_NOTHING = "nothing to prune"
_QUANTIZED = "quantized"
_NEVER_RAN = "not built: it never ran"
_NOT_STORED = "zeros not stored"


def _cells(row):
    return (
        row.layer,
        row.type,
        "" if row.status in (_NOTHING, _QUANTIZED) else f"{row.parameters:,}",
        "" if row.status == _NOTHING else f"{row.zeros:,}",
        "" if row.status == _NOTHING else f"{row.sparsity:.2%}",
        f"{row.weights:,}",
        row.status,
    )


def _total(name, rows):
    parameters, zeros, weights = (
        sum(getattr(row, number) for row in rows) for number in ("parameters", "zeros", "weights")
    )
    return LayerSparsity(name, "", parameters, zeros, "", weights)


def sparsity_report(model):
    """Counts the zeros of a model, layer by layer.

    Args:
        model: A built layer or model: wrapped, stripped or plain.

    Returns:
        A `SparsityReport`: `print` it, or read its `rows` and `total`.

    Raises:
        TypeError: If `model` is not a Keras 3 layer or model.
        ValueError: If `model` is not built.

    Example:

    >>> model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(4, name="last")])
    >>> row = tfprune.sparsity_report(model).rows[0]
    >>> row.layer, row.parameters, row.weights, row.status
    ('last', 32, 36, 'not wrapped')
    """
    if not isinstance(model, keras.layers.Layer):
        raise TypeError(not_keras(model, "model"))
    if not model.built:
        raise ValueError(check.message("a built model", f"'{model.name}'", "Call it on data once."))
    chains = list(_keras.walk(model)) or [((model.name, model),)]
    if not isinstance(model, keras.Model) and registry.own_prunable_weights(model):
        chains.insert(0, ((model.name, model),))
    weights = pruned_weights(model)
    masked = {id(weight.variable) for weight in weights}
    added = {id(variable) for weight in weights for variable in weight.own_variables}
    reasons: dict = {}
    for owner in mask_owners(model):
        reasons.update(owner.reasons)
    rows, seen = [], set()
    for chain in chains:
        path, layer = plain_path(chain), chain[-1][1]
        if isinstance(layer, (MaskWrapper, keras.layers.InputLayer)) or id(layer) in seen:
            continue
        seen.add(id(layer))
        around = [model, *(inner for _, inner in chain)]
        row = _row(path, layer, around, masked, added, reasons.get(path))
        if row is not None:
            rows.append(row)
    layers = [chain[-1][1] for chain in chains]
    return SparsityReport(rows, _all_weights([model, *layers], added))


def _all_weights(layers, added):
    """How many weights there are without masks and states of random generators."""
    found = {
        id(variable): variable
        for layer in layers
        # A wrapper's own state belongs to no plain layer.
        if not isinstance(layer, MaskWrapper)
        for variable in layer.weights
        if id(variable) not in added and not _is_seed(variable)
    }
    return number_of_weights(layers, found.values())


def _row(path, layer, around, masked, added, reason):
    if stores_nonzeros(layer):
        return _sparse_row(path, layer)
    entries = registry.own_prunable_weights(layer) if layer.built else None
    inner = added.union(id(v) for below in _keras.children(layer) for v in below.weights)
    own = [v for v in layer.weights if id(v) not in inner and not _is_seed(v)]
    if entries and not _keras.is_quantized(layer):
        variables = [entry.get(layer) for entry in entries]
        pruned = any(id(v) in masked for v in variables)
        status = _status(layer, around, entries, pruned, masked, reason)
    else:
        variables = own
        status = _QUANTIZED if entries else _NOTHING
        if not variables and registry.own_prunable_weights(layer) and not layer.built:
            status = _NEVER_RAN
        elif not variables:
            return None
    arrays = [_keras.host_array(variable) for variable in variables]
    parameters = sum(int(array.size) for array in arrays)
    zeros = sum(int(array.size - np.count_nonzero(array)) for array in arrays)
    weights = sum(math.prod(variable.shape) for variable in own)
    return LayerSparsity(path, type(layer).__name__, parameters, zeros, status, weights)


def _sparse_row(path, layer):
    """The row of a layer that stores only nonzero weights, as that of its dense form."""
    kernel, weights = layer.stored, number_of_weights([layer], layer.weights)
    kind = type(layer).__name__
    return LayerSparsity(path, kind, kernel.size, kernel.zeros, _NOT_STORED, weights)


def _is_seed(variable):
    """Whether a variable is the state of a random generator."""
    return "seed_generator" in variable.path


def _status(layer, around, entries, pruned, masked, reason):
    expert = ", experts" if entries[0].axes_of(layer).experts else ""
    if pruned:
        return f"pruned{expert}" if layer.trainable else f"pruned, frozen{expert}"
    exempt = exempt_by_default(around, entries[0]) if masked else None
    return reason or exempt or f"not wrapped{expert}"
