"""The base class of distributions: relative densities become exact counts."""

from fractions import Fraction

from tfprune import masks
from tfprune._base import validation as check
from tfprune._base.frozen import Frozen
from tfprune._base.registration import PartRegistry
from tfprune.distributions.apportioning import apportion

DISTRIBUTIONS = PartRegistry("distribution", default="uniform")


class Distribution(Frozen):
    """Base class of all distributions: immutable, and equal if their fields are equal.

    A subclass implements `densities`, which returns the relative densities of the layers. This
    class turns them into counts that add up to the overall budget exactly. No layer loses its last
    unit; if a layer cannot take its share of zeros, the other layers take the rest.

    Example:

    >>> @dataclasses.dataclass(frozen=True)
    ... class LaterIsSparser(tfprune.Distribution):
    ...     def densities(self, requests):
    ...         return [1 / (1 + position) for position in range(len(requests))]
    >>> tfprune.Local(LaterIsSparser())
    Local(distribution=LaterIsSparser())
    """

    # Whether it reads more of the weights than their shapes and counts.
    reads_weights = True

    def densities(self, requests):
        """Returns one positive number for each request: its density relative to the others.

        Args:
            requests: List of `tfprune.masks.MaskRequest`.
        """
        raise NotImplementedError(f"{type(self).__name__} has to implement `densities`.")

    def limits(self, requests):
        """Returns for each request the maximum number of units that may be pruned.

        Args:
            requests: List of `tfprune.masks.MaskRequest`.
        """
        return [request.most_zeros for request in requests]

    def share(self, requests, low, high, total):
        """Returns the number of units to prune in each request, `total` in all.

        Args:
            requests: List of `tfprune.masks.MaskRequest`.
            low: List of the minimum of each.
            high: List of the maximum of each.
            total: The sum, from `sum(low)` to `sum(high)`.
        """
        units = [request.units for request in requests]
        kept = apportion(
            [Fraction(d) * n for d, n in zip(self.densities(requests), units, strict=True)],
            [n - most for n, most in zip(units, high, strict=True)],
            [n - fewest for n, fewest in zip(units, low, strict=True)],
            sum(units) - total,
        )
        return [n - k for n, k in zip(units, kept, strict=True)]

    def check(self, requests, sparsity):
        """Raises ValueError, naming a layer, unless the layers can reach this sparsity.

        Args:
            requests: List of `tfprune.masks.MaskRequest`.
            sparsity: Fraction of pruned units, in [0, 1).
        """
        self._bounds(requests, sparsity)

    def zeros(self, requests, sparsity):
        """Returns the number of units to prune in each request.

        The sum is the exact count for all units together, see `tfprune.masks.kept_count`; the
        parts are rounded by largest remainder. While the sum rises, no part falls, and while it
        falls, no part rises, so masks never flicker.

        Args:
            requests: List of `tfprune.masks.MaskRequest`.
            sparsity: Fraction of pruned units, in [0, 1).

        Raises:
            ValueError: If the layers cannot have that many zeros; the message names the layers.
        """
        low, high, total = self._bounds(requests, sparsity)
        now = [request.zeros_now for request in requests]
        if total == sum(now):
            return now
        if sum(high) < total:
            # The sum falls from masks that another distribution made.
            return apportion(now, low, now, total)
        return self.share(requests, low, high, total)

    def _bounds(self, requests, sparsity):
        """Returns the minimum and maximum number of zeros of each request, and the required sum."""
        units = sum(request.units for request in requests)
        total = units - masks.kept_count(units, sparsity)
        limits = self.limits(requests)
        now = [request.zeros_now for request in requests]
        if total < sum(now):
            return [0] * len(now), [min(pair) for pair in zip(now, limits, strict=True)], total
        high = [max(pair) for pair in zip(now, limits, strict=True)]
        if total > sum(high):
            raise ValueError(self._too_much(requests, high, sparsity))
        return now, high, total

    def _too_much(self, requests, high, sparsity):
        most = sum(high) / sum(request.units for request in requests)
        kept = [request.units - number for request, number in zip(requests, high, strict=True)]
        worst = sorted(range(len(kept)), key=lambda i: -kept[i])[:3]
        named = ", ".join(
            f"{requests[i].name} keeps {kept[i]} of {requests[i].units}" for i in worst
        )
        return check.message(
            f"a sparsity of at most {most:.4g}, the maximum of {self} here",
            f"sparsity={float(sparsity):g}, although each layer has to keep some units: {named}",
            "Lower the sparsity, or choose another distribution.",
        )
