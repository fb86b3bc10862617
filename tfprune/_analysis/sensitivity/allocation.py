"""Shares a sparsity out so that the changes of the metric have the least sum."""

import itertools

import numpy as np

from tfprune._base import globs
from tfprune._base import validation as check
from tfprune.distributions import PerLayer

_DIGITS = 12


def distribution(sensitivity, sparsity):
    """Returns the `PerLayer` distribution of `Sensitivity.to_distribution`."""
    value = check.sparsity("sparsity", sparsity)
    most = max(sensitivity.sparsities, default=0.0)
    if not sensitivity.rows or not 0 < value <= most:
        raise ValueError(
            check.message(
                f"`sparsity` above 0 and at most {most:g}, the highest measured",
                f"sparsity={sparsity!r}, with {len(sensitivity.rows)} measured layers",
                "Choose a lower one, or measure higher ones with sensitivity(sparsities=...).",
            )
        )
    rows = sensitivity.rows
    units = np.array([row.parameters if row.units is None else row.units for row in rows], float)
    measured = np.array([0.0, *sensitivity.sparsities])
    curves = [_rising(row.values, sensitivity.baseline) for row in rows]
    shares = _cheapest(measured, curves, units / units.sum(), value)
    named = zip(rows, shares, strict=True)
    return PerLayer(
        globs.exactly({row.layer: round(float(share), _DIGITS) for row, share in named})
    )


def _rising(values, baseline):
    """Returns the changes of the metric from 0 on, made to rise; a NaN is infinitely large."""
    changes = np.abs(np.array([0.0, *(value - baseline for value in values)]))
    return np.maximum.accumulate(np.where(np.isfinite(changes), changes, np.inf))


def _cheapest(sparsities, curves, weights, total):
    """Returns the sparsities of least total change whose weighted mean is `total`.

    The lower convex hull of a curve is a row of segments, each dearer than the one before. The
    cheapest ones of all layers are taken first, by their change for each unit of the model.
    """
    segments = [
        (change / (length * weight), row, length)
        for row, (curve, weight) in enumerate(zip(curves, weights, strict=True))
        for length, change in _segments(sparsities, curve)
    ]
    shares = np.zeros(len(curves))
    for _, group in itertools.groupby(sorted(segments), key=lambda segment: segment[0]):
        # Equally dear segments give equal parts of themselves.
        equal = [(row, length) for _, row, length in group]
        all_of_them = sum(weights[row] * length for row, length in equal)
        part = np.clip((total - weights @ shares) / all_of_them, 0.0, 1.0)
        for row, length in equal:
            shares[row] += part * length
    return shares


def _segments(sparsities, curve):
    """Lists `(length, change)` along the lower convex hull of a curve; the last may be infinite."""
    hull: list = []
    for point in zip(sparsities, curve, strict=True):
        if not np.isfinite(point[1]):
            break
        while len(hull) > 1 and _slope(hull[-2], hull[-1]) >= _slope(hull[-1], point):
            hull.pop()
        hull.append(point)
    if hull[-1][0] < sparsities[-1]:
        hull.append((sparsities[-1], np.inf))
    return [(x - before, y - base) for (before, base), (x, y) in itertools.pairwise(hull)]


def _slope(left, right):
    return (right[1] - left[1]) / (right[0] - left[0])
