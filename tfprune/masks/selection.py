"""The mask kernel: finds the lowest scores among any number of arrays without a full sort.

Local and global scope, blocks, filters and N:M all use `keep_masks`. A small sample brackets the
threshold. One pass over memory counts the scores below the bracket, writes the masks and collects
the few scores inside, which are sorted at the end. The pass works on pieces that fit the cache, so
it needs little extra memory at any size.
"""

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np

from tfprune._base import validation as check
from tfprune.masks.bits import Bits

_PIECE = 1 << 18
_SAMPLE = 1 << 14
_LARGE_SAMPLE = 1 << 18
# Below this size, a partial sort of all scores is faster than bracketing.
_SMALL = 1 << 16
# A bracket of this many standard deviations of the sample misses about once in 15,000 times.
_DEVIATIONS = 4.0
# Up to this share, the bracket has no lower end.
_FEW = 1 / 64


@dataclass
class Scores:
    """The scores of the units of one weight, read piece by piece.

    Args:
        values: One-dimensional array of weights or of scores; or a tuple of several arrays of one
            size, the weights first.
        score: Function from a piece of each of `values` to a new array of scores.
        candidates: Bool array of `values`' shape: units that can be chosen; `None` for all.
        name: Name of the weight in error messages.
    """

    values: np.ndarray | tuple
    score: Callable | None = None
    candidates: np.ndarray | None = None
    name: str = "the weight"
    size: int = field(init=False)

    def __post_init__(self):
        if not isinstance(self.values, tuple):
            self.values = (self.values,)
        self.size = self.values[0].size

    def read(self, index, checked=False):
        """Returns the scores at `index` (a slice or positions), infinite for other than candidates.

        With `checked`, raises if a weight or a score is not finite.
        """
        scores = self._score(index, checked)
        if self.candidates is None:
            return scores
        return np.where(self.candidates[index], scores, scores.dtype.type(np.inf))

    def scan(self, part, low, high):
        """Compares the scores of a piece with a bracket.

        Raises if a weight or a score is not finite.

        Returns:
            A bool array, True for scores above `low` and units that cannot be chosen, or a single
            True if `low` is -inf; and the positions and scores of the candidates strictly between
            `low` and `high`.
        """
        scores = self._score(part, checked=True)
        inside = scores < high
        if np.isneginf(low):
            if self.candidates is not None:
                np.logical_and(inside, self.candidates[part], out=inside)
            positions = np.flatnonzero(inside)
            return np.True_, positions.astype(np.uint32), scores[positions]
        above = scores > low
        np.logical_and(inside, above, out=inside)
        if self.candidates is not None:
            # Combining bits is eight times faster here than writing infinity into the scores.
            np.greater_equal(above, self.candidates[part], out=above)
            np.logical_and(inside, self.candidates[part], out=inside)
        positions = np.flatnonzero(inside)
        return above, positions.astype(np.uint32), scores[positions]

    def above(self, part, threshold):
        """Returns which scores are above the threshold, or of units that cannot be chosen."""
        above = self._score(part) > threshold
        if self.candidates is not None:
            np.greater_equal(above, self.candidates[part], out=above)
        return above

    def check_finite(self):
        """Raises if a weight or a score is not finite."""
        for start in range(0, self.size, _PIECE):
            self._score(slice(start, start + _PIECE), checked=True)

    def _score(self, index, checked=False):
        values = [as_comparable(array[index]) for array in self.values]
        scores = values[0] if self.score is None else self.score(*values)
        if checked and not np.isfinite(scores).all():
            raise_not_finite(self.name)
        # Only a score of the weight alone is sure to be non-finite when the weight is.
        if checked and len(values) > 1 and not np.isfinite(values[0]).all():
            raise_not_finite(self.name)
        return scores


def raise_not_finite(name):
    """Raises the error for NaN or infinity among weights or scores."""
    raise ValueError(
        check.message(
            f"finite weights and scores in {name}",
            "NaN or infinity",
            "The masks were not changed. Lower the learning rate or clip the gradients, "
            "and continue from the last good checkpoint.",
        )
    )


def as_comparable(array):
    """Converts 16-bit floats to float32, which represents them exactly."""
    if array.dtype == np.float32 or array.dtype == np.float64:
        return array
    if array.dtype.name == "bfloat16":
        # The bits of a bfloat16 are the upper half of a float32's.
        wide = array.view(np.uint16).astype(np.uint32)
        wide <<= 16
        return wide.view(np.float32)
    return array.astype(np.float32)


def keep_masks(scores, zeros):
    """Marks all but the `zeros` lowest scores over all the arrays.

    Of equal scores, later ones (in a later array, or later in the same array) are pruned first, so
    the count is exact for any scores.

    Args:
        scores: List of `Scores`, or of one-dimensional float arrays.
        zeros: Number of scores to leave unmarked. Excluded scores stay marked.

    Returns:
        `(masks, threshold)`: a bool array for each of `scores`, True = keep, and the highest
        unmarked score (`-inf` if there is none).

    Raises:
        ValueError: If a score is not finite, or if there are fewer scores than `zeros`.

    Example:

    >>> masks, threshold = tfprune.masks.keep_masks([np.array([3.0, 1.0, 2.0])], 2)
    >>> masks[0], float(threshold)
    (array([ True, False, False]), 2.0)
    """
    masks, threshold = keep_bits(
        [item if isinstance(item, Scores) else Scores(np.asarray(item)) for item in scores], zeros
    )
    return [np.asarray(mask) for mask in masks], threshold


