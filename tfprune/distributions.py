"""Distributions: rules that divide an overall sparsity among the layers."""

from bisect import bisect_right
from dataclasses import dataclass
from fractions import Fraction
from math import prod

import numpy as np

from tfprune import masks
from tfprune._base import globs
from tfprune._base import validation as check
from tfprune._base.frozen import Frozen
from tfprune._base.registration import Parts
from tfprune.criteria.weights import lamp_scores

DISTRIBUTIONS = Parts("distribution", default="uniform")


class Distribution(Frozen):
    """Base class of all distributions: immutable, and equal if their fields are equal.

    A subclass implements `densities`, which returns the relative densities of the layers. This
    class turns them into counts that add up to the overall budget exactly. No layer loses its last
    unit; if a layer cannot take its share of zeros, the other layers take the rest.

    Example:

    >>> @dataclasses.dataclass(frozen=True)
    ... class LaterIsSparser(tfprune.Distribution):
    ...     def densities(self, requests):
    ...         return [1 / (1 + position) for position in range(len(requests))]
    >>> tfprune.Local(LaterIsSparser())
    Local(distribution=LaterIsSparser())
    """

    def densities(self, requests):
        """Returns one positive number for each request: its density relative to the others.

        Args:
            requests: List of `tfprune.masks.MaskRequest`.
        """
        raise NotImplementedError(f"{type(self).__name__} has to implement `densities`.")

    def limits(self, requests):
        """Returns for each request the maximum number of units that may be pruned.

        Args:
            requests: List of `tfprune.masks.MaskRequest`.
        """
        return [request.most_zeros for request in requests]

    def share(self, requests, low, high, total):
        """Returns the number of units to prune in each request, `total` in all.

        Args:
            requests: List of `tfprune.masks.MaskRequest`.
            low: List of the minimum of each.
            high: List of the maximum of each.
            total: The sum, from `sum(low)` to `sum(high)`.
        """
        units = [request.units for request in requests]
        kept = apportion(
            [Fraction(d) * n for d, n in zip(self.densities(requests), units, strict=True)],
            [n - most for n, most in zip(units, high, strict=True)],
            [n - fewest for n, fewest in zip(units, low, strict=True)],
            sum(units) - total,
        )
        return [n - k for n, k in zip(units, kept, strict=True)]

    def check(self, requests, sparsity):
        """Raises ValueError, naming a layer, unless the layers can reach this sparsity.

        Args:
            requests: List of `tfprune.masks.MaskRequest`.
            sparsity: Fraction of pruned units, in [0, 1).
        """
        self._bounds(requests, sparsity)

    def zeros(self, requests, sparsity):
        """Returns the number of units to prune in each request.

        The sum is the exact count for all units together, see `tfprune.masks.kept_count`; the
        parts are rounded by largest remainder. While the sum rises, no part falls, and while it
        falls, no part rises, so masks never flicker.

        Args:
            requests: List of `tfprune.masks.MaskRequest`.
            sparsity: Fraction of pruned units, in [0, 1).

        Raises:
            ValueError: If the layers cannot have that many zeros; the message names the layers.
        """
        low, high, total = self._bounds(requests, sparsity)
        now = [request.zeros_now for request in requests]
        if total == sum(now):
            return now
        if sum(high) < total:
            # The sum falls from masks that another distribution made.
            return apportion(now, low, now, total)
        return self.share(requests, low, high, total)

    def _bounds(self, requests, sparsity):
        """Returns the minimum and maximum number of zeros of each request, and the required sum."""
        units = sum(request.units for request in requests)
        total = units - masks.kept_count(units, sparsity)
        limits = self.limits(requests)
        now = [request.zeros_now for request in requests]
        if total < sum(now):
            return [0] * len(now), [min(pair) for pair in zip(now, limits, strict=True)], total
        high = [max(pair) for pair in zip(now, limits, strict=True)]
        if total > sum(high):
            raise ValueError(self._too_much(requests, high, sparsity))
        return now, high, total

    def _too_much(self, requests, high, sparsity):
        most = sum(high) / sum(request.units for request in requests)
        kept = [request.units - number for request, number in zip(requests, high, strict=True)]
        worst = sorted(range(len(kept)), key=lambda i: -kept[i])[:3]
        named = ", ".join(
            f"{requests[i].name} keeps {kept[i]} of {requests[i].units}" for i in worst
        )
        return check.message(
            f"a sparsity of at most {most:.4g}, the maximum of {self} here",
            f"sparsity={float(sparsity):g}, although each layer has to keep some units: {named}",
            "Lower the sparsity, or choose another distribution.",
        )


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


@DISTRIBUTIONS.part()
@dataclass(frozen=True)
class Uniform(Distribution):
    """Gives all layers the same sparsity.

    `Local()` without a distribution rounds each layer independently; this distribution rounds the
    layers so that the overall count is exact.

    Example:

    >>> tfprune.scopes.get("uniform")
    Local(distribution=Uniform())
    """

    def densities(self, requests):
        return [1] * len(requests)


