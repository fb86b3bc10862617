"""Scopes: the sets of weights that compete with each other to be kept."""

from dataclasses import dataclass

import numpy as np

from tfprune import distributions, masks, patterns
from tfprune._base import validation as check
from tfprune._base.frozen import Frozen
from tfprune._base.registration import PartRegistry

SCOPES = PartRegistry("scope", default="local")

# Groups of filters keep at least this fraction of the filters that uniform sparsity leaves.
_LEAST = 4


class Scope(Frozen):
    """Base class of all scopes: immutable, and equal if their fields are equal."""

    def check(self, requests, sparsity):
        """Raises ValueError, naming a layer, if the weights can never reach this sparsity.

        Args:
            requests: List of `tfprune.masks.MaskRequest`.
            sparsity: Fraction of pruned units, in [0, 1).
        """

    def zeros(self, requests, sparsity):
        """Returns the number of units to prune in each group of competing weights.

        Args:
            requests: List of `tfprune.masks.MaskRequest`.
            sparsity: Fraction of pruned units, in [0, 1).
        """
        raise NotImplementedError(f"{type(self).__name__} has to implement `zeros`.")

    def masks(self, requests, sparsity):
        """Computes masks.

        Args:
            requests: List of `tfprune.masks.MaskRequest`.
            sparsity: Fraction of pruned units, in [0, 1).

        Returns:
            List of `(kept, threshold)`, one for each request; see
            `tfprune.masks.masks_with_zeros`. `kept` is a bool array or `tfprune.masks.Bits`.
        """
        raise NotImplementedError(f"{type(self).__name__} has to implement `masks`.")


@SCOPES.part()
@dataclass(frozen=True)
class Local(Scope):
    """Prunes each weight independently: units compete only within their own weight.

    Args:
        distribution: Divides the overall sparsity among the weights: a
            `tfprune.distributions.Distribution` or the name of one. By default, each weight gets
            the schedule's sparsity, rounded independently, as in tfmot.

    Raises:
        ValueError, TypeError: For an unknown distribution.

    Example:

    >>> tfprune.Local("erdos_renyi_kernel")
    Local(distribution=ErdosRenyiKernel(power=1.0))
    """

    distribution: distributions.Distribution | None = None

    def __post_init__(self):
        if self.distribution is not None:
            object.__setattr__(self, "distribution", distributions.get(self.distribution))

    def check(self, requests, sparsity):
        if self.distribution is not None:
            self.distribution.check(_experts_apart(requests), sparsity)

    def zeros(self, requests, sparsity):
        return sum(self._zeros_of_each(_experts_apart(requests), sparsity))

    def _zeros_of_each(self, requests, sparsity):
        """Returns the pruned units of each request; each expert is a separate request."""
        if self.distribution is not None:
            counts = self.distribution.zeros(requests, sparsity)
            return masks.rounded(requests, counts, together=True)
        counts = [
            min(request.units - masks.kept_count(request.units, sparsity), request.most_zeros)
            for request in requests
        ]
        return masks.rounded(requests, counts)

    def masks(self, requests, sparsity):
        apart = [request.split() for request in requests]
        parts = [part for own in apart for part in own]
        zeros = self._zeros_of_each(parts, sparsity)
        found = masks.masks_in_groups([([p], n, None) for p, n in zip(parts, zeros, strict=True)])
        results = iter([(kept, threshold) for (kept,), threshold in found])
        return [_joined([next(results) for _ in own]) for own in apart]


def _experts_apart(requests):
    return [part for request in requests for part in request.split()]


def _joined(results):
    """Merges the results of all experts in a weight."""
    if len(results) == 1:
        return results[0]
    thresholds = [threshold for _, threshold in results if threshold is not None]
    kept = masks.Bits.of(np.concatenate([np.asarray(kept) for kept, _ in results]))
    return kept, max(thresholds) if thresholds else None


