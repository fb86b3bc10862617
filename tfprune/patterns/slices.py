"""Slices of a kernel: patterns that reduce some of its axes."""

from dataclasses import dataclass
from math import prod

import numpy as np

from tfprune._base import validation as check
from tfprune.patterns.base import PATTERNS, POOLING, Pooled


class SlicePattern(Pooled):
    """Patterns that reduce some axes of the kernel: the others count the units.

    A subclass is a frozen dataclass and implements `pooled_axes`.

    Args:
        pooling: "AVG", "MAX" or "SUM" of the scores in a unit.

    Example:

    >>> @dataclasses.dataclass(frozen=True)
    ... class Position(tfprune.patterns.SlicePattern):
    ...     def pooled_axes(self, ndim, axes):
    ...         return tuple(a for a in range(ndim) if a not in axes.spatial(ndim))
    >>> Position().unit_count((3, 3, 8, 16), tfprune.patterns.KernelAxes())
    9
    """

    def pooled_axes(self, ndim, axes):
        """Returns the axes that are pooled into one score.

        Args:
            ndim: Number of axes of the weight.
            axes: Its `KernelAxes`.
        """
        raise NotImplementedError(
            f"A slice pattern has to implement `pooled_axes`, and {type(self).__name__} does not."
        )

    def _reduced(self, ndim, axes):
        """The axes that are pooled; never over the experts."""
        pooled = self.pooled_axes(ndim, axes)
        return tuple(axis for axis in pooled if axis or not axes.experts)

    def pool(self, scores, axes):
        reduced = self._reduced(scores.ndim, axes)
        if self.pooling == "MAX":
            return scores.max(axis=reduced, keepdims=True)
        if self.pooling == "SUM":
            return scores.sum(axis=reduced, keepdims=True)
        return scores.mean(axis=reduced, keepdims=True)

    def expand(self, units, shape, axes):
        kept = self._unit_shape(shape, axes)
        return np.ascontiguousarray(np.broadcast_to(units.reshape(kept), shape))

    def collapse(self, mask, axes):
        return mask.any(axis=self._reduced(mask.ndim, axes), keepdims=True)

    def _unit_shape(self, shape, axes):
        reduced = self._reduced(len(shape), axes)
        return tuple(1 if axis in reduced else size for axis, size in enumerate(shape))

    def unit_count(self, shape, axes):
        return prod(self._unit_shape(shape, axes))


_ARGUMENTS = """
    Args:
        pooling: "AVG", "MAX" or "SUM" of the scores in a unit.

    Raises:
        ValueError: For a pooling that does not exist.
"""


@PATTERNS.part()
@dataclass(frozen=True)
class Filter(SlicePattern):
    """All that leads to one output channel.

    In a Sequential or Functional model, filters that can only be removed together are one unit:
    those of layers whose outputs are added, for instance; see `tfprune.dependency_groups`. What
    else belongs to a channel, its bias and its scale and offset in a BatchNormalization, is
    masked with them, so that a pruned channel is silent and `tfprune.shrink` removes it. Channels
    that cannot be removed, those of the model's outputs first of all, are not pruned.

    Elsewhere (single layers, subclassed models), each layer's filters stand for themselves.

    Args:
        pooling: "AVG", "MAX" or "SUM" of the scores in a filter.
        coupled: Whether channels that stand or fall together are one unit. If not, each layer's
            filters stand for themselves in any model.
        over_group: "AVG", "MAX" or "SUM" of the scores of filters that are one unit.
        round_to: Keep a multiple of so many filters in each layer or group, as near as possible
            to what the sparsity asks for; where there are fewer, all stay. Many processors
            compute faster then.

    Raises:
        ValueError: For a pooling that does not exist, or `round_to` below 1.
        TypeError: If `round_to` is no whole number, or `coupled` no bool.

    Example:

    >>> tfprune.compute_mask(np.array([[1.0, 2.0], [1.0, 2.0]]), 0.5, pattern=tfprune.Filter())
    array([[False,  True],
           [False,  True]])
    """

    coupled: bool = True
    over_group: str = "AVG"
    round_to: int = 1

    def __post_init__(self):
        super().__post_init__()
        check.choice("over_group", self.over_group, POOLING)
        mend = "Use for instance 8; 1 rounds nothing."
        object.__setattr__(self, "round_to", check.integer("round_to", self.round_to, 1, mend))
        if not isinstance(self.coupled, bool):
            raise TypeError(
                check.message(
                    "`coupled` to be True or False",
                    f"coupled={self.coupled!r}",
                    "False prunes each layer's filters by themselves.",
                )
            )

    def pooled_axes(self, ndim, axes):
        kept = axes.resolve(ndim).outputs
        return tuple(a for a in range(ndim) if a not in kept)


