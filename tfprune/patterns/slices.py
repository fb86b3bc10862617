"""Slices of a kernel: patterns that pool some of its axes."""

from dataclasses import dataclass
from math import prod

import numpy as np

from tfprune._base import validation as check
from tfprune.patterns.axes import namespace_of
from tfprune.patterns.base import PATTERNS, POOLING, Pooled
from tfprune.patterns.pooling import pooled


class SlicePattern(Pooled):
    """Base class of patterns that pool some axes of the kernel; the other axes count the units.

    A subclass is a frozen dataclass that implements `pooled_axes`.

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

    on_tensors = True

    def pooled_axes(self, ndim, axes):
        """Returns the axes to pool into one score.

        Args:
            ndim: Number of axes of the weight.
            axes: The `KernelAxes` of the weight.
        """
        raise NotImplementedError(
            f"A slice pattern has to implement `pooled_axes`, and {type(self).__name__} does not."
        )

    def _reduced(self, ndim, axes):
        """The pooled axes, without the axis of experts."""
        pooled = self.pooled_axes(ndim, axes)
        return tuple(axis for axis in pooled if axis or not axes.experts)

    def pool(self, scores, axes):
        return pooled(scores, self._reduced(len(scores.shape), axes), self.pooling)

    def expand(self, units, shape, axes):
        names = namespace_of(units)
        spread = names.broadcast_to(names.reshape(units, self._unit_shape(shape, axes)), shape)
        return np.ascontiguousarray(spread) if names is np else spread

    def collapse(self, mask, axes):
        reduced = self._reduced(len(mask.shape), axes)
        return namespace_of(mask).any(mask, axis=reduced, keepdims=True)

    def _unit_shape(self, shape, axes):
        reduced = self._reduced(len(shape), axes)
        return tuple(1 if axis in reduced else size for axis, size in enumerate(shape))

    def unit_count(self, shape, axes):
        return prod(self._unit_shape(shape, axes))


_ARGUMENTS = """
    Args:
        pooling: "AVG", "MAX" or "SUM" of the scores in a unit.

    Raises:
        ValueError: For an unknown pooling.
"""


# At half of the MACs, benchmarks/round_to.py found one network of three 2.6 times as slow as the
# dense one in ONNX Runtime with widths as they come; multiples of 8 took 0.65 of its time. Else, 1,
# 4, 8 and 16 differ by no more than noise. In narrow layers, 8 is too coarse to meet a budget.
_STEP, _WIDE = 8, 16


@PATTERNS.part()
@dataclass(frozen=True)
class Filter(SlicePattern):
    """Prunes whole filters: all weights that lead to one output channel.

    In a Sequential or Functional model, filters that can only be removed together form one unit,
    for instance the filters of layers whose outputs are added; see `tfprune.dependency_groups`.
    The bias of a channel, and its scale and offset in a BatchNormalization, are masked with its
    filter, so a pruned channel is silent and `tfprune.shrink` can remove it. Channels that cannot
    be removed, such as the model's outputs, are not pruned.

    In single layers and subclassed models, each layer's filters are pruned independently.

    Args:
        pooling: "AVG", "MAX" or "SUM" of the scores in a filter.
        coupled: Whether channels that can only be removed together form one unit. `False` prunes
            each layer's filters independently in any model.
        over_group: "AVG", "MAX" or "SUM" of the scores of the filters in one unit.
        round_to: Keep a multiple of this number of filters in each layer or group, the one
            nearest to the sparsity; a smaller layer keeps all of its filters. Many processors run
            such layers faster. `None` means 8 in layers and groups of 16 filters and more, else 1.

    Raises:
        ValueError: For an unknown pooling, or `round_to` below 1.
        TypeError: If `round_to` is not a whole number, or `coupled` is not a bool.

    Example:

    >>> tfprune.compute_mask(np.array([[1.0, 2.0], [1.0, 2.0]]), 0.5, pattern=tfprune.Filter())
    array([[False,  True],
           [False,  True]])
    """

    coupled: bool = True
    over_group: str = "AVG"
    round_to: int | None = 1

    def __post_init__(self):
        super().__post_init__()
        check.choice("over_group", self.over_group, POOLING)
        if self.round_to is not None:
            mend = "Use for instance 8; 1 rounds nothing."
            object.__setattr__(self, "round_to", check.integer("round_to", self.round_to, 1, mend))
        if not isinstance(self.coupled, bool):
            raise TypeError(
                check.message(
                    "`coupled` to be True or False",
                    f"coupled={self.coupled!r}",
                    "False prunes each layer's filters independently.",
                )
            )

    def step(self, units):
        if self.round_to is None:
            return _STEP if units >= _WIDE else 1
        return self.round_to

    def pooled_axes(self, ndim, axes):
        kept = axes.resolve(ndim).outputs
        return tuple(a for a in range(ndim) if a not in kept)


@PATTERNS.part(arguments=_ARGUMENTS)
@dataclass(frozen=True)
class Channel(SlicePattern):
    """Prunes all weights that read one input channel.

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
    """Prunes whole windows between one input and one output channel; single weights in Dense.

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
    """Prunes rows of a convolution's window; in a Dense kernel, rows of the matrix.

    A row runs along the last spatial axis, the width. In a kernel without a window, it runs along
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
    """Prunes columns of a convolution's window; in a Dense kernel, columns of the matrix.

    A column runs along the second-to-last spatial axis, the height; in a one-dimensional window, a
    column is one weight. In a kernel without a window, it runs along the input channels.

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
    """Prunes slices that run along any set of axes.

    Args:
        axes: Axes of the kernel to pool over; negative numbers count from the end. A Conv2D kernel
            is (height, width, inputs, outputs), so `Slice((0, 1, 2))` prunes filters.
        pooling: "AVG", "MAX" or "SUM" of the scores in a unit.

    Raises:
        ValueError, TypeError: For axes that are not whole numbers, repeat, or do not exist in the
            weight.

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
                    "Give this layer another pattern with tfprune.Rule(...).",
                )
            )

    def pooled_axes(self, ndim, axes):
        return tuple(axis % ndim for axis in self.axes)
