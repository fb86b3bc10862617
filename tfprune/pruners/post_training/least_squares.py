"""SparseGPT: removes weights one input at a time, and lets the others make up for them."""

import numpy as np

from tfprune import masks
from tfprune.pruners.post_training.choosing import lowest

# Inputs whose weights are chosen together.
_TOGETHER = 128
_DAMPINGS = (0.01, 0.1, 1.0)


def inverse_factor(hessian, damping):
    """Returns `(U, damping)`: upper triangular `U` with `U^T U = (hessian + damping * I)^-1`.

    Args:
        hessian: Symmetric array of shape (inputs, inputs).
        damping: Added to the diagonal, in units of its mean. Where the sum is not positive
            definite, 0.01, 0.1 and 1 are tried after it.

    Returns:
        The factor and the damping that was used; `None` if no damping is enough.
    """
    mean = np.mean(np.diagonal(hessian))
    for tried in (damping, *(more for more in _DAMPINGS if more > damping)):
        damped = hessian + tried * mean * np.eye(len(hessian))
        try:
            # Of the matrix turned around, whose inverse factor is then the upper one.
            lower = np.linalg.cholesky(damped[::-1, ::-1])
        except np.linalg.LinAlgError:
            continue
        factor = np.linalg.inv(lower)[::-1, ::-1]
        if np.isfinite(factor).all():
            return np.triu(factor), tried
    return None


def prune_matrix(matrix, factor, dead, sparsity=None, groups=None):
    """Removes weights of a matrix, and changes the others so that its products change least.

    Args:
        matrix: float64 array of shape (inputs, outputs).
        factor: From `inverse_factor`.
        dead: bool array: inputs that were always zero. Their weights go first.
        sparsity: Fraction of the weights that goes.
        groups: Instead of it, `(start, stop, zeros)` of the inputs that compete within each
            output, all inputs in order.

    Returns:
        The new matrix, and a mask: True = keep.

    Reference:
        - [Frantar and Alistarh, 2023: SparseGPT](https://arxiv.org/abs/2301.00774)
    """
    weights = matrix.T.copy()
    keep = np.ones(weights.shape, bool)
    total = 0 if sparsity is None else weights.size - masks.kept_count(weights.size, sparsity)
    for start, stop in _parts(weights.shape[1], groups):
        part = weights[:, start:stop]
        own = factor[start:stop, start:stop]
        alive = ~dead[start:stop]
        diagonal = np.diagonal(own)
        if groups is None:
            # The part's own share, so that the count is exact at the end.
            wanted = round(total * stop / weights.shape[1]) - round(
                total * start / weights.shape[1]
            )
            scores = (part / diagonal) ** 2 * alive
            (kept,), _ = masks.keep_masks([scores.reshape(-1)], wanted)
            keep[:, start:stop] = kept.reshape(part.shape)
        starts = {begin: (end, zeros) for begin, end, zeros in groups or ()}
        errors = np.empty(part.shape)
        for column in range(stop - start):
            if start + column in starts:
                end, zeros = starts[start + column]
                inside = slice(column, end - start)
                scores = (part[:, inside] / diagonal[inside]) ** 2 * alive[inside]
                keep[:, start + column : end] = ~lowest(scores, zeros)
            removed = np.where(keep[:, start + column], 0.0, part[:, column])
            errors[:, column] = removed / diagonal[column]
            part[:, column:] -= np.outer(errors[:, column], own[column, column:])
            part[:, column][~keep[:, start + column]] = 0.0
        weights[:, stop:] -= errors @ factor[start:stop, stop:]
    return weights.T, keep.T


def _parts(inputs, groups):
    """Yields the ranges of inputs that are treated together; none splits a group."""
    ends = range(1, inputs + 1) if groups is None else [stop for _, stop, _ in groups]
    start = 0
    for stop in ends:
        if stop - start >= _TOGETHER or stop == inputs:
            yield start, stop
            start = stop


def groups_of(pattern, inputs, run):
    """Lists `(start, stop, zeros)` of an N:M pattern; an incomplete group counts as padded.

    Args:
        pattern: `NOfM`.
        inputs: Number of inputs.
        run: How many inputs are neighbors, see `Product.run`.
    """
    found = []
    for first in range(0, inputs, run):
        for start in range(first, first + run, pattern.group):
            stop = min(start + pattern.group, first + run)
            zeros = max(0, pattern.zeros - (pattern.group - (stop - start)))
            found.append((start, stop, zeros))
    return found
