"""Scopes: which weights compete with each other for the zeros."""

from dataclasses import dataclass

import keras
import numpy as np

from tfprune import distributions, masks
from tfprune._base import validation as check
from tfprune._base.frozen import Frozen
from tfprune._base.registration import Parts

SCOPES = Parts("scope", default="local")


class Scope(Frozen):
    """Base class of all scopes: frozen, and equal where their fields are equal."""

    def check(self, requests, sparsity):
        """Raises ValueError, naming a layer, if weights can never have this sparsity.

        Args:
            requests: List of `tfprune.masks.MaskRequest`.
            sparsity: Fraction of pruned units, in [0, 1).
        """

    def zeros(self, requests, sparsity):
        """Returns how many units each group of competing weights is to have pruned.

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
            List of `(kept, threshold)`, one a request; see `tfprune.masks.masks_with_zeros`.
        """
        raise NotImplementedError(f"{type(self).__name__} has to implement `masks`.")


@SCOPES.part()
@dataclass(frozen=True)
class Local(Scope):
    """Each weight on its own: its units compete with each other alone.

    Args:
        distribution: How the overall sparsity is shared out over the weights: a
            `tfprune.distributions.Distribution` or the name of one. By default each weight gets
            the schedule's sparsity, rounded by itself, as in tfmot.

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
            self.distribution.check(requests, sparsity)

    def zeros(self, requests, sparsity):
        return sum(self._zeros_of_each(requests, sparsity))

    def _zeros_of_each(self, requests, sparsity):
        if self.distribution is not None:
            counts = self.distribution.zeros(requests, sparsity)
            return masks.rounded(requests, counts, together=True)
        counts = [
            min(request.units - masks.kept_count(request.units, sparsity), request.most_zeros)
            for request in requests
        ]
        return masks.rounded(requests, counts)

    def masks(self, requests, sparsity):
        def mask_of(pair):
            request, zeros = pair
            (kept,), threshold = masks.masks_with_zeros([request], zeros)
            return kept, threshold

        pairs = list(zip(requests, self._zeros_of_each(requests, sparsity), strict=True))
        with masks.Workers(sum(request.weight.size for request in requests)) as workers:
            return workers.map(mask_of, pairs)


@SCOPES.part()
@dataclass(frozen=True)
class Global(Scope):
    """One threshold over all weights: those with many small units get sparser.

    No weight loses its last unit. What a weight at its cap does not give, the others give, so
    the overall count stays exact.

    Args:
        max_sparsity: Cap on the sparsity of each single weight, in (0, 1), or `None`.

    Raises:
        ValueError, TypeError: For a cap out of range.

    Example:

    >>> tfprune.scopes.Global(max_sparsity=0.99)
    Global(max_sparsity=0.99)
    """

    max_sparsity: float | None = None

    def __post_init__(self):
        if self.max_sparsity is not None:
            cap = check.sparsity("max_sparsity", self.max_sparsity)
            object.__setattr__(self, "max_sparsity", cap)

    def _most_zeros(self, request):
        if self.max_sparsity is None:
            return request.most_zeros
        capped = request.units - masks.kept_count(request.units, self.max_sparsity)
        return max(request.zeros_now, min(request.most_zeros, capped))

    def _asked(self, requests, sparsity):
        units = sum(request.units for request in requests)
        asked = units - masks.kept_count(units, sparsity)
        return min(asked, sum(self._most_zeros(request) for request in requests))

    def zeros(self, requests, sparsity):
        asked = self._asked(requests, sparsity)
        # What rounding makes of it depends on the scores; where it is done, it is seen.
        now = sum(request.zeros_now for request in requests)
        steps = [request.pattern.round_to for request in requests]
        missed = abs(now - asked)
        return now if missed and missed <= sum(n for n in steps if n > 1) / 2 else asked

    def masks(self, requests, sparsity):
        results: dict = {}
        competing = list(range(len(requests)))
        zeros = self._asked(requests, sparsity)
        while competing:
            group = [requests[i] for i in competing]
            kept, threshold = masks.masks_with_zeros(group, zeros)
            counts = [item.size - np.count_nonzero(item) for item in kept]
            over = [n for n, count in enumerate(counts) if count > self._most_zeros(group[n])]
            if not over:
                results.update(
                    {i: (item, threshold) for i, item in zip(competing, kept, strict=True)}
                )
                break
            for n in over:
                most = self._most_zeros(group[n])
                (only,), own = masks.masks_with_zeros([group[n]], most)
                results[competing[n]] = (only, own)
                zeros -= most
            competing = [i for n, i in enumerate(competing) if n not in over]
        return self._rounded(requests, [results[i] for i in range(len(requests))])

    def _rounded(self, requests, results):
        if all(request.pattern.round_to == 1 for request in requests):
            return results
        counts = [kept.size - np.count_nonzero(kept) for kept, _ in results]
        again = masks.rounded(requests, counts, together=True)
        for i, (request, zeros) in enumerate(zip(requests, again, strict=True)):
            if zeros != counts[i]:
                (kept,), threshold = masks.masks_with_zeros([request], zeros)
                results[i] = kept, threshold
        return results


def built_in():
    """Returns the scopes that come with tfprune, by name."""
    return SCOPES.by_name()


def get(scope):
    """Returns a scope.

    Args:
        scope: A `Scope`, "local", "global", its serialized form, or `None` for `Local`. A
            `tfprune.distributions.Distribution`, or the name of one, stands for `Local` with it.

    Raises:
        ValueError: For an unknown name.
        TypeError: For anything else.
    """
    if isinstance(scope, str):
        if scope in distributions.built_in():
            return Local(distributions.get(scope))
        check.choice("scope", scope, (*SCOPES.by_name(), *distributions.built_in()))
    if isinstance(scope, dict):
        scope = keras.saving.deserialize_keras_object(scope)
    if isinstance(scope, distributions.Distribution):
        return Local(scope)
    return SCOPES.get(scope, Scope)
