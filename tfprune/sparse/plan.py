"""The plan: which layers become sparse, by how much they gain, and why others stay dense."""

from dataclasses import asdict, dataclass

from rich.table import Table

from tfprune._base.text import as_text


@dataclass(frozen=True)
class LayerChoice:
    """The form chosen for one layer.

    Attributes:
        layer: Path of the layer.
        kind: Name of its class.
        zeros: Share of zeros among its weights.
        sparse: Whether it becomes sparse.
        reason: Why it does, or does not.
        dense_seconds: Median time of the dense layer; `None` if it was not timed.
        sparse_seconds: The same for the sparse layer.
        gain: How many times as fast the sparse layer is.
    """

    layer: str
    kind: str
    zeros: float
    sparse: bool
    reason: str
    dense_seconds: float | None = None
    sparse_seconds: float | None = None
    gain: float | None = None


class SparsePlan:
    """The layers that `to_sparse` would make sparse. `str(plan)` is a table.

    Attributes:
        rows: List of `LayerChoice`s, one for each layer with a kernel.
        dense_seconds: Median time of the dense model; `None` if nothing was timed.
        sparse_seconds: The same for the sparse model.
        gain: How many times as fast the sparse model is.
    """

    def __init__(self, rows, model, race=None):
        self.rows = rows
        self.dense_seconds = race and race.dense
        self.sparse_seconds = race and race.sparse
        self.gain = race and race.gain
        self._model = model

    def apply(self):
        """Returns the model, uncompiled. Every call returns the same object."""
        return self._model

    def to_dict(self):
        """Returns the plan as plain data, for JSON."""
        return {
            "layers": [asdict(row) for row in self.rows],
            "dense_seconds": self.dense_seconds,
            "sparse_seconds": self.sparse_seconds,
            "gain": self.gain,
        }

    def table(self):
        """Returns the plan as a `rich.table.Table`."""
        table = Table(title="Sparse layers")
        table.add_column("Layer", overflow="fold")
        for name in ("Zeros", "Dense, ms", "Sparse, ms", "Faster"):
            table.add_column(name, justify="right")
        table.add_column("Result")
        for row in self.rows:
            result = "sparse: " if row.sparse else "dense: "
            zeros = f"{row.zeros:.1%}"
            table.add_row(row.layer, zeros, *_times(row), result + row.reason)
        if self.gain is not None:
            table.add_section()
            table.add_row("whole model", "", *_times(self), "")
        return table

    def __str__(self):
        return as_text(self.table())


def _times(timed):
    if timed.gain is None:
        return "", "", ""
    return (
        f"{1000 * timed.dense_seconds:.3f}",
        f"{1000 * timed.sparse_seconds:.3f}",
        f"{timed.gain:.2f}x",
    )
