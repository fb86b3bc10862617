"""The mask of one weight."""

from fractions import Fraction

import numpy as np

from tfprune import criteria, patterns
from tfprune._base import validation as check
from tfprune.masks.requests import MaskRequest, masks_with_zeros, rounded
from tfprune.masks.selection import Scores as Scores
from tfprune.masks.selection import Workers as Workers
from tfprune.masks.selection import keep_masks as keep_masks


def kept_count(units, sparsity):
    """Returns the number of `units` that are kept at `sparsity`, at least 1.

    The formula is `max(1, round(units * (1 - sparsity)))` in exact arithmetic. Halves round to
    even, and the sparsity is read as the shortest decimal that gives the same float32.

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


def compute_mask(
    weight, sparsity, *, pattern=None, criterion=None, axes=None, mask=None, evidence=None
):
    """Computes the mask of one weight.

    Args:
        weight: Float array of any shape: float16, bfloat16, float32 or float64.
        sparsity: Fraction of units to prune, in [0, 1).
        pattern: A pattern or the name of one; single weights by default.
        criterion: A criterion or the name of one; the magnitude by default.
        axes: `tfprune.patterns.KernelAxes`; by default the last axis counts outputs and the one
            before it inputs, as in Dense and Conv kernels.
        mask: The current mask. Pruned weights stay pruned unless the sparsity falls.
        evidence: `{name: array}` for each name in the criterion's `needs`: "initial",
            "gradient", ..., each array of the weight's shape.

    Returns:
        A bool array of the shape of `weight`: True = keep.

    Raises:
        ValueError: If the sparsity is out of range, the pattern does not fit the weight or
            cannot reach the sparsity, a weight is not finite, or evidence is missing.

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
        evidence={key: np.asarray(value) for key, value in (evidence or {}).items()},
    )
    if weight.size == 0:
        return np.ones(weight.shape, dtype=bool)
    zeros = request.units - kept_count(request.units, sparsity)
    (zeros,) = rounded([request], [zeros])
    if zeros > request.most_zeros:
        most = request.most_zeros / request.units
        raise ValueError(
            check.message(
                f"`sparsity` to be at most {most:g}, the maximum of {request.pattern} here",
                f"sparsity={sparsity:g}",
                "Lower the sparsity or choose another pattern.",
            )
        )
    (kept,), _ = masks_with_zeros([request], zeros)
    return request.spread(kept).reshape(weight.shape)
