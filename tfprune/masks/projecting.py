"""The projection of a weight onto its mask, in NumPy."""

import numpy as np

_PIECE = 1 << 18


def is_masked(value, mask):
    """Whether `value` is +0 wherever `mask` is False.

    Args:
        value: Float array in C order.
        mask: Bool array of its shape, in C order.
    """
    numbers, kept = value.reshape(-1).view(f"u{value.dtype.itemsize}"), mask.reshape(-1)
    pieces = (slice(start, start + _PIECE) for start in range(0, value.size, _PIECE))
    return not any(np.greater(numbers[part] != 0, kept[part]).any() for part in pieces)


def write_masked(value, mask, into):
    """Writes `value` where `mask` is True, and +0 elsewhere, even in place of NaN.

    Args:
        value: Float array in C order.
        mask: Bool array of its shape, in C order.
        into: Array of its shape and dtype.
    """
    # A product of the bits as whole numbers is exact: times 1 keeps them, times 0 is +0. `np.where`
    # takes ten times as long.
    bits = f"u{value.dtype.itemsize}"
    np.multiply(value.view(bits), mask.view("u1"), out=into.view(bits))
