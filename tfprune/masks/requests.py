"""Requests for masks: weight, pattern and criterion, and the number of zeros they share."""

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from tfprune import criteria, patterns
from tfprune._base import validation as check
from tfprune.masks.bits import Bits
from tfprune.masks.normalization import normalized
from tfprune.masks.selection import Scores, as_comparable, keep_bits, raise_not_finite
from tfprune.patterns.pooling import pooled


class Competitor:
    """A participant in the choice of zeros: one weight, or a group of coupled filters.

    Attributes:
        name: Its name in messages.
        method: The method by which it is pruned.
    """

    name: str
    method: Any

    @property
    def scored(self):
        """The list of single weights whose scores count."""
        raise NotImplementedError(f"{type(self).__name__} has to implement `scored`.")

    def request(self, found, position=0, criterion=None):
        """Returns its `Request`, whose arrays are not copied.

        Args:
            found: `{id(weight): {need: array}}`, the collected evidence.
            position: Its index among all competitors that are scored together.
            criterion: A criterion that replaces the method's.
        """
        raise NotImplementedError(f"{type(self).__name__} has to implement `request`.")

    def set_mask(self, mask):
        """Assigns a mask from its request's `spread`, and applies it to the weights."""
        raise NotImplementedError(f"{type(self).__name__} has to implement `set_mask`.")


class Request:
    """One competitor's interface to scopes, distributions and the mask kernel.

    Attributes:
        name: Its name in messages.
        pattern: The `Pattern`.
        weight: Its weight, or the largest of several.
        axes: The `KernelAxes` of `weight`.
        units: Number of units.
        alive: Bool array over units: True for units that are not pruned now.
        zeros_now: Number of units that are pruned now.
        most_zeros: The largest number of units that can be pruned.
    """

    name: str
    pattern: patterns.Pattern
    weight: np.ndarray
    axes: patterns.KernelAxes
    units: int
    alive: np.ndarray
    zeros_now: int
    most_zeros: int

    @property
    def pruned(self):
        """Bool array over units: True for units that are pruned now."""
        return ~self.alive

    def scores(self, rising):
        """Returns the `Scores` of the candidate units."""
        raise NotImplementedError(f"{type(self).__name__} has to implement `scores`.")

    def squares(self):
        """Returns the pooled squares of the weights, one for each unit."""
        raise NotImplementedError(f"{type(self).__name__} has to implement `squares`.")

    def check_finite(self):
        """Raises ValueError unless the weight is finite."""
        Scores(_flat(self.weight), name=self.name).check_finite()

    def begin(self, along=None):
        """Begins what takes time, before `scores` of the first of several requests is called.

        Args:
            along: What `column` will be called with, if it is called in place of `scores`.
        """

    def split(self):
        """Lists the requests of all experts in the weight; only itself without experts."""
        return [self]

    def release(self):
        """Frees the arrays that were read; `spread` still works."""
        self.weight = _Shape(self.weight.shape)  # type: ignore[assignment]

    def spread(self, kept):
        """Expands a flat bool array, or `Bits`, over units to a mask."""
        raise NotImplementedError(f"{type(self).__name__} has to implement `spread`.")


@dataclass
class MaskRequest(Request):
    """A request for the mask of one weight.

    Args:
        weight: Float array.
        pattern: A `tfprune.patterns.Pattern`.
        criterion: A `tfprune.criteria.Criterion`.
        axes: `KernelAxes` of the weight.
        mask: The current mask of the weight, or `None`.
        name: Name of the weight in error messages.
        evidence: `{name: array}` for each name in the criterion's `needs`: float arrays of the
            weight's shape.
        position: Index of the weight among those that are scored together.
    """

    weight: np.ndarray
    pattern: patterns.Pattern
    criterion: criteria.Criterion
    axes: patterns.KernelAxes
    mask: np.ndarray | None = None
    name: str = "the weight"
    evidence: dict = field(default_factory=dict)
    position: int = 0

    def __post_init__(self):
        self.pattern.check(self.weight.shape, self.axes, self.name)
        self.units = self.pattern.unit_count(self.weight.shape, self.axes)
        self.most_zeros = self.pattern.most_zeros(self.weight.shape, self.axes)
        if self.mask is None:
            self.alive, self.zeros_now = np.broadcast_to(np.True_, self.units), 0
        else:
            self.alive = self.pattern.collapse(self.mask, self.axes).reshape(-1)
            self.zeros_now = self.units - int(np.count_nonzero(self.alive))

    def release(self):
        super().release()
        self.mask, self.evidence, self.alive = None, {}, np.empty(0, dtype=bool)

    def split(self):
        """Lists a request for each expert's weight; only itself without experts."""
        if not self.axes.experts:
            return [self]
        axes = replace(self.axes.resolve(self.weight.ndim), experts=False)

        def part(array, i):
            whole = isinstance(array, np.ndarray) and array.shape == self.weight.shape
            return array[i : i + 1] if whole else array

        return [
            replace(
                self,
                weight=self.weight[i : i + 1],
                mask=None if self.mask is None else self.mask[i : i + 1],
                evidence={name: part(array, i) for name, array in self.evidence.items()},
                axes=axes,
                name=f"{self.name}[{i}]",
            )
            for i in range(self.weight.shape[0])
        ]

    def scores(self, rising):
        """The scores of the candidate units: unpruned ones if `rising`, otherwise pruned ones."""
        candidates = self.alive if rising else self.pruned
        if self.criterion.elementwise and type(self.pattern) is patterns.Unstructured:
            some = candidates if self.zeros_now or not rising else None
            flat = tuple(_flat(array) for array in (self.weight, *self._needed()))
            return Scores(flat, self.criterion, some, self.name)
        everything = self.criterion_scores()
        if rising:
            may_go = self.pattern.eligible(everything, ~self._mask_or_ones(), self.axes)
            if may_go is not None:
                candidates = candidates & may_go.reshape(-1)
        of_units = self.pattern.pool(everything, self.axes)
        return Scores(_flat(of_units), None, candidates, self.name)

    def criterion_scores(self):
        """The scores of all single weights; raises if one is not finite."""
        weight = as_comparable(self.weight)
        evidence = [as_comparable(a) if isinstance(a, np.ndarray) else a for a in self._needed()]
        everything = self.criterion(weight, *evidence)
        if not np.isfinite(everything).all() or not np.isfinite(weight).all():
            raise_not_finite(self.name)
        return everything

    def column(self, how, axis):
        """Pools the scores of each position of one axis into one, in float64.

        Args:
            how: "AVG", "MAX" or "SUM".
            axis: The axis, counted from the front.
        """
        everything = self.criterion_scores()
        others = tuple(other for other in range(everything.ndim) if other != axis)
        return pooled(everything, others, how, keepdims=False).astype("float64")

    def squares(self):
        """Pooled squares of the weights, one for each unit."""
        weight = self.weight.astype("float64")
        return self.pattern.pool(weight * weight, self.axes).reshape(-1)

    def _needed(self):
        """The arguments that the criterion gets after the weight."""
        known = {
            "axes": self.axes.resolve(self.weight.ndim),
            "position": self.position,
            **self.evidence,
        }
        for need in self.criterion.needs:
            if need not in known:
                raise ValueError(criteria.no_evidence(self.criterion, need, self.name))
            array = known[need]
            if isinstance(array, np.ndarray) and array.shape != self.weight.shape:
                raise ValueError(
                    check.message(
                        f"{need!r} of {self.name}'s shape {self.weight.shape}",
                        f"shape {array.shape}",
                        "Give one value for each weight.",
                    )
                )
        return [known[need] for need in self.criterion.needs]

    def _mask_or_ones(self):
        return np.ones(self.weight.shape, dtype=bool) if self.mask is None else self.mask

    def spread(self, kept):
        """Expands a flat mask over units to the weight."""
        return self.pattern.expand(np.asarray(kept), self.weight.shape, self.axes)


