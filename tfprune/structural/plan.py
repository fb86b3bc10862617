"""Plans and makes a smaller model that computes the same."""

from collections import Counter
from dataclasses import asdict, dataclass

import numpy as np
from rich.console import Console
from rich.table import Table

from tfprune import patterns
from tfprune._base import validation as check
from tfprune._base.text import as_text, show
from tfprune._channels.graph import channel_groups, follow, plain
from tfprune._keras.checks import check_followable
from tfprune._reports.cost import model_cost
from tfprune._reports.latency import compare_latency
from tfprune._wrapping.strip import strip_pruning
from tfprune._wrapping.wrapper import mask_owners
from tfprune.structural.candidates import Candidates
from tfprune.structural.remove import rebuild
from tfprune.structural.sensitivity import search_by_sensitivity
from tfprune.structural.targets import check_targets, search, share

_SCATTERED = (patterns.Unstructured, patterns.NOfM, patterns.Block)
_LAST = "a layer keeps its last channel"


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


def plan_shrink(
    model,
    targets=None,
    *,
    criterion=None,
    scope=None,
    rules=None,
    round_to=1,
    data=None,
    batches=8,
    batch_size=32,
    loss=None,
    latency_batch_size=1,
    allocation=None,
    verbose=1,
):
    """Finds the channels that a model can lose without changing its outputs.

    See `shrink`, which has the same arguments and raises the same errors.

    Returns:
        A `ShrinkPlan`: `print` it, and `plan.apply()` is the smaller model.

    Example:

    >>> model = keras.Sequential(
    ...     [keras.Input((8,)), keras.layers.Dense(4, name="hidden"), keras.layers.Dense(2)]
    ... )
    >>> kernel, bias, *others = model.get_weights()
    >>> kernel[:, 1], bias[1] = 0, 0.5
    >>> model.set_weights([kernel, bias, *others])
    >>> plan = tfprune.plan_shrink(model)
    >>> plan.groups[0].removed, plan.before.parameters, plan.after.parameters
    ((1,), 46, 35)
    """
    check_followable(model)
    step = check.integer("round_to", round_to, 1, "Use for instance 8; 1 rounds nothing.")
    if targets is None:
        given = {"criterion": criterion, "scope": scope, "rules": rules, "data": data}
        _check_alone(**given, loss=loss, allocation=allocation)
        _check_masks(model)
        return planned(plain(model), step)
    check_targets(targets)
    check.choice("allocation", allocation, (None, "sensitivity"))
    if allocation is not None and scope is not None:
        raise ValueError(
            check.message(
                "either `scope` or `allocation`, which both share the filters out",
                f"scope={scope!r}, allocation={allocation!r}",
                "Leave one of them out.",
            )
        )
    number = check.integer("latency_batch_size", latency_batch_size, 1, "Use for instance 32.")
    as_it_is = planned(plain(model), step)
    if share(as_it_is, targets, number) <= 1:
        as_it_is.sparsity = 0.0
        return as_it_is
    evidence = {"data": data, "batches": batches, "batch_size": batch_size, "loss": loss}
    candidates = Candidates(
        model,
        plain(model),
        patterns.Filter(round_to=step),
        criterion,
        scope,
        rules,
        {**evidence, "verbose": verbose},
    )

    def make_plan(pruned):
        return planned(plain(pruned), step)

    if allocation is not None:
        return search_by_sensitivity(candidates, plain(model), targets, make_plan, evidence)
    return search(candidates, targets, make_plan, number)


def _check_alone(**arguments):
    for name, value in arguments.items():
        if value is not None:
            raise ValueError(
                check.message(
                    f"`targets` where `{name}` is given",
                    "no targets: without them, only silent channels are removed, whatever "
                    "their scores",
                    'Pass for instance targets={"macs": 0.5}, or prune the model first.',
                )
            )


def planned(model, step):
    ledger = follow(model)
    roots, groups_and_units = ledger.roots(), zip(*channel_groups(ledger), strict=True)
    stays = _reasons(ledger, roots)
    gone, plans = np.zeros(len(roots), bool), []
    for group, units in groups_and_units:
        why = {unit: stays[root] for unit, root in enumerate(units.tolist()) if root in stays}
        _keep_some(group, why, step)
        removed = [unit for unit in range(group.size) if unit not in why]
        gone[units[removed]] = True
        plans.append(_group_plan(group, removed, why))
    gone = gone[roots]
    smaller = rebuild(model, ledger, gone, _folded(ledger, gone))
    barriers = dict(ledger.barriers)
    return ShrinkPlan(plans, model, smaller, barriers, lambda: rebuild(model, ledger, gone))


def _group_plan(group, removed, why):
    widths = {
        path: (len(units), int(np.count_nonzero(~np.isin(units, removed))))
        for path, units in group.makers.items()
    }
    return GroupPlan(group.layers, group.size, tuple(removed), dict(Counter(why.values())), widths)


def _check_masks(model):
    weights = [(owner, weight) for owner in mask_owners(model) for weight in owner.pruned_weights]
    if weights and all(isinstance(weight.method.pattern, _SCATTERED) for _, weight in weights):
        owner, weight = weights[0]
        raise ValueError(
            check.message(
                "masks of whole filters",
                f"'{owner.name}' with the pattern {weight.method.pattern!r}",
                'Prune with prune_low_magnitude(model, ..., pattern="filter").',
            )
        )


