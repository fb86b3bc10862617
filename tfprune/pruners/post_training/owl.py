"""OWL: blocks with many outliers keep more of their weights."""

from dataclasses import dataclass

import keras
import numpy as np

from tfprune._base import validation as check
from tfprune.distributions import Distribution, apportion
from tfprune.masks import Request
from tfprune.patterns.single_weights import Unstructured


@keras.saving.register_keras_serializable(package="tfprune")
@dataclass(frozen=True)
class Owl(Distribution):
    """Outlier-weighted sparsity: blocks with many outliers keep more of their weights.

    An outlier is a weight whose Wanda score, its magnitude times the norm of its input, is more
    than `outlier` times the mean of its block. The density of blocks varies in proportion to their
    shares of outliers, within a band of `2 * spread` around the overall density. All blocks
    together have the overall sparsity.

    Use it as `distribution` of `wanda`, `sparse_gpt` and `magnitude`: it needs the inputs of the
    layers. All weights of a block get the sparsity of the block.

    Args:
        outlier: Multiple of the mean score from which a weight is an outlier, above 0.
        spread: Half the difference in density between the blocks with most and with fewest
            outliers, from 0 to 0.5.

    Raises:
        ValueError: For numbers out of range.

    Example:

    >>> tfprune.pruners.Owl(spread=0.1)
    Owl(outlier=5.0, spread=0.1)

    Reference:

    - [Yin et al., 2024: OWL](https://arxiv.org/abs/2310.05175)
    """

    outlier: float = 5.0
    spread: float = 0.08

    def __post_init__(self):
        check.positive("outlier", self.outlier, "The paper uses 5.")
        number = isinstance(self.spread, (int, float)) and not isinstance(self.spread, bool)
        if not (number and 0 <= self.spread <= 0.5):
            raise ValueError(
                check.message(
                    "`spread` from 0 to 0.5", f"spread={self.spread!r}", "The paper uses 0.08."
                )
            )

    def share(self, requests, low, high, total):
        if not all(isinstance(request, BlockRequest) for request in requests):
            raise ValueError(
                check.message(
                    "Owl to know the inputs of the layers",
                    "weights alone",
                    "Use it as `distribution` of tfprune.pruners.wanda, sparse_gpt or magnitude.",
                )
            )
        units = [request.units for request in requests]
        ratios = np.array([request.outliers for request in requests])
        span = ratios.max() - ratios.min()
        raised = 2 * self.spread * (ratios - ratios.min()) / span if span else 0 * ratios
        density = 1 - total / sum(units)
        densities = np.clip(raised - raised.mean() + density, 0.0, 1.0)
        kept = apportion(
            [float(d) * n for d, n in zip(densities, units, strict=True)],
            [n - most for n, most in zip(units, high, strict=True)],
            [n - fewest for n, fewest in zip(units, low, strict=True)],
            sum(units) - total,
        )
        return [n - k for n, k in zip(units, kept, strict=True)]

    def share_of_outliers(self, scores):
        """Returns the share of outliers among the scores of a block.

        Args:
            scores: List of arrays of Wanda scores.
        """
        total = sum(array.size for array in scores)
        mean = sum(float(array.sum()) for array in scores) / total
        return sum(int((array > self.outlier * mean).sum()) for array in scores) / total


class BlockRequest(Request):
    """All weights of one block, to a distribution.

    Args:
        name: Name of the block.
        units: Number of its weights.
        outliers: Share of outliers among them.
    """

    def __init__(self, name, units, outliers):
        self.name, self.units, self.outliers = name, units, outliers
        self.pattern = Unstructured()
        self.zeros_now, self.most_zeros = 0, units - 1
