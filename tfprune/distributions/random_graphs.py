"""Distributions with the densities of random graphs."""

from dataclasses import dataclass
from fractions import Fraction
from math import prod

import numpy as np

from tfprune._base import validation as check
from tfprune.distributions.base import DISTRIBUTIONS, Distribution


@dataclass(frozen=True)
class _Random(Distribution):
    """Base of distributions with the densities of random graphs."""

    reads_weights = False

    power: float = 1.0

    def __post_init__(self):
        power = self.power
        number = isinstance(power, (int, float, np.floating)) and not isinstance(power, bool)
        if not number or not 0 <= power < np.inf:
            raise (ValueError if number else TypeError)(
                check.message(
                    "`power` to be a number of at least 0",
                    f"power={power!r}",
                    "Use 1 for the usual distribution, 0 for a uniform one.",
                )
            )
        object.__setattr__(self, "power", float(power))

    def _sizes(self, request):
        raise NotImplementedError

    def densities(self, requests):
        found = []
        for request in requests:
            sizes = self._sizes(request)
            found.append(Fraction(sum(sizes), prod(sizes)) ** Fraction(self.power))
        return found


def _by_role(request):
    """Returns inputs, outputs and window sizes; a depthwise kernel has one input."""
    shape = request.weight.shape
    spatial, inputs, outputs = request.axes.as_matrices(len(shape))
    channels = [prod(shape[axis] for axis in axes) for axes in (inputs, outputs)]
    return channels, [shape[axis] for axis in spatial]


_POWER = """
    Args:
        power: Exponent of the density; at least 0.

    Raises:
        ValueError, TypeError: For an invalid power.
"""


@DISTRIBUTIONS.part(arguments=_POWER)
@dataclass(frozen=True)
class ErdosRenyi(_Random):
    """Erdos-Renyi: density in proportion to `(n_in + n_out) / (n_in * n_out)`.

    Large layers get sparser than small ones, because the number of connections of a layer grows
    in proportion to its neurons. A layer whose density would exceed 1 stays dense, and the other
    layers make up for it.

    {arguments}

    Example:

    >>> model = keras.Sequential([keras.Input((100,)), *map(keras.layers.Dense, (50, 10))])
    >>> pruned = tfprune.prune_low_magnitude(
    ...     model, tfprune.ConstantSparsity(0.8, 0), scope="erdos_renyi")
    >>> _ = tfprune.UpdatePruningStep(pruned)
    >>> [row.sparsity for row in tfprune.sparsity_report(pruned).rows]
    [0.8428, 0.372]

    Reference:

    - [Mocanu et al., 2018: Scalable training of artificial neural networks with adaptive sparse
      connectivity](https://www.nature.com/articles/s41467-018-04316-3)
    """

    def _sizes(self, request):
        return _by_role(request)[0]


@DISTRIBUTIONS.part(arguments=_POWER)
@dataclass(frozen=True)
class ErdosRenyiKernel(_Random):
    """Erdos-Renyi-Kernel: `ErdosRenyi` that also counts the window of a convolution.

    Density in proportion to `(n_in + n_out + height + width) / (n_in * n_out * height * width)`.
    A layer whose density would exceed 1 stays dense, and the other layers make up for it. Layers
    without a window get the density of `ErdosRenyi`.

    {arguments}

    Example:

    >>> tfprune.scopes.get("erdos_renyi_kernel")
    Local(distribution=ErdosRenyiKernel(power=1.0))

    Reference:

    - [Evci et al., 2020: Rigging the Lottery](https://arxiv.org/abs/1911.11134)
    """

    def _sizes(self, request):
        channels, window = _by_role(request)
        return [*channels, *window]
