"""Decides which channels to remove: silent ones, and constants that a bias can absorb."""

from collections import Counter

import numpy as np

from tfprune._channels.graph import LAST_CHANNEL, channel_groups, follow
from tfprune.patterns.slices import Filter
from tfprune.structural.plan import GroupPlan, ShrinkPlan
from tfprune.structural.remove import rebuild
from tfprune.structural.same_outputs import check_same
from tfprune.structural.uniform import UniformWidths


def plan_removal(model, round_to, uniform=False):
    """Returns the `ShrinkPlan` of a plain model.

    Args:
        model: A plain model.
        round_to: As in `tfprune.Filter`.
        uniform: As in `tfprune.shrink`.
    """
    step_of = Filter(round_to=round_to).step
    ledger = follow(model)
    roots, (groups, all_units) = ledger.roots(), channel_groups(ledger)
    stays = _reasons(ledger, roots)
    gone, reasons, left = np.zeros(len(roots), bool), [], {}
    for group, units in zip(groups, all_units, strict=True):
        why = {unit: stays[root] for unit, root in enumerate(units.tolist()) if root in stays}
        _keep_some(group, why, step_of)
        reasons.append(why)
    form = UniformWidths(model, ledger) if uniform else None
    if form is not None:
        left = form.level(groups, reasons)
    plans = []
    for group, units, why in zip(groups, all_units, reasons, strict=True):
        removed = [unit for unit in range(group.size) if unit not in why]
        gone[units[removed]] = True
        plans.append(_group_plan(group, removed, why))
    gone = gone[roots]

    def finished(smaller):
        if ledger.composites and gone.any():
            check_same(model, smaller, ledger.composites.values())
        return smaller if form is None else form.rebuilt(smaller, left)

    return ShrinkPlan(
        plans,
        model,
        rebuild(model, ledger, gone, _folded(ledger, gone)),
        dict(ledger.barriers),
        lambda: finished(rebuild(model, ledger, gone)),
        finished,
    )


def _group_plan(group, removed, why):
    widths = {
        path: (len(units), int(np.count_nonzero(~np.isin(units, removed))))
        for path, units in group.makers.items()
    }
    return GroupPlan(group.layers, group.size, tuple(removed), dict(Counter(why.values())), widths)


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


def _keep_some(group, why, step_of):
    """Keeps one channel of every layer, and rounds the number of kept channels."""
    makers = list(group.makers.values())
    for units in makers:
        if not any(unit in why for unit in units.tolist()):
            why[int(units[0])] = LAST_CHANNEL
    made_by: dict = {}
    for number, units in enumerate(makers):
        for unit in set(units.tolist()):
            made_by.setdefault(unit, []).append(number)
    parts: dict = {}
    for unit in range(group.size):
        parts.setdefault(tuple(made_by[unit]), []).append(unit)
    for part in parts.values():
        step = step_of(len(part))
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
