"""The distribution by LAMP scores."""

from dataclasses import dataclass

import numpy as np

from tfprune import masks
from tfprune.criteria.weights import lamp_scores
from tfprune.distributions.apportioning import apportion
from tfprune.distributions.base import DISTRIBUTIONS, Distribution


@DISTRIBUTIONS.part()
@dataclass(frozen=True)
class LAMP(Distribution):
    """Layer-adaptive magnitudes: one threshold on the LAMP score sets each layer's sparsity.

    The score of a weight is its square, divided by the sum of the squares of all weights in its
    layer that are not smaller, itself included. The largest weight of each layer therefore scores
    1. A unit of several weights counts with its pooled square. Within a layer, the criterion
    chooses the units to prune. When the sparsity falls, each layer regains units in proportion to
    its zeros.

    Example:

    >>> tfprune.scopes.get("lamp")
    Local(distribution=LAMP())

    Reference:

    - [Lee et al., 2021: Layer-adaptive sparsity for the Magnitude-based
      Pruning](https://arxiv.org/abs/2010.07611)
    """

    def share(self, requests, low, high, total):
        now = [request.zeros_now for request in requests]
        if total < sum(now):
            # Pruned weights are zero, so they have no score.
            return apportion(now, low, high, total)
        counts = list(low)
        more = [i for i in range(len(requests)) if high[i] > low[i]]
        scores = [
            masks.Scores(_lamp(requests[i])[: high[i] - low[i]], name=requests[i].name)
            for i in more
        ]
        kept, _ = masks.keep_masks(scores, total - sum(low))
        for i, mask in zip(more, kept, strict=True):
            counts[i] += mask.size - int(np.count_nonzero(mask))
        return counts


def _lamp(request):
    """The scores of a request's unpruned units, in ascending order."""
    squares = request.squares()
    if not np.isfinite(squares).all():
        masks.raise_not_finite(request.name)
    return np.sort(lamp_scores(squares[~request.pruned]))
