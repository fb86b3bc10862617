"""Pooled scores that are the same bits on each device."""

import contextlib
import contextvars
import math

import numpy as np
from keras import ops

from tfprune.patterns.axes import namespace_of

_ANY_ORDER = contextvars.ContextVar("any_order", default=False)


@contextlib.contextmanager
def any_order(allowed=True):
    """Context in which tensors are summed in the order that their devices choose.

    Halves of a weight that is spread over devices would have to move from one to the other.
    """
    token = _ANY_ORDER.set(allowed)
    try:
        yield
    finally:
        _ANY_ORDER.reset(token)


def pooled(array, axes, pooling, keepdims=True):
    """Pools an array or a tensor of scores along some axes.

    Args:
        array: The scores.
        axes: Tuple of axes.
        pooling: "AVG", "MAX" or "SUM".
        keepdims: Whether the axes stay, of length 1.
    """
    if pooling == "MAX":
        return namespace_of(array).max(array, axis=tuple(axes), keepdims=keepdims)
    number = math.prod(int(array.shape[axis]) for axis in axes)
    total = summed(array, axes, keepdims)
    return total if pooling == "SUM" else over(total, number)


def summed(array, axes, keepdims=False):
    """Adds up an array or a tensor along some axes, in an order that every device keeps.

    One half is added to the other, until one row remains: each addition is rounded separately, and
    the error grows with the logarithm of the number.
    """
    names, axes = namespace_of(array), tuple(axes)
    if names is not np and _ANY_ORDER.get():
        return names.sum(array, axis=axes, keepdims=keepdims)
    for axis in axes:
        array = _halved(array, axis)
    return array if keepdims or not axes else names.squeeze(array, axes)


def over(array, number):
    """Divides by a number, or by an array of them.

    It multiplies by the reciprocal, because some compilers do so.
    """
    reciprocal = 1 / np.asarray(number, "float64")
    if namespace_of(array) is np:
        return array * reciprocal.astype(np.result_type(array.dtype, np.float16))
    return array * ops.convert_to_tensor(reciprocal, array.dtype)


def _halved(array, axis):
    names, before = namespace_of(array), (slice(None),) * axis
    size = int(array.shape[axis])
    while size > 1:
        half = size // 2
        rows = array[(*before, slice(half))] + array[(*before, slice(half, 2 * half))]
        if size % 2:
            # The last row goes to the first one.
            first = rows[(*before, slice(1))] + array[(*before, slice(2 * half, size))]
            rest = rows[(*before, slice(1, half))]
            rows = first if half == 1 else names.concatenate([first, rest], axis=axis)
        array, size = rows, half
    return array