def keep_bits(scores, zeros):
    """The same as `keep_masks` for a list of `Scores`, with `Bits` in place of bool arrays."""
    total = sum(item.size for item in scores)
    if not 0 <= zeros <= total:
        raise ValueError(
            check.message(f"`zeros` from 0 to {total}", f"zeros={zeros}", "Ask for fewer zeros.")
        )
    if zeros == 0:
        for item in scores:
            item.check_finite()
        return [Bits.of(np.ones(item.size, dtype=bool)) for item in scores], -np.inf
    with Workers(total) as workers:
        masks = [Bits(item.size) for item in scores]
        pieces = _pieces(scores, masks)
        if total > _SMALL:
            low, high = _bracket(scores, zeros)
            at_most_low, threshold = _mark_in_one_pass(pieces, zeros, low, high, workers)
            if threshold is not None:
                return masks, threshold
            threshold = _kth_outside(pieces, zeros, low, high, at_most_low, workers)
        else:
            everything = np.concatenate([item.read(slice(None), checked=True) for item in scores])
            threshold = np.partition(everything, zeros - 1)[zeros - 1]
        if np.isposinf(threshold):
            raise ValueError(
                check.message(
                    "at least `zeros` units to choose from", f"zeros={zeros}", "Ask for fewer."
                )
            )

        def write(piece):
            item, part, mask = piece
            above = item.above(part, threshold)
            mask.write(part, above)
            return np.count_nonzero(above)

        above = sum(workers.map(write, pieces))
        _keep_first_equal(pieces, threshold, total - zeros - above)
        return masks, threshold


def _pieces(scores, masks):
    """Lists `(scores, slice, Bits)` of all pieces."""
    return [
        (item, slice(start, min(start + _PIECE, item.size)), mask)
        for item, mask in zip(scores, masks, strict=True)
        for start in range(0, item.size, _PIECE)
    ]


def _mark_in_one_pass(pieces, k, low, high, workers):
    """Marks all but the k lowest scores (k from 1), if the k-th lies strictly inside a bracket.

    Returns:
        The number of scores up to `low`, and the k-th lowest score; `None` if it is not inside.
    """

    def scan(piece):
        item, part, mask = piece
        above, positions, values = item.scan(part, low, high)
        mask.write(part, above)
        return above.size - np.count_nonzero(above), positions, values

    found = workers.map(scan, pieces)
    at_most_low = sum(count for count, _, _ in found)
    inside = np.concatenate([values for _, _, values in found])
    rank = k - at_most_low
    if not 0 < rank <= inside.size:
        return at_most_low, None
    inside.partition(rank - 1)
    threshold = inside[rank - 1]
    # Of the scores equal to the threshold, the first ones are kept.
    staying = np.count_nonzero(inside <= threshold) - rank
    leaving = []
    for piece, (_, positions, values) in zip(pieces, found, strict=True):
        going = values <= threshold
        if staying:
            equal = np.flatnonzero(values == threshold)[:staying]
            going[equal] = False
            staying -= equal.size
        leaving.append((piece, positions, going))

    def clear(item):
        (_, part, mask), positions, going = item
        mask.clear(part, positions[going])

    workers.map(clear, leaving)
    return at_most_low, threshold


def _kth_outside(pieces, k, low, high, at_most_low, workers):
    """Returns the k-th lowest score if it is not strictly inside the bracket."""

    def count(condition):
        counts = workers.map(
            lambda piece: np.count_nonzero(condition(piece[0].read(piece[1]))), pieces
        )
        return sum(counts)

    # Either many scores are equal and it is one of the two ends, or the bracket missed it.
    if k <= at_most_low and k > count(lambda values: values < low):
        return low
    if k > at_most_low and k <= count(lambda values: values <= high):
        return high
    everything = np.concatenate([item.read(part) for item, part, _ in pieces])
    return np.partition(everything, k - 1)[k - 1]


def _bracket(scores, k):
    """Returns two scores, from a sample, that very probably enclose the k-th lowest."""
    total = sum(item.size for item in scores)
    random = np.random.default_rng(total)
    wanted = min(_LARGE_SAMPLE, max(min(_SAMPLE, total // 128), total // 512))
    drawn = []
    for item in scores:
        number = -(-wanted * item.size // total)
        drawn.append(item.read(random.integers(0, item.size, number)))
    sample = np.sort(np.concatenate(drawn))
    share = k / total
    margin = _DEVIATIONS * (share * (1 - share) / sample.size) ** 0.5 + 2 / sample.size
    first = int((share - margin) * sample.size)
    last = int((share + margin) * sample.size)
    # Few scores are read faster one by one than two ends are compared with all of them.
    low = sample[first] if first >= 0 and share > _FEW else sample.dtype.type(-np.inf)
    high = sample[last] if last < sample.size else sample.dtype.type(np.inf)
    return low, high


def _keep_first_equal(pieces, threshold, missing):
    """Marks the first `missing` of the scores that equal the threshold."""
    for item, part, mask in pieces:
        if missing <= 0:
            return
        equal = np.flatnonzero(item.read(part) == threshold)[:missing]
        kept = mask.read(part)
        kept[equal] = True
        mask.write(part, kept)
        missing -= equal.size


class Workers:
    """Runs a function over many items, in threads if there is enough work.

    NumPy releases the lock while it works on a piece, so threads run in parallel.

    Args:
        total: Total number of scores in all items.
    """

    def __init__(self, total):
        affinity = getattr(os, "sched_getaffinity", None)
        cores = len(affinity(0)) if affinity else os.cpu_count() or 1
        self._threads = min(cores, 8, total // (4 * _PIECE))
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
        # Each thread gets neighboring items: fewer hand-overs, and memory is read in order.
        share = -(-len(things) // self._threads)
        runs = [things[start : start + share] for start in range(0, len(things), share)]
        done = self._pool.map(lambda run: [function(thing) for thing in run], runs)
        return [result for run in done for result in run]
