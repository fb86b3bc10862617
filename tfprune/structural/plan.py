"""A plan of shrinking: the changes, and the smaller model."""

from dataclasses import asdict, dataclass

from rich.console import Console
from rich.table import Table

from tfprune._base import globs
from tfprune._base import validation as check
from tfprune._base.text import as_text, show
from tfprune._reports.cost import model_cost
from tfprune._reports.latency import in_milliseconds
from tfprune._reports.runtime_meter import RuntimeMeter
from tfprune._wrapping.strip import strip_pruning
from tfprune.distributions import PerLayer


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
        shares: `{name: share}` of pruned channels by layer or group, for targets.
        targets: The targets, as given; empty without.
        measured: `{"before": Latency, "after": Latency}` in the runtime of a target in latency.
    """

    def __init__(self, groups, model, smaller, barriers, rebuilt, finished=lambda model: model):
        self.groups = groups
        self.before = model_cost(model)
        self.after = model_cost(smaller)
        self.barriers = barriers
        self._original = model
        self.sparsity = None
        self.shares: dict = {}
        self.targets: dict = {}
        self.measured: dict = {}
        self._model = smaller
        self._rebuilt, self._finished = rebuilt, finished

    def apply(self):
        """Returns the smaller model, plain and uncompiled. Every call returns the same object."""
        self._model, self._finished = self._finished(self._model), lambda model: model
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
            "targets": dict(self.targets),
            "reached": self.reached,
            "measured": {side: asdict(latency) for side, latency in self.measured.items()},
        }

    @property
    def reached(self):
        """`{name: fraction}`: the cost for each target, as a fraction of that of the model."""
        found = {}
        for name in self.targets:
            if name == "latency":
                if self.measured:
                    found[name] = self.measured["after"].median / self.measured["before"].median
            else:
                found[name] = getattr(self.after, name) / getattr(self.before, name)
        return found

    def to_distribution(self):
        """Returns the allocation as a `PerLayer` distribution, for gradual pruning to the targets.

        Raises:
            ValueError: If the plan was made without targets, or nothing has to be pruned.

        Example:

        >>> model = keras.Sequential([
        ...     keras.Input((8,)), keras.layers.Dense(8), keras.layers.Dense(8),
        ...     keras.layers.Dense(2)])
        >>> plan = tfprune.plan_shrink(model, {"macs": 0.5})
        >>> schedule = tfprune.PolynomialDecay(0.0, plan.sparsity, 0, 1000)
        >>> gradual = tfprune.prune_low_magnitude(
        ...     model, schedule, pattern="filter", scope=plan.to_distribution())
        """
        if not any(self.shares.values()):
            raise ValueError(
                check.message(
                    "a plan that meets targets by pruning",
                    "one without targets, or of a model that already meets them",
                    'Use for instance plan_shrink(model, {"macs": 0.5}).',
                )
            )
        return PerLayer(globs.exactly(self.shares))

    def latency(self, batch_size=1, runs=30, input_shape=None, runtime="keras", threads=1):
        """Measures how long both models take to predict one batch, in turn.

        See `tfprune.compare_latency`, which has the same arguments and raises the same errors.

        Args:
            runtime: "keras", "litert", "onnx", "saved_model" or "torch": where both are measured.

        Returns:
            `{"before": Latency, "after": Latency}`.
        """
        # The copy is uncompiled like the smaller model, so both run in the same way.
        models = {"before": strip_pruning(self._original), "after": self.apply()}
        with RuntimeMeter(runtime, threads, batch_size, input_shape) as meter:
            return meter.measure(models, runs)

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
            table.add_row(label, *cells, self._told(name, old, new))
        latency = latency or self.measured or None
        if latency is not None:
            old, new = latency["before"], latency["after"]
            cells = [f"{in_milliseconds(value.median)} ms" for value in (old, new)]
            label = f"Latency, batch {old.batch_size}"
            said = f"{old.median / new.median:.2f} times as fast ({old.runs} runs) in {old.runtime}"
            if latency is self.measured:
                said += f", {self._remainder('latency')}"
            table.add_row(label, *cells, said)
        return table

    def _told(self, name, old, new):
        said = f"{1 - new / old:.1%} fewer" if old and new else ""
        return f"{said}, {self._remainder(name)}" if name in self.targets else said

    def _remainder(self, name):
        """Says by how much a target is met or missed."""
        target = self.targets[name]
        part = target if target < 1 else target / getattr(self.before, name)
        left = part - self.reached[name]
        if left < 0:
            return f"target {part:.1%} MISSED by {-left:.1%}"
        return f"target {part:.1%} met with {left:.1%} to spare"

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
