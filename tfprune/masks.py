"""The mask kernel: scores + number of zeros + pattern -> mask.

One function, `keep_masks`, finds the lowest scores among any number of arrays and marks the
others. Local and global scope, blocks, filters and N:M all go through it. It never sorts: a small
sample brackets the score it looks for, one pass over memory counts what lies below the bracket
and collects the little that lies inside, and a second pass writes the masks. Both passes go
piece by piece through the cache, so the extra memory is small whatever the size.
"""

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from fractions import Fraction

import numpy as np

from tfprune import _validation as check
from tfprune import criteria, patterns

_PIECE = 1 << 17
_SAMPLE = 1 << 14
# Below this a partial sort of everything is quicker than bracketing.
_SMALL = 1 << 16
# A bracket of so many standard deviations of the sample misses about once in 15,000 times.
_DEVIATIONS = 4.0


def kept_count(units, sparsity):
    """Returns how many of `units` stay at `sparsity`: at least one.

    It is `max(1, round(units * (1 - sparsity)))` in exact arithmetic, halves to even, with the
    sparsity read as the shortest decimal that gives the same float32.

    Args:
        units: Number of units, at least 1.
        sparsity: Fraction of zeros, in [0, 1).

    Returns:
        An `int`.

    Example:

    >>> tfprune.masks.kept_count(10, np.float32(0.9))
    1
    """
    exact = Fraction(str(np.float32(sparsity)))
    return max(1, round(units * (1 - exact)))


@dataclass
class Scores:
    """The scores of the units of one weight, read piece by piece.

    Args:
        values: One-dimensional array of what is scored, or of the scores themselves.
        score: Function from a piece of `values` to its scores; it returns a new array.
        excluded: Bool array of `values`' shape: units that are not to choose from; or `None`.
        name: What an error message calls the weight.
    """

    values: np.ndarray
    score: Callable | None = None
    excluded: np.ndarray | None = None
    name: str = "the weight"
    size: int = field(init=False)

    def __post_init__(self):
        self.size = self.values.size

    def read(self, index, checked=False):
        """Returns the scores at `index` (a slice or positions), excluded ones as infinity.

        With `checked`, raises if a weight or a score is not finite.
        """
        scores = self._score(index, checked)
        if self.excluded is None:
            return scores
        return np.where(self.excluded[index], scores.dtype.type(np.inf), scores)

    def scan(self, part, low, high):
        """Returns how many scores are at most `low`, and those strictly between the two.

        Raises if a weight or a score is not finite.
        """
        scores = self._score(part, checked=True)
        above = scores > low
        inside = above & (scores < high)
        if self.excluded is not None:
            # Joining bits is eight times quicker here than writing infinity into the scores.
            np.logical_or(above, self.excluded[part], out=above)
            np.greater(inside, self.excluded[part], out=inside)
        return scores.size - np.count_nonzero(above), scores[inside]

    def mark_above(self, part, threshold, out):
        """Writes into `out` which scores are above the threshold or excluded; counts them."""
        np.greater(self._score(part), threshold, out=out)
        if self.excluded is not None:
            np.logical_or(out, self.excluded[part], out=out)
        return np.count_nonzero(out)

    def _score(self, index, checked=False):
        values = _as_comparable(self.values[index])
        scores = values if self.score is None else self.score(values)
        if checked and not np.isfinite(scores).all():
            raise_not_finite(self.name)
        return scores


def raise_not_finite(name):
    """Raises the error for NaN or infinity among weights or scores."""
    raise ValueError(
        check.message(
            f"finite weights and scores in {name}",
            "NaN or infinity",
            "The masks were left as they were. Lower the learning rate or clip the gradients, "
            "and go on from the last good checkpoint.",
        )
    )


def _as_comparable(array):
    """16-bit floats become float32, which holds each of them exactly."""
    if array.dtype == np.float32 or array.dtype == np.float64:
        return array
    if array.dtype.name == "bfloat16":
        # Its bits are the upper half of a float32's.
        wide = array.view(np.uint16).astype(np.uint32)
        wide <<= 16
        return wide.view(np.float32)
    return array.astype(np.float32)


