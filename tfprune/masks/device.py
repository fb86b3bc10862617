"""The mask kernel where the weights are: finds the lowest scores by counting, without a sort.

It makes the same choice as `keep_masks`. Scores become int32 keys in the same order, and the k-th
lowest key is found by bisection: 32 times, all keys up to a middle one are counted. Of equal keys
the first ones are kept, up to a position that is bisected too. Nothing is sorted, scattered or
flattened, so under a sharded layout devices exchange single numbers, and no weights. The host reads
counts and thresholds.
"""

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from keras import ops

from tfprune import _keras
from tfprune._base import validation as check
from tfprune.masks.selection import raise_not_finite

_LEAST, _MOST = -(2**31), 2**31 - 1
# Larger arrays are not stacked with others of their shape: a stack is a copy.
_ALONE = 1 << 24
# Counts are added up in two numbers, because together they may exceed an int32.
_LIMB = 16


@dataclass
class DeviceScores:
    """The scores of the units of one weight, as tensors of the backend.

    Args:
        values: Tuple of float tensors of one shape, the weight first.
        score: Elementwise function from `values` to scores, hashable, on operators alone.
        mask: bool tensor, True = keep, or `None` if nothing is pruned.
        rising: Whether units that are kept now are to choose from, otherwise the pruned ones.
        name: Name of the weight in error messages.
        zeros_now: Number of units that are pruned now.
    """

    values: tuple
    score: Callable
    mask: Any = None
    rising: bool = True
    name: str = "the weight"
    zeros_now: int = 0

    @property
    def shape(self):
        return tuple(int(n) for n in self.values[0].shape)

    @property
    def size(self):
        return math.prod(self.shape)


@dataclass
class DeviceMask:
    """A mask on the device.

    Attributes:
        tensor: bool tensor of the weight's shape; `None` for the mask that there is already.
        size: Number of units.
        zeros: Number of pruned units.
    """

    tensor: Any
    size: int
    zeros: int

    def count(self):
        """Returns the number of units that are kept."""
        return self.size - self.zeros


def keep_device_masks(groups):
    """Marks all but the lowest scores of each group, as `keep_masks` does on the host.

    Args:
        groups: List of `(list of DeviceScores, zeros)`: how many units of all of them together
            are left unmarked, in addition to those that are pruned already if `rising`.

    Returns:
        List of `(list of DeviceMask, threshold)`.

    Raises:
        ValueError: If a score or a weight is not finite, or a group has too few units; the masks
            are not changed then.
    """
    items = [item for scores, _ in groups for item in scores]
    group_of = np.repeat(np.arange(len(groups)), [len(scores) for scores, _ in groups])
    wanted = np.array([zeros for _, zeros in groups], "int64")
    stacks = [_Stack(items, places) for places in _stacks(items).values()]
    for stack in stacks:
        stack.make_keys()
    keys = [stack.keys for stack in stacks]
    groups_of = [group_of[stack.places].astype("int32") for stack in stacks]
    thresholds, below, equal = _counted(keys, groups_of, wanted)
    for stack in stacks:
        stack.check_finite()
    keys_at = thresholds[group_of]
    order = np.concatenate([stack.places for stack in stacks])
    below, equal = (_in_order(counts, order) for counts in (below, equal))
    going = np.zeros(len(items), "int64")
    for number, zeros in enumerate(wanted):
        if thresholds[number] == _MOST:
            raise ValueError(
                check.message(
                    "at least `zeros` units to choose from", f"zeros={zeros}", "Ask for fewer."
                )
            )
        own = np.flatnonzero(group_of == number)
        # Of the units at the threshold, the last ones go.
        left = zeros - below[own].sum()
        for place in own[::-1]:
            going[place] = min(left, equal[place])
            left -= going[place]
    masks: list = [None] * len(items)
    for stack in stacks:
        own = stack.places
        for place, tensor in zip(
            own, stack.mark(keys_at[own], equal[own] - going[own], equal[own]), strict=True
        ):
            item = items[place]
            zeros = int(below[place] + going[place]) + (item.zeros_now if item.rising else 0)
            masks[place] = DeviceMask(tensor, item.size, zeros)
    found = iter(masks)
    return [
        ([next(found) for _ in scores], _score_of(threshold) if zeros else -math.inf)
        for (scores, zeros), threshold in zip(groups, thresholds, strict=True)
    ]


