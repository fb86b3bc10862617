"""Divides a whole number exactly."""

from bisect import bisect_right
from fractions import Fraction


def apportion(weights, low, high, total):
    """Divides a whole number in proportion to weights, within bounds, exactly.

    Each part is `clip(c * weight, low, high)` with one factor `c` for all parts, so the rest of a
    capped part is divided among the others. Parts are rounded by largest remainder; of equal
    remainders, the first is rounded up.

    Args:
        weights: List of non-negative numbers.
        low: List of whole numbers: the minimum of each part.
        high: List of whole numbers: the maximum of each part.
        total: The sum of the parts, a whole number from `sum(low)` to `sum(high)`.

    Returns:
        List of `int`.

    Example:

    >>> tfprune.distributions.apportion([1, 1, 2], [0, 0, 0], [10, 1, 10], 8)
    [2, 1, 5]
    """
    weights = [Fraction(weight) for weight in weights]

    def parts(c):
        return [
            min(max(c * weight, fewest), most)
            for weight, fewest, most in zip(weights, low, high, strict=True)
        ]

    ends = sorted(
        {
            Fraction(bound) / weight
            for bounds in (low, high)
            for weight, bound in zip(weights, bounds, strict=True)
            if weight
        }
    )
    # The sum grows with c, and is linear between two neighboring ends.
    position = bisect_right(ends, total, key=lambda c: sum(parts(c)))
    if position == len(ends):
        exact = parts(ends[-1]) if ends else list(low)
    else:
        before = parts(ends[position - 1]) if position else list(low)
        after = parts(ends[position])
        missing = total - sum(before)
        step = Fraction(missing, 1) / (sum(after) - sum(before)) if missing else 0
        exact = [a + step * (b - a) for a, b in zip(before, after, strict=True)]
    whole = [int(part // 1) for part in exact]
    by_remainder = sorted(range(len(whole)), key=lambda i: whole[i] - exact[i])
    for i in by_remainder[: total - sum(whole)]:
        whole[i] += 1
    return whole