@DISTRIBUTIONS.part()
@dataclass(frozen=True)
class FirstLayerDense(Distribution):
    """Keeps the first layer dense, and gives all others the same, higher sparsity instead.

    Example:

    >>> model = keras.Sequential([keras.Input((8,)), *(keras.layers.Dense(8) for _ in range(3))])
    >>> pruned = tfprune.prune_low_magnitude(
    ...     model, tfprune.ConstantSparsity(0.5, 0), scope=tfprune.FirstLayerDense())
    >>> _ = tfprune.UpdatePruningStep(pruned)
    >>> [row.zeros for row in tfprune.sparsity_report(pruned).rows]
    [0, 48, 48]

    Reference:

    - [Evci et al., 2020: Rigging the Lottery](https://arxiv.org/abs/1911.11134)
    """

    def densities(self, requests):
        return [1] * len(requests)

    def limits(self, requests):
        return [0, *(request.most_zeros for request in requests[1:])]


@dataclass(frozen=True)
class _Random(Distribution):
    """Base of distributions with the densities of random graphs."""

    power: float = 1.0

    def __post_init__(self):
        power = self.power
        number = isinstance(power, (int, float, np.floating)) and not isinstance(power, bool)
        if not number or not 0 <= power < np.inf:
            raise (ValueError if number else TypeError)(
                check.message(
                    "`power` to be a number of at least 0",
                    f"power={power!r}",
                    "Use 1 for the usual distribution, 0 for a uniform one.",
                )
            )
        object.__setattr__(self, "power", float(power))

    def _sizes(self, request):
        raise NotImplementedError

    def densities(self, requests):
        found = []
        for request in requests:
            sizes = self._sizes(request)
            found.append(Fraction(sum(sizes), prod(sizes)) ** Fraction(self.power))
        return found


def _by_role(request):
    """Returns inputs, outputs and window sizes; a depthwise kernel has one input."""
    shape = request.weight.shape
    spatial, inputs, outputs = request.axes.as_matrices(len(shape))
    channels = [prod(shape[axis] for axis in axes) for axes in (inputs, outputs)]
    return channels, [shape[axis] for axis in spatial]


_POWER = """
    Args:
        power: Exponent of the density; at least 0.

    Raises:
        ValueError, TypeError: For an invalid power.
"""


@DISTRIBUTIONS.part(arguments=_POWER)
@dataclass(frozen=True)
class ErdosRenyi(_Random):
    """Erdos-Renyi: density in proportion to `(n_in + n_out) / (n_in * n_out)`.

    Large layers get sparser than small ones, because the number of connections of a layer grows
    in proportion to its neurons. A layer whose density would exceed 1 stays dense, and the other
    layers make up for it.

    {arguments}

    Example:

    >>> model = keras.Sequential([keras.Input((100,)), *map(keras.layers.Dense, (50, 10))])
    >>> pruned = tfprune.prune_low_magnitude(
    ...     model, tfprune.ConstantSparsity(0.8, 0), scope="erdos_renyi")
    >>> _ = tfprune.UpdatePruningStep(pruned)
    >>> [row.sparsity for row in tfprune.sparsity_report(pruned).rows]
    [0.8428, 0.372]

    Reference:

    - [Mocanu et al., 2018: Scalable training of artificial neural networks with adaptive sparse
      connectivity](https://www.nature.com/articles/s41467-018-04316-3)
    """

    def _sizes(self, request):
        return _by_role(request)[0]


@DISTRIBUTIONS.part(arguments=_POWER)
@dataclass(frozen=True)
class ErdosRenyiKernel(_Random):
    """Erdos-Renyi-Kernel: `ErdosRenyi` that also counts the window of a convolution.

    Density in proportion to `(n_in + n_out + height + width) / (n_in * n_out * height * width)`.
    A layer whose density would exceed 1 stays dense, and the other layers make up for it. Layers
    without a window get the density of `ErdosRenyi`.

    {arguments}

    Example:

    >>> tfprune.scopes.get("erdos_renyi_kernel")
    Local(distribution=ErdosRenyiKernel(power=1.0))

    Reference:

    - [Evci et al., 2020: Rigging the Lottery](https://arxiv.org/abs/1911.11134)
    """

    def _sizes(self, request):
        channels, window = _by_role(request)
        return [*channels, *window]