def _reasons(ledger, roots):
    """Returns `{representative: reason}` for the channels that must be kept."""
    found = dict(ledger.fixed())
    by_layer: dict = {}
    for reading in ledger.readings:
        path, values = ledger.path(reading.layer), reading.values
        others = by_layer.setdefault((id(reading.layer), reading.part), values)
        constant = ~np.isnan(values) & (values != 0)
        cases = [
            (np.isnan(values), "they are not silent"),
            # One bias cannot compensate for several constants.
            (others != values, f"'{path}' reads other constants at each call"),
        ]
        if reading.fold is None:
            cases.append(
                (constant, f"they are constant, and '{path}' has to see it: {reading.why}")
            )
        for where, reason in cases:
            for root in np.unique(roots[reading.labels[where]]).tolist():
                found.setdefault(root, reason)
    return found


def _keep_some(group, why, step):
    """Keeps one channel of every layer, and rounds the number of kept channels."""
    makers = list(group.makers.values())
    for units in makers:
        if not any(unit in why for unit in units.tolist()):
            why[int(units[0])] = _LAST
    made_by: dict = {}
    for number, units in enumerate(makers):
        for unit in set(units.tolist()):
            made_by.setdefault(unit, []).append(number)
    parts: dict = {}
    for unit in range(group.size):
        parts.setdefault(tuple(made_by[unit]), []).append(unit)
    for part in parts.values():
        silent = [unit for unit in part if unit not in why]
        short = -(len(part) - len(silent)) % step
        for unit in silent[:short]:
            why[unit] = f"rounded to a multiple of {step}"


def _folded(ledger, gone):
    """Returns `{id(layer): addition to its bias}` for the removed constants."""
    extra: dict = {}
    for reading in ledger.readings:
        values = np.where(gone[reading.labels], reading.values, 0).astype("float32")
        if values.any() and id(reading.layer) not in extra:
            extra[id(reading.layer)] = reading.fold(values).astype("float32")
    return extra


def shrink(
    model,
    targets=None,
    *,
    criterion=None,
    scope=None,
    rules=None,
    round_to=1,
    data=None,
    batches=8,
    batch_size=32,
    loss=None,
    latency_batch_size=1,
    allocation=None,
    verbose=1,
):
    """Makes a smaller model by removing silent channels, or enough channels to meet targets.

    Without `targets`, the smaller model computes the same.

    A channel is removed if it is zero for every input at inference, or if no layer reads it. A
    channel with another constant value (from the bias of a filter of zeros, say, or from a
    BatchNormalization or activation after it) is removed if every layer that reads it can absorb
    the constant exactly into its bias: dense layers, and convolutions without padding. All other
    channels are kept; `plan_shrink` gives the reasons.

    With `targets`, filters are pruned first: the lowest-scoring ones, as few as meet all targets.
    The smaller model computes the same as the pruned one; fine-tune it.

    Args:
        model: A built Sequential or Functional model, either wrapped with a pattern of whole
            filters, or plain with filters of zeros. It is not changed.
        targets: `{"macs": ..., "parameters": ..., "latency": ...}` with one or more entries: the
            largest cost of the smaller model, as a fraction of the model's cost. MACs and
            parameters may also be whole numbers. Latency is measured on this machine, so the
            result varies.
        criterion: For `targets`: a criterion or its name; by default, the magnitude.
        scope: For `targets`: "local" (the default: all groups get the same sparsity), "global", a
            scope or a distribution.
        rules: For `targets`: list of `Rule`s that exempt layers or vary the method by layer.
        round_to: Keep a multiple of this many channels in every layer that has as many. Many
            processors run such layers faster.
        data: For criteria that need gradients or activations, as in `tfprune.pruners.one_shot`;
            likewise `batches`, `batch_size`, `loss` and `verbose`.
        latency_batch_size: Batch size for measuring the latency; 1 by default.
        allocation: "sensitivity" prunes each group of filters up to the same loss, which each
            alone is measured to cost on `data`; `None` leaves the allocation to `scope`.
            BatchNormalization gets new statistics from the same data. See
            `tfprune.pruners.SensitivitySearch`.

    Returns:
        A new, plain, uncompiled model, without the optimizer's state.

    Raises:
        TypeError: If `model` is not a Keras 3 model, `round_to` not a whole number, or `targets`
            not a dictionary of numbers.
        ValueError: If the model is not built, its `call` is code, which cannot be followed, its
            patterns do not prune whole filters, or the targets cannot be met.

    Example:

    >>> inputs = keras.Input((8, 8, 3))
    >>> x = keras.layers.Conv2D(6, 3, name="conv")(inputs)
    >>> x = keras.layers.GlobalAveragePooling2D()(x)
    >>> model = keras.Model(inputs, keras.layers.Dense(2)(x))
    >>> schedule = tfprune.ConstantSparsity(0.5, 0)
    >>> pruned = tfprune.prune_low_magnitude(model, schedule, pattern="filter")
    >>> _ = tfprune.UpdatePruningStep(pruned)
    >>> tfprune.shrink(pruned).get_layer("conv").filters
    3
    >>> tfprune.shrink(model, {"macs": 0.35}).get_layer("conv").filters
    2
    """
    plan = plan_shrink(
        model,
        targets,
        criterion=criterion,
        scope=scope,
        rules=rules,
        round_to=round_to,
        data=data,
        batches=batches,
        batch_size=batch_size,
        loss=loss,
        latency_batch_size=latency_batch_size,
        allocation=allocation,
        verbose=verbose,
    )
    return plan.apply()
