"""Chooses weights: by magnitude, or by Wanda within each output."""

import numpy as np

from tfprune import masks
from tfprune.patterns.single_weights import NOfM


def by_magnitude(product, kernel, sparsity, pattern):
    """Returns the mask of a kernel by the magnitude of its weights: True = keep."""
    if product.apart == 1:
        return masks.compute_mask(kernel, sparsity, pattern=pattern, axes=product.axes)
    return np.stack([masks.compute_mask(one, sparsity, pattern=pattern) for one in kernel])


def by_wanda(product, kernel, norms, sparsity, pattern):
    """Returns the mask of a kernel by magnitude times norm of the input, within each output.

    Args:
        product: The layer's `Product`.
        kernel: Its values.
        norms: Norm of each input: array of shape (groups, inputs).
        sparsity: Fraction of each output's weights that goes.
        pattern: `Unstructured` or `NOfM`.
    """
    scores = np.abs(product.matrices(kernel).astype("float64")) * norms[:, :, None]
    if isinstance(pattern, NOfM):
        scores = product.kernel(scores)
        return ~pattern.eligible(scores, np.zeros(scores.shape, bool), product.axes)
    inputs = scores.shape[1]
    zeros = inputs - masks.kept_count(inputs, sparsity)
    return product.kernel(~lowest(scores, zeros))


def lowest(scores, zeros):
    """Marks the `zeros` lowest scores along axis 1; of equal scores, later ones go first."""
    order = np.argsort(scores[:, ::-1], axis=1, kind="stable")[:, :zeros]
    marked = np.zeros(scores.shape, bool)
    np.put_along_axis(marked, scores.shape[1] - 1 - order, True, axis=1)
    return marked
