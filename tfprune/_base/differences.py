"""How far two arrays are apart."""

import numpy as np

# Outputs below it are zeros that rounding has left.
_ZERO = 1e-6


def relative_difference(truth, found):
    """Returns the largest difference of two arrays as a fraction of the largest value of `truth`.

    Where `truth` has no value above 1e-6, it is the largest difference itself.

    Args:
        truth: An array of numbers.
        found: Another one.

    Returns:
        A number: infinity for arrays of different shapes, NaN where one of them has a NaN.
    """
    truth, found = (np.asarray(array).astype("float64") for array in (truth, found))
    if truth.shape != found.shape:
        return float("inf")
    off = float(np.abs(truth - found).max(initial=0))
    largest = float(np.abs(truth).max(initial=0))
    return off / largest if not largest <= _ZERO else off