def keep_masks(scores, zeros):
    """Marks all but the `zeros` lowest scores among all the arrays together.

    Of equal scores, those further back (in a later array, or later in one) go first, so that the
    count is exact whatever the scores are.

    Args:
        scores: List of `Scores`, or of one-dimensional float arrays.
        zeros: How many to leave unmarked. Excluded scores stay marked.

    Returns:
        `(masks, threshold)`: a bool array for each of `scores`, True = keep, and the highest
        score that was left unmarked (`-inf` if none was).

    Raises:
        ValueError: If a score is not finite, or if there are fewer scores than `zeros`.

    Example:

    >>> masks, threshold = tfprune.masks.keep_masks([np.array([3.0, 1.0, 2.0])], 2)
    >>> masks[0], float(threshold)
    (array([ True, False, False]), 2.0)
    """
    scores = [item if isinstance(item, Scores) else Scores(np.asarray(item)) for item in scores]
    total = sum(item.size for item in scores)
    if not 0 <= zeros <= total:
        raise ValueError(
            check.message(f"`zeros` from 0 to {total}", f"zeros={zeros}", "Ask for fewer zeros.")
        )
    with Workers(total) as workers:
        pieces = _pieces(scores)
        if zeros == 0:
            workers.map(lambda piece: piece[0].read(piece[1], checked=True), pieces)
            return [np.ones(item.size, dtype=bool) for item in scores], -np.inf
        if total <= _SMALL:
            everything = np.concatenate([item.read(slice(None), checked=True) for item in scores])
            threshold = np.partition(everything, zeros - 1)[zeros - 1]
        else:
            threshold = _kth_lowest(scores, pieces, zeros, workers)
        if np.isposinf(threshold):
            raise ValueError(
                check.message(
                    "at least `zeros` units to choose from", f"zeros={zeros}", "Ask for fewer."
                )
            )
        masks = [np.empty(item.size, dtype=bool) for item in scores]
        target = dict(zip(map(id, scores), masks, strict=True))

        def write(piece):
            item, part = piece
            return item.mark_above(part, threshold, target[id(item)][part])

        above = sum(workers.map(write, pieces))
        _keep_first_equal(pieces, target, threshold, total - zeros - above)
        return masks, threshold


def _pieces(scores):
    return [
        (item, slice(start, min(start + _PIECE, item.size)))
        for item in scores
        for start in range(0, item.size, _PIECE)
    ]


def _kth_lowest(scores, pieces, k, workers):
    """Returns the k-th lowest score (k from 1), reading each score once in all but rare cases."""
    low, high = _bracket(scores, k)

    found = workers.map(lambda piece: piece[0].scan(piece[1], low, high), pieces)
    at_most_low = sum(count for count, _ in found)
    inside = np.concatenate([values for _, values in found])
    if at_most_low < k <= at_most_low + inside.size:
        return np.partition(inside, k - at_most_low - 1)[k - at_most_low - 1]

    def count(condition):
        counts = workers.map(
            lambda piece: np.count_nonzero(condition(piece[0].read(piece[1]))), pieces
        )
        return sum(counts)

    # The k-th is one of the two ends where many scores are equal, or the bracket missed it.
    if k <= at_most_low and k > count(lambda values: values < low):
        return low
    if k > at_most_low and k <= count(lambda values: values <= high):
        return high
    everything = np.concatenate([item.read(part) for item, part in pieces])
    return np.partition(everything, k - 1)[k - 1]