def check_device_scores(items):
    """Raises ValueError unless all scores and weights are finite."""
    for places in _stacks(items).values():
        stack = _Stack(items, places)
        stack.make_keys()
        stack.check_finite()


class _Stack:
    """Weights of equal shape, which one computation scores, counts and marks together."""

    def __init__(self, items, places):
        self.places = np.array(places)
        self._items = [items[place] for place in places]
        self.keys: Any = None
        self._finite: Any = None

    def make_keys(self):
        first = self._items[0]
        masks = [] if first.mask is None else [item.mask for item in self._items]
        run = _keys_function(first.score, first.rising)
        self.keys, self._finite = run([item.values for item in self._items], masks)

    def check_finite(self):
        for item, finite in zip(self._items, _keras.on_host(self._finite), strict=True):
            if not finite:
                raise_not_finite(item.name)

    def mark(self, thresholds, staying, equal):
        """Returns one mask each; of the units at the threshold, the first `staying` are kept."""
        size = self._items[0].size
        # None of them, or all.
        cuts = np.where(staying > 0, size, 0).astype("int32")
        at = thresholds.astype("int32")
        partly = (staying > 0) & (staying < equal)
        if partly.any():
            found = _keras.on_host(_compiled(_cuts)(self.keys, at, staying.astype("int32")))
            cuts = np.where(partly, found, cuts).astype("int32")
        first = self._items[0]
        masks = [item.mask for item in self._items] if first.rising and first.zeros_now else []
        masks = masks if all(mask is not None for mask in masks) else []
        return _compiled(_marked)(self.keys, at, cuts, masks)


def _stacks(items):
    """`{what items have in common: their places}`."""
    found: dict = {}
    for place, item in enumerate(items):
        alone = place if item.size > _ALONE else None
        masked = item.mask is not None
        kinds = tuple(str(value.dtype) for value in item.values)
        layout = _keras.layout_of(item.values[0])
        same = (item.shape, kinds, layout, item.score, masked, item.rising, bool(item.zeros_now))
        found.setdefault((same, alone), []).append(place)
    return found


def _in_order(counts, order):
    found = np.empty(len(order), "int64")
    found[order] = counts
    return found


def _score_of(key):
    """Returns the float32 score of an ordered key."""
    bits = np.int32(key) if key >= 0 else np.int32(key) ^ np.int32(_MOST)
    return float(bits.view("float32"))


# -- Compiled computations -------------------------------------------------------------------------


@functools.cache
def _compiled(function):
    return _keras.compiled(function)


@functools.cache
def _keys_function(score, rising):
    def run(values, masks):
        keys, finite = [], []
        for position, arrays in enumerate(values):
            arrays = [ops.cast(array, "float32") for array in arrays]
            scores = score(*arrays)
            finite.append(ops.all(ops.logical_and(ops.isfinite(scores), ops.isfinite(arrays[0]))))
            ordered = _ordered(scores)
            if masks:
                candidates = masks[position] if rising else ops.logical_not(masks[position])
                ordered = ops.where(candidates, ordered, ops.full_like(ordered, _MOST))
            keys.append(ordered)
        return ops.stack(keys), ops.stack(finite)

    return _keras.compiled(run)


def _ordered(scores):
    """int32 keys in the order of float32 scores; 0 and -0 have the same."""
    bits = _keras.as_bits(scores)
    bits = ops.where(bits == _LEAST, ops.zeros_like(bits), bits)
    return ops.where(bits >= 0, bits, ops.bitwise_xor(bits, ops.full_like(bits, _MOST)))


def _counted(keys, groups, wanted):
    """Returns the threshold of each group; for each weight, the counts below and at it."""
    limbs = np.stack([wanted >> _LIMB, wanted & ((1 << _LIMB) - 1)]).astype("int32")
    found = _compiled(_found)(keys, groups, limbs)
    thresholds, below, equal = (_keras.on_host(item) for item in found)
    return thresholds.astype("int64"), below.astype("int64"), equal.astype("int64")


