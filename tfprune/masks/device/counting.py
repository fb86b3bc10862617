"""Passes over keys: they count, compare and mark, each compiled separately.

A stack of keys holds weights of equal shape along its first axis.
"""

import functools
import math

from keras import ops

from tfprune import _keras
from tfprune.masks.device.keys import GONE, LEAST, MOST

# Counts are added up in two numbers, because together they may exceed an int32.
LIMB = 16


@functools.cache
def compiled(function):
    return _keras.compiled(function)


def find(keys, groups, limbs):
    """Returns the threshold of each group; for each weight, the counts below and up to it.

    Args:
        keys: List of stacks of keys.
        groups: List of int32 vectors: the group of each weight of a stack.
        limbs: int32 matrix: the upper and lower bits of how many units are to go in each group.
    """
    high_wanted, low_wanted = ops.unstack(ops.convert_to_tensor(limbs, "int32"))
    group = ops.concatenate([ops.convert_to_tensor(item, "int32") for item in groups])
    number, weights = int(high_wanted.shape[0]), int(group.shape[0])

    def step(turn, state):
        # The last two turns count, below the threshold and up to it. A loop is compiled once.
        low, high, _, last = state
        below = ops.where(low > LEAST, low - 1, low)
        border = ops.where(turn < 32, _middle(low, high), ops.where(turn == 32, below, low))
        counts = _counts_up_to(keys, ops.take(border, group))
        enough = at_least(counts, group, number, high_wanted, low_wanted)
        searching = ops.less(turn, 32)
        to_low = ops.where(ops.logical_and(searching, ops.logical_not(enough)), border + 1, low)
        to_high = ops.where(ops.logical_and(searching, enough), border, high)
        return to_low, to_high, last, counts

    nothing = ops.zeros((weights,), "int32")
    low = ops.full((number,), LEAST, "int32")
    high = ops.full((number,), MOST, "int32")
    threshold, _, below, up_to = ops.fori_loop(0, 34, step, (low, high, nothing, nothing))
    return threshold, below, up_to


def _middle(low, high):
    # The sum of both may exceed an int32.
    half = ops.right_shift(ops.bitwise_xor(low, high), 1)
    return ops.add(ops.bitwise_and(low, high), half)


def _counts_up_to(keys, borders):
    """For each weight, how many keys are not above its border."""
    found, start = [], 0
    for stack in keys:
        number, axes = int(stack.shape[0]), len(stack.shape)
        own = ops.reshape(borders[start : start + number], (number,) + (1,) * (axes - 1))
        counts = ops.sum(ops.less_equal(stack, own), axis=tuple(range(1, axes)))
        found.append(ops.cast(counts, "int32"))
        start += number
    return ops.concatenate(found)


def at_least(counts, group, number, high_wanted, low_wanted):
    """Whether the counts of each group together reach the wanted number, in two limbs."""
    low = ops.segment_sum(ops.bitwise_and(counts, (1 << LIMB) - 1), group, number)
    high = ops.segment_sum(ops.right_shift(counts, LIMB), group, number)
    high = high + ops.right_shift(low, LIMB)
    low = ops.bitwise_and(low, (1 << LIMB) - 1)
    equal = ops.logical_and(high == high_wanted, low >= low_wanted)
    return ops.logical_or(high > high_wanted, equal)


def cut(keys, thresholds, staying):
    """The position in each weight of a stack before which `staying` units are at the threshold."""
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


def mark(keys, thresholds, cuts):
    """Returns which units of a stack are kept: those above the threshold, or at it and early."""
    shape = (int(keys.shape[0]),) + (1,) * (len(keys.shape) - 1)
    at = ops.reshape(ops.convert_to_tensor(thresholds, "int32"), shape)
    before = _positions(keys.shape) < ops.reshape(ops.convert_to_tensor(cuts, "int32"), shape)
    kept = ops.logical_or(keys > at, ops.logical_and(ops.equal(keys, at), before))
    return ops.logical_and(kept, ops.not_equal(keys, GONE))


def split(stack):
    """Lists the weights of a stack."""
    return [stack[number] for number in range(int(stack.shape[0]))]


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
