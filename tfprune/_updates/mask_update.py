"""One mask update: scores in, new masks out, all of them or none."""

from dataclasses import replace

import numpy as np

from tfprune import _keras
from tfprune.masks.requests import MaskRequest, masks_with_zeros


def update_masks(groups, evidence=None):
    """Gives weights the masks for a new sparsity.

    All masks are computed before the first is assigned: an error changes nothing.

    Args:
        groups: List of `(scope, sparsity, competitors)` as `compete` makes it: those of a group
            compete under its scope.
        evidence: The `Evidence` that the criteria take what they need from; `None` if all do with
            the weights.

    Returns:
        Whether any mask changed.

    Raises:
        ValueError: If a weight is not finite or evidence cannot be had; it names the layer.
    """
    everything = [competitor for _, _, competitors in groups for competitor in competitors]
    # Nothing is chosen at a sparsity of 0 where nothing is pruned: no evidence has to be had.
    needing = [
        weight
        for _, sparsity, competitors in groups
        for weight in _scored(competitors)
        if weight.method.criterion.needs
        and (sparsity or any(w.zeros for w in _scored(competitors)))
    ]
    found = evidence(needing) if evidence is not None and needing else {}
    positions = {id(competitor): position for position, competitor in enumerate(everything)}
    computed: list = []
    for scope, sparsity, competitors in groups:
        requests = [
            _request_of(competitor, found, positions[id(competitor)]) for competitor in competitors
        ]
        results = scope.masks(requests, sparsity)
        computed += zip(competitors, requests, results, strict=True)
    changed = False
    for weight, request, (kept, threshold) in computed:
        if threshold is None:
            continue
        for scored in _scored([weight]):
            scored.threshold = threshold
        # Masks are nested, so an equal count means an equal mask.
        if kept.size - np.count_nonzero(kept) == request.zeros_now:
            continue
        weight.set_mask(request.spread(kept))
        changed = True
    return changed


def _scored(competitors):
    """The `PrunedWeight`s that competitors are scored by."""
    return [weight for item in competitors for weight in getattr(item, "scored", [item])]


def _request_of(competitor, found, position=0):
    if hasattr(competitor, "scored"):
        return competitor.request(found, position)
    return request_for(competitor, found.get(id(competitor)), position=position)


def exchange(weights, fractions, drop, grow, evidence):
    """Drops connections and grows as many others; all weights or none.

    Args:
        weights: List of `PrunedWeight`.
        fractions: List of the share of active units that each drops, in [0, 1).
        drop: `Criterion`: active units with the lowest scores go.
        grow: `Criterion`: of all units that are not active then, those just dropped included,
            those with the highest scores come.
        evidence: The `Evidence` that the criteria take what they need from.

    Returns:
        `[(weight, grown)]` for the weights whose mask changed: `grown` is a bool array of the
        weights that were pruned before and are not now. A unit that is dropped and grown again
        keeps its weights.

    Raises:
        ValueError: If a weight is not finite or evidence cannot be had; it names the layer.
    """
    found_drop = evidence(weights, drop) if drop.needs else {}
    found_grow = evidence(weights, grow) if grow.needs else {}
    computed = []
    for position, (weight, fraction) in enumerate(zip(weights, fractions, strict=True)):
        before = request_for(weight, found_drop.get(id(weight)), drop, position)
        zeros = before.zeros_now
        number = min(int((before.units - zeros) * fraction), before.most_zeros - zeros)
        if number <= 0 or not zeros:
            continue
        (kept,), _ = masks_with_zeros([before], zeros + number)
        between = replace(
            before,
            criterion=grow,
            mask=before.spread(kept),
            evidence=found_grow.get(id(weight), {}),
        )
        (kept,), _ = masks_with_zeros([between], zeros)
        mask = before.spread(kept)
        computed.append((weight, mask, mask & ~before.mask))
    for weight, mask, _ in computed:
        weight.set_mask(mask)
    return [(weight, grown) for weight, _, grown in computed]


def request_for(weight, evidence=None, criterion=None, position=0):
    """Returns the `MaskRequest` of a `PrunedWeight`, its arrays read without a copy."""
    return MaskRequest(
        _keras.host_array(weight.variable),
        weight.method.pattern,
        weight.method.criterion if criterion is None else criterion,
        weight.axes.resolve(len(weight.variable.shape)),
        _keras.host_array(weight.mask) if weight.zeros else None,
        weight.name,
        evidence or {},
        position,
    )


def expected_zeros(groups):
    """Returns `(pruned, expected, units)` summed over groups, counted in units.

    Args:
        groups: As in `update_masks`.
    """
    pruned = expected = units = 0
    for scope, sparsity, competitors in groups:
        requests = requests_of(competitors)
        pruned += sum(request.zeros_now for request in requests)
        units += sum(request.units for request in requests)
        expected += scope.zeros(requests, sparsity)
    return pruned, expected, units


def requests_of(competitors):
    """Returns the requests of competitors, without evidence."""
    return [_request_of(competitor, {}) for competitor in competitors]


def _competitors(items):
    """Puts groups into the place of coupled weights; weights that only follow fall out."""
    seen = set()
    for sparsity, weight in items:
        competitor = weight.group if weight.coupled else weight
        if competitor is not None and not weight.follows and id(competitor) not in seen:
            seen.add(id(competitor))
            yield sparsity, competitor


def compete(items):
    """Sorts `(sparsity, weight)` pairs into groups for `update_masks`."""
    groups: list = []
    for sparsity, weight in _competitors(items):
        for _, known, weights in groups:
            if known == sparsity and weights[0].method.same_competition(weight.method):
                weights.append(weight)
                break
        else:
            groups.append((weight.method.scope, sparsity, [weight]))
    return groups
