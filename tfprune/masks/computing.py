"""The mask of one weight."""

from fractions import Fraction

import numpy as np

from tfprune import criteria, patterns
from tfprune._base import validation as check
from tfprune.masks.requests import MaskRequest, masks_with_zeros, rounded


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
    weight = _checked_weight(weight)
    mask, evidence = _checked_mask(mask, weight), _checked_evidence(evidence, weight)
    if axes is not None and not isinstance(axes, patterns.KernelAxes):
        raise TypeError(
            check.message("`axes` to be KernelAxes", f"axes={axes!r:.80}", "Leave it out.")
        )
    request = MaskRequest(
        weight if weight.ndim else weight.reshape(1),
        patterns.get(pattern),
        criteria.get(criterion),
        patterns.KernelAxes() if axes is None else axes,
        mask,
        evidence=evidence,
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


def _checked_weight(weight):
    mend = "Give an array of numbers, for instance np.asarray(layer.kernel)."
    try:
        array = np.asarray(weight)
    except (ValueError, TypeError) as error:
        raise TypeError(check.message("`weight` to be an array", f"{error}", mend)) from error
    # bfloat16 and its like are of kind "V" for NumPy.
    if array.dtype.kind not in "fiu" and array.dtype.name not in ("bfloat16", "float16"):
        raise TypeError(
            check.message("`weight` to hold real numbers", f"an array of {array.dtype}", mend)
        )
    return array


def _checked_mask(mask, weight):
    if mask is None:
        return None
    array = np.asarray(mask)
    if array.shape != weight.shape or array.dtype.kind not in "biuf":
        raise ValueError(
            check.message(
                f"`mask` to be a bool array of the weight's shape {weight.shape}",
                f"an array of {array.dtype} and shape {array.shape}",
                "Leave it out if nothing is pruned yet.",
            )
        )
    return array.astype(bool) if array.ndim else array.astype(bool).reshape(1)


def _checked_evidence(evidence, weight):
    if evidence is None:
        return {}
    mend = 'Use for instance evidence={"gradient": gradient}.'
    if not isinstance(evidence, dict) or not all(isinstance(key, str) for key in evidence):
        raise TypeError(
            check.message(
                "`evidence` to be a dictionary of arrays by name", f"{evidence!r:.80}", mend
            )
        )
    arrays = {key: np.asarray(value) for key, value in evidence.items()}
    for key, array in arrays.items():
        if array.dtype.kind not in "biuf" and array.dtype.name != "bfloat16":
            raise TypeError(
                check.message(
                    "`evidence` to hold arrays of real numbers", f"{key} of {array.dtype}", mend
                )
            )
    return arrays