def _found(keys, groups, limbs):
    high_wanted, low_wanted = ops.unstack(ops.convert_to_tensor(limbs, "int32"))
    group = ops.concatenate([ops.convert_to_tensor(item, "int32") for item in groups])
    number = int(high_wanted.shape[0])

    def middle(low, high):
        # The sum of both may exceed an int32.
        half = ops.right_shift(ops.bitwise_xor(low, high), 1)
        return ops.add(ops.bitwise_and(low, high), half)

    def at_most(border):
        of_each = ops.take(border, group)
        return _counts(keys, of_each, ops.less_equal)

    def halve(_, borders):
        low, high = borders
        between = middle(low, high)
        enough = _at_least(at_most(between), group, number, high_wanted, low_wanted)
        return ops.where(enough, low, between + 1), ops.where(enough, between, high)

    low = ops.full((number,), _LEAST, "int32")
    high = ops.full((number,), _MOST, "int32")
    threshold, _ = ops.fori_loop(0, 32, halve, (low, high))
    of_each = ops.take(threshold, group)
    return (
        threshold,
        _counts(keys, of_each, ops.less),
        _counts(keys, of_each, ops.equal),
    )


def _counts(keys, borders, compare):
    """For each weight, how many keys compare with its border."""
    found, start = [], 0
    for stack in keys:
        number, axes = int(stack.shape[0]), len(stack.shape)
        own = ops.reshape(borders[start : start + number], (number,) + (1,) * (axes - 1))
        counts = ops.sum(compare(stack, own), axis=tuple(range(1, axes)))
        found.append(ops.cast(counts, "int32"))
        start += number
    return ops.concatenate(found)


def _at_least(counts, group, number, high_wanted, low_wanted):
    """Whether the counts of each group together reach the wanted number, in two limbs."""
    low = ops.segment_sum(ops.bitwise_and(counts, (1 << _LIMB) - 1), group, number)
    high = ops.segment_sum(ops.right_shift(counts, _LIMB), group, number)
    high = high + ops.right_shift(low, _LIMB)
    low = ops.bitwise_and(low, (1 << _LIMB) - 1)
    equal = ops.logical_and(high == high_wanted, low >= low_wanted)
    return ops.logical_or(high > high_wanted, equal)


def _cuts(keys, thresholds, staying):
    """The position in each weight before which `staying` units are at the threshold."""
    number = int(keys.shape[0])
    shape = (number,) + (1,) * (len(keys.shape) - 1)
    thresholds, staying = (ops.convert_to_tensor(item, "int32") for item in (thresholds, staying))
    equal = ops.equal(keys, ops.reshape(thresholds, shape))
    positions = _positions(keys.shape)

    def halve(_, borders):
        low, high = borders
        between = low + ops.right_shift(high - low, 1)
        before = ops.logical_and(equal, positions < ops.reshape(between, shape))
        counts = ops.sum(before, axis=tuple(range(1, len(shape))))
        enough = ops.cast(counts, "int32") >= staying
        return ops.where(enough, low, between + 1), ops.where(enough, between, high)

    size = math.prod(int(n) for n in keys.shape[1:])
    low, high = ops.zeros((number,), "int32"), ops.full((number,), size, "int32")
    found, _ = ops.fori_loop(0, size.bit_length(), halve, (low, high))
    return found


def _positions(shape):
    """The position of each unit in its own weight, in C order, for a stack of weights."""
    sizes = [int(n) for n in shape]
    total = ops.zeros((1,) * len(sizes), "int32")
    for axis in range(1, len(sizes)):
        along = [1] * len(sizes)
        along[axis] = sizes[axis]
        steps = ops.arange(sizes[axis], dtype="int32") * math.prod(sizes[axis + 1 :])
        total = total + ops.reshape(steps, along)
    return total


def _marked(keys, thresholds, cuts, masks):
    shape = (int(keys.shape[0]),) + (1,) * (len(keys.shape) - 1)
    at = ops.reshape(ops.convert_to_tensor(thresholds, "int32"), shape)
    before = _positions(keys.shape) < ops.reshape(ops.convert_to_tensor(cuts, "int32"), shape)
    kept = ops.logical_or(keys > at, ops.logical_and(ops.equal(keys, at), before))
    found = [kept[number] for number in range(shape[0])]
    if not masks:
        return found
    return [ops.logical_and(one, mask) for one, mask in zip(found, masks, strict=True)]