@DISTRIBUTIONS.part()
@dataclass(frozen=True)
class LAMP(Distribution):
    """Layer-adaptive magnitudes: one threshold on the LAMP score sets each layer's sparsity.

    The score of a weight is its square, divided by the sum of the squares of all weights in its
    layer that are not smaller, itself included. The largest weight of each layer therefore scores
    1. A unit of several weights counts with its pooled square. Within a layer, the criterion
    chooses the units to prune. When the sparsity falls, each layer regains units in proportion to
    its zeros.

    Example:

    >>> tfprune.scopes.get("lamp")
    Local(distribution=LAMP())

    Reference:

    - [Lee et al., 2021: Layer-adaptive sparsity for the Magnitude-based
      Pruning](https://arxiv.org/abs/2010.07611)
    """

    def share(self, requests, low, high, total):
        now = [request.zeros_now for request in requests]
        if total < sum(now):
            # Pruned weights are zero, so they have no score.
            return apportion(now, low, high, total)
        counts = list(low)
        more = [i for i in range(len(requests)) if high[i] > low[i]]
        scores = [
            masks.Scores(_lamp(requests[i])[: high[i] - low[i]], name=requests[i].name)
            for i in more
        ]
        kept, _ = masks.keep_masks(scores, total - sum(low))
        for i, mask in zip(more, kept, strict=True):
            counts[i] += mask.size - int(np.count_nonzero(mask))
        return counts


def _lamp(request):
    """The scores of a request's unpruned units, in ascending order."""
    squares = request.squares()
    if not np.isfinite(squares).all():
        masks.raise_not_finite(request.name)
    return lamp_scores(np.sort(squares[~request.pruned]))


@DISTRIBUTIONS.part()
@dataclass(frozen=True)
class PerLayer(Distribution):
    """Gives each layer a sparsity that you choose.

    The schedule sets the overall sparsity. If these sparsities add up to another one, they are
    scaled in proportion. A layer that would lose its last unit keeps it, and the other layers make
    up for it.

    Args:
        sparsities: `{match: sparsity}`: names or paths of layers, with patterns as in file names
            ("conv_*", "encoder/*"), as in `tfprune.Rule`; and fractions in [0, 1). Where several
            match a layer, the last one counts. Layers at 0 are not pruned. By default all layers
            get the same.

    Raises:
        ValueError, TypeError: For sparsities out of range; at a mask update, for a layer that no
            pattern matches or a pattern that matches no layer.

    Example:

    >>> model = keras.Sequential([
    ...     keras.Input((10,)), keras.layers.Dense(10, name="a"), keras.layers.Dense(10, name="b")])
    >>> pruned = tfprune.prune_low_magnitude(
    ...     model, tfprune.ConstantSparsity(0.6, 0), scope=tfprune.PerLayer({"a": 0.2, "b": 0.4}))
    >>> _ = tfprune.UpdatePruningStep(pruned)
    >>> [row.zeros for row in tfprune.sparsity_report(pruned).rows]
    [40, 80]
    """

    sparsities: tuple = (("*", 0.5),)

    def __init__(self, sparsities=(("*", 0.5),)):
        mend = 'Use for instance PerLayer({"conv_*": 0.5, "dense": 0.9}).'
        try:
            pairs = dict(sparsities)
        except (TypeError, ValueError):
            pairs = None
        if pairs is None or not all(isinstance(key, str) for key in pairs):
            raise TypeError(
                check.message(
                    "`sparsities` to be a dictionary from name patterns to fractions",
                    f"{sparsities=}",
                    mend,
                )
            )
        if not pairs:
            raise ValueError(check.message("at least one sparsity", f"{sparsities=}", mend))
        pairs = {key: check.sparsity(f"sparsities[{key!r}]", s) for key, s in pairs.items()}
        object.__setattr__(self, "sparsities", tuple(pairs.items()))

    def get_config(self):
        return {"sparsities": dict(self.sparsities)}

    def limits(self, requests):
        return [
            request.most_zeros if sparsity else 0
            for request, sparsity in zip(requests, self._found(requests), strict=True)
        ]

    def share(self, requests, low, high, total):
        asked = [s * r.units for s, r in zip(self._found(requests), requests, strict=True)]
        return apportion(asked, low, high, total)

    def _found(self, requests):
        """Returns the requested sparsity of each request."""
        unused = {key for key, _ in self.sparsities}
        found = []
        for request in requests:
            matching = [
                (key, sparsity)
                for key, sparsity in self.sparsities
                if globs.means_weight(key, request.name)
            ]
            if not matching:
                raise ValueError(
                    check.message(
                        "PerLayer to give each layer a sparsity",
                        f"none for {request.name}",
                        'Add it, or a "*" entry in front for all others; 0 keeps a layer dense.',
                    )
                )
            unused -= {key for key, _ in matching}
            found.append(Fraction(str(matching[-1][1])))
        if unused:
            named = ", ".join(request.name for request in requests[:20])
            raise ValueError(
                check.message(
                    "each name in PerLayer to match a layer that is pruned on this schedule",
                    f"{sorted(unused)[0]!r}, which matches none",
                    f"The pruned layers are: {named}.",
                )
            )
        return found


def built_in():
    """Returns the built-in distribution classes, by name."""
    return DISTRIBUTIONS.by_name()


def get(distribution):
    """Returns a distribution.

    Args:
        distribution: A `Distribution`, the name of one, its serialized form, or `None` for
            `Uniform`.

    Raises:
        ValueError: For an unknown name.
        TypeError: For anything else.
    """
    return DISTRIBUTIONS.get(distribution, Distribution)