@PATTERNS.part(arguments=_ARGUMENTS)
@dataclass(frozen=True)
class Channel(SlicePattern):
    """All that comes from one input channel.

    {arguments}

    Example:

    >>> tfprune.compute_mask(np.array([[1.0, 1.0], [2.0, 2.0]]), 0.5, pattern=tfprune.Channel())
    array([[False, False],
           [ True,  True]])
    """

    def pooled_axes(self, ndim, axes):
        kept = axes.resolve(ndim).inputs
        return tuple(a for a in range(ndim) if a not in kept)


@PATTERNS.part(arguments=_ARGUMENTS)
@dataclass(frozen=True)
class Kernel(SlicePattern):
    """The whole window between one input and one output channel; in a Dense kernel, a weight.

    {arguments}

    Example:

    >>> tfprune.Kernel().unit_count((3, 3, 16, 32), tfprune.patterns.KernelAxes())
    512
    """

    def pooled_axes(self, ndim, axes):
        return axes.spatial(ndim)


@PATTERNS.part(arguments=_ARGUMENTS)
@dataclass(frozen=True)
class Row(SlicePattern):
    """One row of a convolution's window; in a Dense kernel, one row of the matrix.

    A row runs along the last spatial axis, the width. In a kernel without a window it runs over
    the output channels.

    {arguments}

    Example:

    >>> tfprune.Row().unit_count((3, 5, 16, 32), tfprune.patterns.KernelAxes())
    1536
    """

    def pooled_axes(self, ndim, axes):
        spatial = axes.spatial(ndim)
        return spatial[-1:] if spatial else axes.resolve(ndim).outputs


@PATTERNS.part(arguments=_ARGUMENTS)
@dataclass(frozen=True)
class Column(SlicePattern):
    """One column of a convolution's window; in a Dense kernel, one column of the matrix.

    A column runs along the last but one spatial axis, the height; a window of one dimension has
    columns of one weight. In a kernel without a window it runs over the input channels.

    {arguments}

    Example:

    >>> tfprune.Column().unit_count((3, 5, 16, 32), tfprune.patterns.KernelAxes())
    2560
    """

    def pooled_axes(self, ndim, axes):
        spatial = axes.spatial(ndim)
        return spatial[-2:-1] if spatial else axes.resolve(ndim).inputs


@PATTERNS.part()
@dataclass(frozen=True)
class Slice(SlicePattern):
    """Any set of axes pooled into one score.

    Args:
        axes: Axes of the kernel to pool over; negative ones count from the end. A Conv2D kernel
            is (height, width, inputs, outputs), so `Slice((0, 1, 2))` is `Filter()`.
        pooling: "AVG", "MAX" or "SUM" of the scores in a unit.

    Raises:
        ValueError, TypeError: For axes that are no whole numbers, are named twice, or do not
            exist in the weight.

    Example:

    >>> tfprune.Slice((2,)).unit_count((3, 3, 16, 32), None)
    288
    """

    axes: tuple = ()
    pooling: str = "AVG"

    def __init__(self, axes=(), pooling="AVG"):
        mend = "Name the axes to pool over, for instance Slice((0, 1))."
        if isinstance(axes, int):
            axes = (axes,)
        if not isinstance(axes, (tuple, list)):
            raise TypeError(check.message("`axes` to be a tuple", f"axes={axes!r}", mend))
        axes = tuple(check.integer("axes", axis, -32, mend) for axis in axes)
        if len(set(axes)) < len(axes):
            raise ValueError(check.message("each axis once", f"axes={axes}", mend))
        object.__setattr__(self, "axes", axes)
        object.__setattr__(self, "pooling", pooling)
        self.__post_init__()

    def check(self, shape, axes, name="the weight"):
        found = [axis % len(shape) for axis in self.axes if -len(shape) <= axis < len(shape)]
        if len(set(found)) < len(self.axes):
            raise ValueError(
                check.message(
                    f"axes of {name}, which has {len(shape)}",
                    f"axes={self.axes}",
                    "Give this layer a pattern of its own with tfprune.Rule(...).",
                )
            )

    def pooled_axes(self, ndim, axes):
        return tuple(axis % ndim for axis in self.axes)
