"""Scores and masks pooled into units on the device, and units expanded again."""

import functools
from dataclasses import dataclass

from keras import ops

from tfprune import _keras, patterns
from tfprune.masks.device.keys import scored
from tfprune.patterns.pooling import any_order, pooled


@dataclass(frozen=True)
class OfUnits:
    """Pools scores into the units of a pattern."""

    pattern: patterns.Pattern
    axes: patterns.KernelAxes

    def __call__(self, scores):
        return self.pattern.pool(scores, self.axes)


@dataclass(frozen=True)
class AlongAxis:
    """Pools scores into one for each position of an axis."""

    how: str
    axis: int
    ndim: int

    def __call__(self, scores):
        others = tuple(axis for axis in range(self.ndim) if axis != self.axis)
        return pooled(scores, others, self.how, keepdims=False)


def scores(values, score, pool):
    """Returns the pooled scores of one weight, and whether the weight and its scores are finite.

    Args:
        values: Tuple of tensors, the weight first.
        score: Elementwise function of tensors, hashable.
        pool: Function from scores to pooled scores, hashable.
    """
    (own,), (finite,) = scored(score)([values])
    return _pooling(pool, _keras.is_spread(values[0]))(own), finite


@functools.cache
def _pooling(pool, spread):
    def run(own):
        with any_order(spread):
            return pool(own)

    return _keras.compiled(run)


@functools.cache
def alive_function(pattern, axes, counted):
    """Returns a compiled function from a mask to the units that it keeps, or to their number."""

    def run(mask):
        alive = pattern.collapse(mask, axes)
        return ops.sum(alive) if counted else alive

    return _keras.compiled(run)


@functools.cache
def expansion(pattern, axes, shape):
    """Returns a compiled function from units, and a list of a mask that lies as the result is to.

    The list is empty if there is none.
    """

    def run(units, like):
        spread = pattern.expand(ops.convert_to_tensor(units), shape, axes)
        return ops.logical_or(spread, ops.zeros_like(like[0])) if like else spread

    return _keras.compiled(run)
