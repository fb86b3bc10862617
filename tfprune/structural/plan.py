"""What shrinking would change, and the smaller model."""

from dataclasses import asdict, dataclass

from rich.console import Console
from rich.table import Table

from tfprune._base.text import as_text, show
from tfprune._reports.cost import model_cost
from tfprune._reports.latency import compare_latency
from tfprune._wrapping.strip import strip_pruning


@dataclass(frozen=True)
class GroupPlan:
    """The plan for one group of channels.

    Attributes:
        layers: Paths of the layers that make these channels.
        channels: Number of channels in the group.
        removed: Indices of the removed channels within the group, counted from 0.
        why: `{reason: number}`: how many channels are kept, by reason.
        widths: `{path: (before, after)}`: number of channels of each layer.
    """

    layers: tuple
    channels: int
    removed: tuple
    why: dict
    widths: dict


class ShrinkPlan:
    """The changes that `shrink` would make to a model, by group. `str(plan)` is a table.

    Attributes:
        groups: List of `GroupPlan`s.
        before: `ModelCost` of the model.
        after: `ModelCost` of the smaller model.
        barriers: `{path: class name}` of layers whose channels are kept for lack of a rule.
        sparsity: The overall sparsity that meets the targets; `None` without targets.
    """

    def __init__(self, groups, model, smaller, barriers, rebuilt):
        self.groups = groups
        self.before = model_cost(model)
        self.after = model_cost(smaller)
        self.barriers = barriers
        self._original = model
        self.sparsity = None
        self._model = smaller
        self._rebuilt = rebuilt

    def apply(self):
        """Returns the smaller model, plain and uncompiled. Every call returns the same object."""
        return self._model

    def rebuilt(self):
        """Returns the smaller model once more, with the values that the model has now.

        Nothing is folded into biases.
        """
        return self._rebuilt()

    def to_dict(self):
        """Returns the plan as plain data, for JSON."""
        return {
            "groups": [asdict(group) for group in self.groups],
            "before": asdict(self.before),
            "after": asdict(self.after),
            "barriers": dict(self.barriers),
            "sparsity": self.sparsity,
        }

    def latency(self, batch_size=1, runs=30, input_shape=None):
        """Measures how long both models take to predict one batch, in turn.

        See `tfprune.compare_latency`, which has the same arguments and raises the same errors.

        Returns:
            `{"before": Latency, "after": Latency}`.
        """
        # The copy is uncompiled like the smaller model, so both run in the same way.
        models = {"before": strip_pruning(self._original), "after": self._model}
        return compare_latency(models, batch_size, runs, input_shape=input_shape)

    def table(self, latency=None):
        """Returns the plan as a `rich.table.Table`.

        Args:
            latency: Result of `latency()` to include, or `None`.
        """
        table = Table(title="Shrinking")
        table.add_column("Channels of", overflow="fold")
        for name in ("Before", "After"):
            table.add_column(name, justify="right")
        table.add_column("Why others stay", overflow="fold")
        for group in self.groups:
            more = f" +{len(group.layers) - 1}" if len(group.layers) > 1 else ""
            why = "; ".join(f"{number:,}: {reason}" for reason, number in group.why.items())
            stay = group.channels - len(group.removed)
            table.add_row(group.layers[0] + more, f"{group.channels:,}", f"{stay:,}", why)
        table.add_section()
        for name, label in (("parameters", "Parameters"), ("macs", "MACs"), ("bytes", "Bytes")):
            old, new = getattr(self.before, name), getattr(self.after, name)
            cells = ["unknown" if value is None else f"{value:,}" for value in (old, new)]
            table.add_row(label, *cells, f"{1 - new / old:.1%} fewer" if old and new else "")
        if latency is not None:
            old, new = latency["before"], latency["after"]
            cells = [f"{1000 * value.median:.2f} ms" for value in (old, new)]
            label = f"Latency, batch {old.batch_size}"
            faster = f"{old.median / new.median:.2f} times as fast"
            table.add_row(label, *cells, f"{faster} ({old.runs} runs)")
        return table

    def summary(self, latency=False):
        """Prints the plan.

        Args:
            latency: `True` to measure how long both models take to predict one example, or the
                result of `latency(...)`.
        """
        measured = self.latency() if latency is True else latency or None
        show(Console(), self.table(measured))

    def __str__(self):
        return as_text(self.table())