@SCOPES.part()
@dataclass(frozen=True)
class Global(Scope):
    """Applies one threshold to all weights: layers with many small units get sparser.

    No weight loses its last unit. If a weight reaches its cap, the other weights make up for it,
    so the overall count stays exact.

    Scores of single weights are compared directly. Scores of whole filters are sums over layers
    of different size and scale; compared directly, they could cost one layer nearly all of its
    filters. They are therefore divided by the mean of their group, and each group keeps at least a
    quarter of the filters that a uniform sparsity would leave it.

    Args:
        max_sparsity: Cap on the sparsity of each single weight or group, in (0, 1), or `None`.
        normalize: How to make scores comparable: "mean" or "max" divides the scores of a weight or
            group by their mean or maximum; "lamp" divides each score by the sum of all scores that
            are not smaller; "auto" applies "mean" to whole filters and leaves other patterns
            unchanged; `None` changes no scores, and lets filter groups fall below that quarter.

    Raises:
        ValueError, TypeError: For a cap out of range, or an unknown normalization.

    Example:

    >>> tfprune.scopes.Global(max_sparsity=0.99)
    Global(max_sparsity=0.99, normalize='auto')

    Reference:

    - [Fang et al., 2023: DepGraph](https://arxiv.org/abs/2301.12900), which divides by the mean
    - [Lee et al., 2021: LAMP](https://arxiv.org/abs/2010.07611)
    """

    max_sparsity: float | None = None
    normalize: str | None = "auto"

    def __post_init__(self):
        if self.max_sparsity is not None:
            cap = check.sparsity("max_sparsity", self.max_sparsity)
            object.__setattr__(self, "max_sparsity", cap)
        check.choice("normalize", self.normalize, ("auto", *masks.NORMALIZATIONS, None))

    def _normalization(self, request):
        if self.normalize != "auto":
            return self.normalize
        return "mean" if isinstance(request.pattern, patterns.Filter) else None

    def _most_zeros(self, request, sparsity):
        most = request.most_zeros
        if self.max_sparsity is not None:
            most = min(most, request.units - masks.kept_count(request.units, self.max_sparsity))
        elif self.normalize is not None and isinstance(request.pattern, patterns.Filter):
            least = masks.kept_count(request.units, sparsity) / _LEAST
            most = min(most, request.units - max(1, round(least)))
        return max(request.zeros_now, most)

    def _asked(self, requests, sparsity):
        units = sum(request.units for request in requests)
        asked = units - masks.kept_count(units, sparsity)
        return min(asked, sum(self._most_zeros(request, sparsity) for request in requests))

    def zeros(self, requests, sparsity):
        asked = self._asked(requests, sparsity)
        # The effect of rounding depends on the scores, so only the rounding itself can check it.
        now = sum(request.zeros_now for request in requests)
        steps = [request.pattern.step(request.units) for request in requests]
        missed = abs(now - asked)
        return now if missed and missed <= sum(n for n in steps if n > 1) / 2 else asked

    def masks(self, requests, sparsity):
        results: dict = {}
        competing = list(range(len(requests)))
        zeros = self._asked(requests, sparsity)
        while competing:
            group = [requests[i] for i in competing]
            how = [self._normalization(request) for request in group]
            ((kept, threshold),) = masks.masks_in_groups([(group, zeros, how)])
            counts = [item.size - item.count() for item in kept]
            caps = [self._most_zeros(request, sparsity) for request in group]
            over = [n for n, count in enumerate(counts) if count > caps[n]]
            if not over:
                results.update(
                    {i: (item, threshold) for i, item in zip(competing, kept, strict=True)}
                )
                break
            for n in over:
                (((only,), own),) = masks.masks_in_groups([([group[n]], caps[n], None)])
                results[competing[n]] = (only, own)
                zeros -= caps[n]
            competing = [i for n, i in enumerate(competing) if n not in over]
        return self._rounded(requests, [results[i] for i in range(len(requests))])

    def _rounded(self, requests, results):
        if all(request.pattern.step(request.units) == 1 for request in requests):
            return results
        counts = [kept.size - kept.count() for kept, _ in results]
        again = masks.rounded(requests, counts, together=True)
        for i, (request, zeros) in enumerate(zip(requests, again, strict=True)):
            if zeros != counts[i]:
                (((kept,), threshold),) = masks.masks_in_groups([([request], zeros, None)])
                results[i] = kept, threshold
        return results


def built_in():
    """Returns the built-in scope classes, by name."""
    return SCOPES.by_name()


def get(scope):
    """Returns a scope.

    Args:
        scope: A `Scope`, "local", "global", its serialized form, or `None` for `Local`. A
            `tfprune.distributions.Distribution`, or the name of one, means `Local` with it.

    Raises:
        ValueError: For an unknown name.
        TypeError: For anything else.
    """
    if isinstance(scope, str):
        if scope in distributions.built_in():
            return Local(distributions.get(scope))
        check.choice("scope", scope, (*SCOPES.by_name(), *distributions.built_in()))
    if isinstance(scope, dict):
        scope = check.deserialized("scope", scope, 'Use for instance "global".')
    if isinstance(scope, distributions.Distribution):
        return Local(scope)
    return SCOPES.get(scope, Scope)
