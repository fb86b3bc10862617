"""int32 keys in the order of scores; units that cannot be chosen have the highest ones."""

import functools

from keras import ops

from tfprune import _keras
from tfprune.patterns.pooling import any_order

LEAST, MOST = -(2**31), 2**31 - 1
# Finite scores have lower keys than both. A unit that is kept whatever its score:
KEPT = MOST - 1
# A unit that is pruned, and stays so while units go:
GONE = MOST


@functools.cache
def keys_function(score, rising, pattern=None, axes=None):
    """Returns a compiled function `(values, masks) -> (stack of keys, whether each is finite)`.

    Args:
        score: Elementwise function of tensors.
        rising: Whether units that are kept now are to choose from, otherwise the pruned ones.
        pattern: The `Pattern`, or `None` for single weights.
        axes: The `KernelAxes` that the pattern takes.
    """
    if pattern is None:
        return _keras.compiled(lambda values, masks: _of_weights(score, rising, values, masks))
    of_all = scored(score)
    keyed = {
        spread: _keras.compiled(functools.partial(_of_units, rising, pattern, axes, spread))
        for spread in (False, True)
    }

    def run(values, masks):
        scores, finite = of_all(values)
        return keyed[_keras.is_spread(values[0][0])](scores, masks), finite

    return run


def _of_weights(score, rising, values, masks):
    # One computation for the whole stack compiles faster than one for each weight.
    arrays = [ops.cast(_stacked(part), "float32") for part in zip(*values, strict=True)]
    scores = score(*arrays)
    rest = tuple(range(1, len(scores.shape)))
    finite = ops.all(ops.logical_and(ops.isfinite(scores), ops.isfinite(arrays[0])), axis=rest)
    keys = ordered(scores)
    if masks:
        alive = _stacked(masks)
        keys = _with_candidates(keys, alive, rising)
    return keys, finite


@functools.cache
def scored(score):
    """Returns a compiled function: from the values of weights, scores and whether each is finite.

    Pools are compiled apart from it: a product in a score and the sum of a pool would become one
    operation, which rounds once where the host rounds twice.
    """
    return _keras.compiled(functools.partial(_scored, score))


def _scored(score, values):
    arrays = [[ops.cast(array, "float32") for array in own] for own in values]
    scores = [score(*own) for own in arrays]
    finite = [
        ops.all(ops.logical_and(ops.isfinite(one), ops.isfinite(own[0])))
        for one, own in zip(scores, arrays, strict=True)
    ]
    return scores, ops.stack(finite)


def _of_units(rising, pattern, axes, spread, scores, masks):
    keys = []
    for position, own in enumerate(scores):
        with any_order(spread):
            found = ordered(pattern.pool(own, axes))
        pruned = ops.logical_not(masks[position]) if masks else None
        if rising:
            # Whole numbers, because some devices take the smallest floats for zeros.
            may_go = pattern.eligible(found, pruned, axes)
            if may_go is not None:
                found = ops.where(may_go, found, ops.full_like(found, KEPT))
        if masks:
            found = _with_candidates(found, pattern.collapse(masks[position], axes), rising)
        keys.append(found)
    return _stacked(keys)


def _stacked(tensors):
    # Of one tensor, this is no copy.
    return ops.expand_dims(tensors[0], 0) if len(tensors) == 1 else ops.stack(tensors)


def _with_candidates(keys, alive, rising):
    if rising:
        return ops.where(alive, keys, ops.full_like(keys, GONE))
    return ops.where(alive, ops.full_like(keys, KEPT), keys)


def ordered(scores):
    """int32 keys in the order of float32 scores; 0 and -0 have the same."""
    bits = _keras.as_bits(scores)
    bits = ops.where(bits == LEAST, ops.zeros_like(bits), bits)
    return ops.where(bits >= 0, bits, ops.bitwise_xor(bits, ops.full_like(bits, MOST)))