class _Shape:
    """The shape of an array that was freed."""

    def __init__(self, shape):
        self.shape, self.ndim = shape, len(shape)


def _flat(array):
    return np.ascontiguousarray(array).reshape(-1)


def rounded(requests, zeros, together=False):
    """Rounds numbers of pruned units so that each weight keeps a multiple of `round_to` units.

    Args:
        requests: List of `MaskRequest`.
        zeros: List of the numbers of pruned units, one for each request.
        together: Whether to keep the sum as close as possible to the sum of `zeros`; otherwise
            each number is rounded to the nearest multiple.

    Returns:
        List of `int`. Each weight keeps at least `round_to` units, or all if it has fewer.
    """
    asked = [request.units - number for request, number in zip(requests, zeros, strict=True)]
    choices = [_multiples(request, k) for request, k in zip(requests, asked, strict=True)]
    kept = [
        min((abs(n - k), -n, n) for n in choice)[-1]
        for choice, k in zip(choices, asked, strict=True)
    ]
    missed = sum(kept) - sum(asked)
    while together and missed:
        # The cheapest step that brings the sum closer.
        steps = [
            (abs(n - asked[i]) - abs(kept[i] - asked[i]), i, n)
            for i, choice in enumerate(choices)
            for n in choice
            if abs(missed + n - kept[i]) < abs(missed)
        ]
        if not steps:
            break
        _, i, n = min(steps)
        missed, kept[i] = missed + n - kept[i], n
    return [request.units - k for request, k in zip(requests, kept, strict=True)]


def _multiples(request, kept):
    """The possible multiples of `round_to` below and above a number of kept units."""
    step, most = request.pattern.step(request.units), request.units - request.zeros_now
    least = request.units - request.most_zeros
    if step == 1:
        return [kept]
    below = kept // step * step
    near = {min(max(n, step), request.units) for n in (below, below + step)}
    rising = kept <= most
    found = [n for n in near if n >= least and (n <= most or not rising)]
    return sorted(found) or [most if rising else request.units]


def masks_with_zeros(requests, zeros, normalizations=None, packed=False):
    """Computes masks with `zeros` pruned units over all `requests`.

    While the number rises, pruned units stay pruned; while it falls, kept units stay kept. Masks
    therefore never flicker, with any criterion.

    Args:
        requests: List of `MaskRequest`.
        zeros: Number of pruned units over all requests.
        normalizations: One for each request: how to make its scores comparable with the others',
            see `tfprune.masks.normalized`.
        packed: Whether to return `Bits`, which take an eighth of the memory.

    Returns:
        `(kept, threshold)`: a flat bool array over the units of each request, and the highest
        pooled score among the newly pruned units, or `None` if nothing changed.
    """
    now = sum(request.zeros_now for request in requests)
    if zeros == now:
        for request in requests:
            request.check_finite()
        return [(Bits.of if packed else np.array)(request.alive) for request in requests], None
    rising = zeros > now
    scores = [request.scores(rising) for request in requests]
    if normalizations is not None and rising:
        # While the sparsity falls, the candidates are pruned units, which are all zero.
        scores = [normalized(*pair) for pair in zip(scores, normalizations, strict=True)]
    chosen, threshold = keep_bits(scores, zeros - now if rising else zeros)
    if rising:
        for kept, request in zip(chosen, requests, strict=True):
            if request.zeros_now:
                kept.keep(request.alive)
    return chosen if packed else [np.asarray(kept) for kept in chosen], float(threshold)
