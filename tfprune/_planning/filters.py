"""Filters in a plan: groups that can only be removed together, and weights masked with them."""

from tfprune import _keras
from tfprune._base import validation as check
from tfprune._channels.coupling import find_couplings, is_coupled, warn_of_layers_that_stay


def couple_filters(model, plan):
    """Finds the removable filters of a model, and completes its plan.

    Drops layers that keep all channels, and adds layers that hold a bias, a scale or an offset of
    a removable channel.

    Args:
        model: The plain model.
        plan: The model's `Plan`.

    Raises:
        ValueError: If no filter can be removed.
    """
    if not _keras.runs_as_graph(model):
        return
    inside = {id(layer): unit for unit in plan.units for layer in _keras.flatten(unit.layer)}
    methods: dict = {}
    candidates = set()
    for weight in (weight for unit in plan.chosen for weight in unit.masked):
        coupled = is_coupled(weight.method)
        methods.setdefault(id(weight.item.layer), []).append((weight.item.variable, coupled))
        if coupled:
            candidates.add(id(weight.item.variable))
    if not candidates:
        return
    couplings, stay = find_couplings(model, candidates)
    taking_part = {id(part.variable) for found in couplings for part in found.scored}
    if not couplings and all(coupled for pairs in methods.values() for _, coupled in pairs):
        raise ValueError(
            check.message(
                "filters that can be removed",
                f"model '{model.name}', which keeps them all: "
                + "; ".join(f"{', '.join(paths)}: {reason}" for reason, paths in stay.items()),
                "tfprune.Filter(coupled=False) prunes each layer's filters independently.",
            )
        )
    warn_of_layers_that_stay(stay)
    followers: dict = {}
    for part in (part for found in couplings for part in found.others):
        unit = inside[id(part.layer)]
        index = next(i for i, v in enumerate(part.layer.weights) if v is part.variable)
        followers.setdefault(unit, {})[unit.place_of(part.layer), index] = None
        plan.choose(unit)
    reasons = {path: reason for reason, paths in stay.items() for path in paths}
    for unit in plan.chosen:
        layers = [layer for layer in _keras.flatten(unit.layer) if id(layer) in methods]
        left_out = [
            layer
            for layer in layers
            if all(coupled for _, coupled in methods[id(layer)])
            and not any(id(variable) in taking_part for variable, _ in methods[id(layer)])
        ]
        unit.followers = list(followers.get(unit, {}))
        unit.leave_out([unit.place_of(layer) for layer in left_out], reasons)
        if len(layers) == len(left_out) and unit not in followers:
            plan.leave(unit)
