"""Shares a sparsity out so that all layers change the metric equally, each alone."""

import glob

import numpy as np

from tfprune._base import validation as check
from tfprune.distributions import PerLayer
from tfprune.structural.allocation import most_tolerated

_HALVINGS = 100
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
    shares = _tolerated(measured, curves, units / units.sum(), value)
    # The end of a path means a layer too, and the last key that means a layer counts.
    named = sorted(zip(rows, shares, strict=True), key=lambda pair: pair[0].layer.count("/"))
    return PerLayer({glob.escape(row.layer): round(float(share), _DIGITS) for row, share in named})


def _rising(values, baseline):
    """Returns the changes of the metric from 0 on, made to rise; a NaN is infinitely large."""
    changes = np.abs(np.array([0.0, *(value - baseline for value in values)]))
    return np.maximum.accumulate(np.where(np.isfinite(changes), changes, np.inf))


def _tolerated(sparsities, curves, weights, total):
    """Returns the sparsities at the smallest tolerance at which their weighted mean is `total`."""

    def at(tolerance):
        return np.array([most_tolerated(sparsities, curve, tolerance) for curve in curves])

    finite = [change for curve in curves for change in curve[np.isfinite(curve)]]
    low, high = -1.0, max(finite)
    # Beyond every finite change, only layers whose change is infinite have sparsity to give.
    fewer, more = at(low), np.full(len(curves), sparsities[-1])
    if weights @ at(high) < total:
        fewer = at(high)
    else:
        for _ in range(_HALVINGS):
            middle = (low + high) / 2
            low, high = (low, middle) if weights @ at(middle) >= total else (middle, high)
        fewer, more = at(low), at(high)
    # Where a curve is flat, the mean jumps at the tolerance: all such layers take equal parts.
    gap = weights @ (more - fewer)
    return fewer + (total - weights @ fewer) / gap * (more - fewer) if gap > 0 else more
