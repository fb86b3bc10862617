"""One mask update: scores in, new masks out, all of them or none."""

import numpy as np

from tfprune import _keras_graph as graph
from tfprune.masks import MaskRequest


def update_masks(groups):
    """Gives weights the masks for a new sparsity.

    All masks are computed before the first is assigned: an error changes nothing.

    Args:
        groups: List of `(scope, sparsity, weights)`: the weights (`PrunedWeight`) of a group
            compete under its scope.

    Returns:
        Whether any mask changed.

    Raises:
        ValueError: If a weight is not finite; it names the layer.
    """
    computed: list = []
    for scope, sparsity, weights in groups:
        requests = [request_for(weight) for weight in weights]
        results = scope.masks(requests, sparsity)
        computed += zip(weights, requests, results, strict=True)
    changed = False
    for weight, request, (kept, threshold) in computed:
        if threshold is None:
            continue
        weight.threshold = threshold
        # Masks are nested, so an equal count means an equal mask.
        if kept.size - np.count_nonzero(kept) == request.zeros_now:
            continue
        weight.set_mask(request.spread(kept))
        changed = True
    return changed


def request_for(weight):
    """Returns the `MaskRequest` of a `PrunedWeight`, its arrays read without a copy."""
    return MaskRequest(
        graph.host_array(weight.variable),
        weight.method.pattern,
        weight.method.criterion,
        weight.axes.resolve(len(weight.variable.shape)),
        graph.host_array(weight.mask) if weight.zeros else None,
        f"{weight.layer.name}/{weight.path.rsplit('/', 1)[-1]}",
    )


def expected_zeros(groups):
    """Returns `(pruned, expected, units)` summed over groups, counted in units.

    Args:
        groups: As in `update_masks`.
    """
    pruned = expected = units = 0
    for scope, sparsity, weights in groups:
        requests = [request_for(weight) for weight in weights]
        pruned += sum(request.zeros_now for request in requests)
        units += sum(request.units for request in requests)
        expected += scope.zeros(requests, sparsity)
    return pruned, expected, units


def compete(items):
    """Sorts `(sparsity, weight)` pairs into groups for `update_masks`."""
    groups: list = []
    for sparsity, weight in items:
        for _, known, weights in groups:
            if known == sparsity and weights[0].method.same_competition(weight.method):
                weights.append(weight)
                break
        else:
            groups.append((weight.method.scope, sparsity, [weight]))
    return groups
