"""Distributions with one sparsity for all layers, or for all but the first."""

from dataclasses import dataclass

from tfprune.distributions.base import DISTRIBUTIONS, Distribution


@DISTRIBUTIONS.part()
@dataclass(frozen=True)
class Uniform(Distribution):
    """Gives all layers the same sparsity.

    `Local()` without a distribution rounds each layer independently; this distribution rounds the
    layers so that the overall count is exact.

    Example:

    >>> tfprune.scopes.get("uniform")
    Local(distribution=Uniform())
    """

    reads_weights = False

    def densities(self, requests):
        return [1] * len(requests)


@DISTRIBUTIONS.part()
@dataclass(frozen=True)
class FirstLayerDense(Distribution):
    """Keeps the first layer dense, and gives all others the same, higher sparsity instead.

    Example:

    >>> model = keras.Sequential([keras.Input((8,)), *(keras.layers.Dense(8) for _ in range(3))])
    >>> pruned = tfprune.prune_low_magnitude(
    ...     model, tfprune.ConstantSparsity(0.5, 0), scope=tfprune.FirstLayerDense())
    >>> _ = tfprune.UpdatePruningStep(pruned)
    >>> [row.zeros for row in tfprune.sparsity_report(pruned).rows]
    [0, 48, 48]

    Reference:

    - [Evci et al., 2020: Rigging the Lottery](https://arxiv.org/abs/1911.11134)
    """

    reads_weights = False

    def densities(self, requests):
        return [1] * len(requests)

    def limits(self, requests):
        return [0, *(request.most_zeros for request in requests[1:])]