def _bracket(scores, k):
    """Two scores that the k-th lowest very probably lies between, from a sample."""
    total = sum(item.size for item in scores)
    random = np.random.default_rng(total)
    wanted = min(_SAMPLE, total // 128)
    drawn = []
    for item in scores:
        number = -(-wanted * item.size // total)
        drawn.append(item.read(random.integers(0, item.size, number)))
    sample = np.sort(np.concatenate(drawn))
    share = k / total
    margin = _DEVIATIONS * (share * (1 - share) / sample.size) ** 0.5 + 2 / sample.size
    first = int((share - margin) * sample.size)
    last = int((share + margin) * sample.size)
    low = sample[first] if first >= 0 else sample.dtype.type(-np.inf)
    high = sample[last] if last < sample.size else sample.dtype.type(np.inf)
    return low, high


def _keep_first_equal(pieces, target, threshold, missing):
    """Marks the first `missing` of the scores that equal the threshold."""
    for item, part in pieces:
        if missing <= 0:
            return
        equal = np.flatnonzero(item.read(part) == threshold)[:missing]
        target[id(item)][part][equal] = True
        missing -= equal.size


class Workers:
    """Runs a function over many things, in threads where there is enough to do.

    NumPy lets other threads run while it works on a piece.

    Args:
        total: Number of scores in all the things together.
    """

    def __init__(self, total):
        affinity = getattr(os, "sched_getaffinity", None)
        cores = len(affinity(0)) if affinity else os.cpu_count() or 1
        self._threads = min(cores, 8, total // (8 * _PIECE))
        self._pool = ThreadPoolExecutor(self._threads) if self._threads > 1 else None

    def __enter__(self):
        return self

    def __exit__(self, *error):
        if self._pool is not None:
            self._pool.shutdown()

    def map(self, function, things):
        """Returns the list of results, in order."""
        if self._pool is None or len(things) < 2:
            return [function(thing) for thing in things]
        # Neighbours go to one thread: fewer hand-overs, and memory read in order.
        share = -(-len(things) // self._threads)
        runs = [things[start : start + share] for start in range(0, len(things), share)]
        done = self._pool.map(lambda run: [function(thing) for thing in run], runs)
        return [result for run in done for result in run]


@dataclass
class MaskRequest:
    """One weight that is to get a mask.

    Args:
        weight: Float array.
        pattern: A `tfprune.patterns.Pattern`.
        criterion: A `tfprune.criteria.Criterion`.
        axes: `KernelAxes` of the weight.
        mask: The mask that the weight has now, or `None`.
        name: What an error message calls the weight.
    """

    weight: np.ndarray
    pattern: patterns.Pattern
    criterion: criteria.Criterion
    axes: patterns.KernelAxes
    mask: np.ndarray | None = None
    name: str = "the weight"

    def __post_init__(self):
        self.pattern.check(self.weight.shape, self.axes, self.name)
        self.units = self.pattern.unit_count(self.weight.shape, self.axes)
        self.most_zeros = self.pattern.most_zeros(self.weight.shape, self.axes)
        if self.mask is None:
            self.pruned = np.zeros(self.units, dtype=bool)
        else:
            self.pruned = ~self.pattern.collapse(self.mask, self.axes).reshape(-1)
        self.zeros_now = int(np.count_nonzero(self.pruned))

    def scores(self, rising):
        """The scores of the units that may be chosen: unpruned if `rising`, else pruned ones."""
        weight, pruned = self.weight, self.pruned
        excluded = pruned if rising else ~pruned
        if self.criterion.elementwise and type(self.pattern) is patterns.Unstructured:
            some = excluded if self.zeros_now or not rising else None
            return Scores(_flat(weight), self.criterion, some, self.name)
        everything = self.criterion(_as_comparable(weight))
        if not np.isfinite(everything).all() or not np.isfinite(_as_comparable(weight)).all():
            raise_not_finite(self.name)
        if rising:
            may_go = self.pattern.eligible(everything, ~self._mask_or_ones(), self.axes)
            if may_go is not None:
                excluded = excluded | ~may_go.reshape(-1)
        pooled = self.pattern.pool(everything, self.axes)
        return Scores(_flat(pooled), None, excluded, self.name)

    def _mask_or_ones(self):
        return np.ones(self.weight.shape, dtype=bool) if self.mask is None else self.mask

    def spread(self, kept):
        """Spreads a flat mask over units over the weight."""
        return self.pattern.expand(kept, self.weight.shape, self.axes)


def _flat(array):
    return np.ascontiguousarray(array).reshape(-1)


def masks_with_zeros(requests, zeros):
    """Computes masks with `zeros` pruned units in all of `requests` together.

    Units that are pruned stay pruned while the number rises; where it falls, none is pruned that
    was not before. So masks never flicker, whatever the criterion.

    Args:
        requests: List of `MaskRequest`.
        zeros: Pruned units in all of them together.

    Returns:
        `(kept, threshold)`: a flat bool array over the units of each request, and the highest
        pooled score that went, or `None` where nothing changed.
    """
    now = sum(request.zeros_now for request in requests)
    if zeros == now:
        for request in requests:
            if not np.isfinite(_as_comparable(_flat(request.weight))).all():
                raise_not_finite(request.name)
        return [~request.pruned for request in requests], None
    rising = zeros > now
    chosen, threshold = keep_masks(
        [request.scores(rising) for request in requests], zeros - now if rising else zeros
    )
    if rising:
        for kept, request in zip(chosen, requests, strict=True):
            if request.zeros_now:
                np.logical_and(kept, ~request.pruned, out=kept)
    return chosen, float(threshold)


def compute_mask(weight, sparsity, *, pattern=None, criterion=None, axes=None, mask=None):
    """Computes the mask of one weight.

    Args:
        weight: Float array of any shape: float16, bfloat16, float32 or float64.
        sparsity: Fraction of units that are pruned, in [0, 1).
        pattern: A pattern or the name of one; single weights by default.
        criterion: A criterion or the name of one; the magnitude by default.
        axes: `tfprune.patterns.KernelAxes`; by default the last axis counts outputs and the one
            before it inputs, as in Dense and Conv kernels.
        mask: The mask so far. What it pruned stays pruned unless the sparsity falls.

    Returns:
        A bool array of the shape of `weight`: True = keep.

    Raises:
        ValueError: If the sparsity is out of range, the pattern does not fit the weight or
            cannot have that sparsity, or a weight is not finite.

    Example:

    >>> tfprune.compute_mask(np.array([[0.1, -3.0], [2.0, 0.5]]), 0.5)
    array([[False,  True],
           [ True, False]])
    """
    sparsity = check.sparsity("sparsity", sparsity)
    weight = np.asarray(weight)
    request = MaskRequest(
        weight if weight.ndim else weight.reshape(1),
        patterns.get(pattern),
        criteria.get(criterion),
        patterns.KernelAxes() if axes is None else axes,
        None if mask is None else np.asarray(mask, dtype=bool),
    )
    if weight.size == 0:
        return np.ones(weight.shape, dtype=bool)
    zeros = request.units - kept_count(request.units, sparsity)
    if zeros > request.most_zeros:
        most = request.most_zeros / request.units
        raise ValueError(
            check.message(
                f"`sparsity` to be at most {most:g}, all that {request.pattern} can give here",
                f"sparsity={sparsity:g}",
                "Lower the sparsity or choose another pattern.",
            )
        )
    (kept,), _ = masks_with_zeros([request], zeros)
    return request.spread(kept).reshape(weight.shape)
