"""Patterns: what is pruned as one unit.

A pattern pools the scores of a weight into one score a unit (`pool`), and spreads a mask over
units back over the weight (`expand`). Everything else, the selection above all, is the same for
all patterns.
"""

from dataclasses import dataclass
from math import prod

import keras
import numpy as np

from tfprune import _frozen
from tfprune import _validation as check
from tfprune._frozen import Frozen

_POOLING = ("AVG", "MAX", "SUM")


@dataclass(frozen=True)
class KernelAxes:
    """Which axes of a kernel count input channels and which count output channels.

    The others are spatial (the window of a convolution). In a depthwise kernel one axis counts
    both.

    Args:
        inputs: Axes of the input channels; negative ones count from the end.
        outputs: Axes of the output channels.

    Example:

    >>> tfprune.patterns.KernelAxes(inputs=(-2,), outputs=(-1,)).spatial(4)
    (0, 1)
    """

    inputs: tuple = (-2,)
    outputs: tuple = (-1,)

    def resolve(self, ndim):
        """Returns the same with non-negative axes."""
        return KernelAxes(
            tuple(axis % ndim for axis in self.inputs),
            tuple(axis % ndim for axis in self.outputs),
        )

    def spatial(self, ndim):
        """Returns the axes that count neither."""
        known = self.resolve(ndim)
        return tuple(a for a in range(ndim) if a not in known.inputs + known.outputs)

    def as_matrices(self, ndim):
        """Returns the order of axes `(spatial, inputs, outputs)` that makes matrices of a kernel.

        Where an axis counts both, it counts as an output: a depthwise kernel has one input.
        """
        known = self.resolve(ndim)
        inputs = tuple(a for a in known.inputs if a not in known.outputs)
        return self.spatial(ndim), inputs, known.outputs


class Pattern(Frozen):
    """Base class of all patterns: frozen, and equal where their fields are equal.

    Attributes:
        round_to: Kept units of a weight are a multiple of this number, where there are as many.
    """

    round_to = 1

    def check(self, shape, axes, name="the weight"):
        """Raises ValueError, naming the weight, unless the pattern fits it."""

    def pool(self, scores, axes):
        """Pools the scores of a weight into one float score a unit."""
        raise NotImplementedError(f"{type(self).__name__} has to implement `pool`.")

    def expand(self, units, shape, axes):
        """Spreads an array over units over a weight of this shape."""
        raise NotImplementedError(f"{type(self).__name__} has to implement `expand`.")

    def collapse(self, mask, axes):
        """Returns for each unit whether any of its weights is set in `mask`."""
        raise NotImplementedError(f"{type(self).__name__} has to implement `collapse`.")

    def eligible(self, scores, pruned, axes):
        """Returns which units may be pruned at all, or `None` if all may."""
        return None

    def most_zeros(self, shape, axes):
        """Returns the largest number of units that may be pruned in a weight of this shape."""
        return self.unit_count(shape, axes) - 1

    def unit_count(self, shape, axes):
        """Returns the number of units in a weight of this shape."""
        raise NotImplementedError(f"{type(self).__name__} has to implement `unit_count`.")

    def check_target(self, sparsity, name):
        """Raises ValueError, naming the weight, if the pattern cannot have this sparsity."""


class _EachWeight(Pattern):
    """Patterns whose units are single weights."""

    def pool(self, scores, axes):
        return scores

    def expand(self, units, shape, axes):
        return units.reshape(shape)

    def collapse(self, mask, axes):
        return mask

    def unit_count(self, shape, axes):
        return prod(shape)


@keras.saving.register_keras_serializable(package="tfprune")
@dataclass(frozen=True)
class Unstructured(_EachWeight):
    """Single weights.

    Example:

    >>> tfprune.Unstructured().unit_count((3, 4), None)
    12
    """


@keras.saving.register_keras_serializable(package="tfprune")
@dataclass(frozen=True)
class NOfM(_EachWeight):
    """`zeros` zeros in every `group` neighbours along the input channels: 2:4 and its like.

    On the way there, the schedule's sparsity is met exactly with the weights of lowest score
    among those that may go, so no group ever has more than `zeros` zeros. A last group that is
    cut off counts as filled up with zeros, as it is in the deployed layout.

    Args:
        zeros: Zeros in each group, from 1 to `group - 1`.
        group: Weights in each group, at least 2.

    Raises:
        ValueError, TypeError: For numbers out of range.

    Example:

    >>> scores = np.array([[1.0], [4.0], [3.0], [2.0]])
    >>> tfprune.compute_mask(scores, 0.5, pattern=tfprune.NOfM(2, 4)).ravel()
    array([False,  True,  True, False])
    """

    zeros: int = 2
    group: int = 4

    def __post_init__(self):
        mend = "NOfM(zeros=2, group=4) puts 2 zeros into every 4 weights."
        group = check.integer("group", self.group, 2, mend)
        zeros = check.integer("zeros", self.zeros, 1, mend)
        if zeros >= group:
            raise ValueError(
                check.message("`zeros` to be less than `group`", f"{zeros=}, {group=}", mend)
            )
        object.__setattr__(self, "zeros", zeros)
        object.__setattr__(self, "group", group)

    def check(self, shape, axes, name="the weight"):
        if not _matrix_shape(shape, axes)[1] > 1:
            raise ValueError(
                check.message(
                    f"{name} to have input channels to group for {self}",
                    f"shape={tuple(shape)}, where every output sees a single input channel",
                    "Exempt this layer with tfprune.Rule(..., prune=False).",
                )
            )

    def check_target(self, sparsity, name):
        if abs(sparsity - self.zeros / self.group) > 1e-6:
            raise ValueError(
                check.message(
                    f"the schedule of {name} to end at {self.zeros}/{self.group} = "
                    f"{self.zeros / self.group:g}, the sparsity of {self}",
                    f"a target sparsity of {sparsity:g}",
                    f"Set the schedule's sparsity to {self.zeros / self.group:g}, "
                    "or choose another pattern.",
                )
            )

    def most_zeros(self, shape, axes):
        spatial, inputs, outputs = _matrix_shape(shape, axes)
        return spatial * outputs * self._zeros_in_column(inputs)

    def _zeros_in_column(self, inputs):
        whole, rest = divmod(inputs, self.group)
        return whole * self.zeros + max(0, self.zeros - (self.group - rest) if rest else 0)

    def eligible(self, scores, pruned, axes):
        scores = np.where(pruned, -np.inf, scores)
        columns = _to_matrices(scores, axes)
        may_go = np.zeros(columns.shape, dtype=bool)
        inputs = columns.shape[1]
        whole = inputs // self.group * self.group
        grouped = (columns.shape[0], whole // self.group, self.group, columns.shape[2])
        if whole:
            lowest = _lowest(columns[:, :whole].reshape(grouped), self.zeros)
            may_go[:, :whole] = lowest.reshape(columns.shape[0], whole, columns.shape[2])
        left = self.zeros - (self.group - (inputs - whole))
        if inputs > whole and left > 0:
            may_go[:, whole:] = _lowest(columns[:, None, whole:], left)[:, 0]
        return _from_matrices(may_go, scores.shape, axes)


def _lowest(groups, number):
    """Marks the `number` lowest along axis 2; of equal ones the later go first."""
    size = groups.shape[2]
    marked = np.empty(groups.shape, dtype=bool)
    for i in range(size):
        rank = np.zeros(groups.shape[:2] + groups.shape[3:], dtype="int16")
        for j in range(size):
            if j < i:
                rank += groups[:, :, j] < groups[:, :, i]
            elif j > i:
                rank += groups[:, :, j] <= groups[:, :, i]
        marked[:, :, i] = rank < number
    return marked


def _matrix_shape(shape, axes):
    spatial, inputs, outputs = axes.as_matrices(len(shape))
    return tuple(prod(shape[a] for a in part) for part in (spatial, inputs, outputs))


def _to_matrices(array, axes):
    """Returns a kernel as (spatial positions, input channels, output channels)."""
    spatial, inputs, outputs = axes.as_matrices(array.ndim)
    return array.transpose(spatial + inputs + outputs).reshape(_matrix_shape(array.shape, axes))


def _from_matrices(matrices, shape, axes):
    """Undoes `_to_matrices` for a kernel of this shape."""
    order = sum(axes.as_matrices(len(shape)), ())
    moved = matrices.reshape(tuple(shape[a] for a in order))
    return np.ascontiguousarray(moved.transpose(np.argsort(order)))


@dataclass(frozen=True)
class _Pooled(Pattern):
    """Patterns that pool several weights into one score."""

    pooling: str = "AVG"

    def __post_init__(self):
        check.choice("pooling", self.pooling, _POOLING)


@keras.saving.register_keras_serializable(package="tfprune")
@dataclass(frozen=True)
class Block(_Pooled):
    """Blocks of `h` input channels by `w` output channels.

    A Dense kernel is one matrix of blocks; a convolution has one such matrix at each position of
    its window. Where the block size does not divide the kernel, the last blocks are smaller, and
    their score is pooled over the weights that they have.

    Args:
        block_size: `(h, w)`, both at least 1.
        pooling: "AVG", "MAX" or "SUM" of the scores in a block.

    Raises:
        ValueError, TypeError: For a size or a pooling that does not exist.

    Example:

    >>> weight = np.array([[1.0, 1.0, 9.0], [1.0, 1.0, 9.0]])
    >>> tfprune.compute_mask(weight, 0.5, pattern=tfprune.Block((2, 2)))
    array([[False, False,  True],
           [False, False,  True]])
    """

    block_size: tuple = (1, 1)
    pooling: str = "AVG"

    def __init__(self, block_size=(1, 1), pooling="AVG"):
        mend = "Give (height, width), for instance Block((4, 1))."
        if not isinstance(block_size, (tuple, list)) or len(block_size) != 2:
            raise TypeError(
                check.message("`block_size` to be a pair", f"block_size={block_size!r}", mend)
            )
        size = tuple(check.integer("block_size", n, 1, mend) for n in block_size)
        object.__setattr__(self, "block_size", size)
        object.__setattr__(self, "pooling", pooling)
        self.__post_init__()

    def check(self, shape, axes, name="the weight"):
        _, inputs, outputs = _matrix_shape(shape, axes)
        height, width = self.block_size
        if height > inputs or width > outputs:
            raise ValueError(
                check.message(
                    f"a block no larger than {name}, {inputs} inputs by {outputs} outputs",
                    f"block_size={self.block_size}",
                    "Use smaller blocks, or give this layer a pattern of its own with "
                    "tfprune.Rule(...).",
                )
            )

    def _grid(self, shape, axes):
        spatial, inputs, outputs = _matrix_shape(shape, axes)
        height, width = self.block_size
        return spatial, -(-inputs // height), -(-outputs // width)

    def unit_count(self, shape, axes):
        return prod(self._grid(shape, axes))

    def _tiles(self, matrices, fill):
        spatial, inputs, outputs = matrices.shape
        height, width = self.block_size
        rows, columns = -(-inputs // height), -(-outputs // width)
        margin = ((0, 0), (0, rows * height - inputs), (0, columns * width - outputs))
        if any(after for _, after in margin):
            matrices = np.pad(matrices, margin, constant_values=fill)
        return matrices.reshape(spatial, rows, height, columns, width)

    def pool(self, scores, axes):
        matrices = _to_matrices(scores, axes)
        if self.pooling == "MAX":
            return self._tiles(matrices, -np.inf).max(axis=(2, 4))
        total = self._tiles(matrices, 0).sum(axis=(2, 4))
        if self.pooling == "SUM":
            return total
        return total / self._weights_in_block(scores.shape, axes)

    def _weights_in_block(self, shape, axes):
        _, inputs, outputs = _matrix_shape(shape, axes)
        height, width = self.block_size
        rows = np.minimum(height, inputs - np.arange(0, inputs, height))
        columns = np.minimum(width, outputs - np.arange(0, outputs, width))
        return np.outer(rows, columns).astype("float32")

    def expand(self, units, shape, axes):
        _, inputs, outputs = _matrix_shape(shape, axes)
        units = units.reshape(self._grid(shape, axes))
        spread = units.repeat(self.block_size[0], axis=1).repeat(self.block_size[1], axis=2)
        return _from_matrices(spread[:, :inputs, :outputs], shape, axes)

    def collapse(self, mask, axes):
        return self._tiles(_to_matrices(mask, axes), False).any(axis=(2, 4))


class _SlicePattern(_Pooled):
    """Patterns that reduce some axes of the kernel: what remains is one score a unit."""

    def _pooled_axes(self, ndim, axes):
        raise NotImplementedError

    def pool(self, scores, axes):
        reduced = self._pooled_axes(scores.ndim, axes)
        if self.pooling == "MAX":
            return scores.max(axis=reduced, keepdims=True)
        if self.pooling == "SUM":
            return scores.sum(axis=reduced, keepdims=True)
        return scores.mean(axis=reduced, keepdims=True)

    def expand(self, units, shape, axes):
        kept = self._unit_shape(shape, axes)
        return np.ascontiguousarray(np.broadcast_to(units.reshape(kept), shape))

    def collapse(self, mask, axes):
        return mask.any(axis=self._pooled_axes(mask.ndim, axes), keepdims=True)

    def _unit_shape(self, shape, axes):
        reduced = self._pooled_axes(len(shape), axes)
        return tuple(1 if axis in reduced else size for axis, size in enumerate(shape))

    def unit_count(self, shape, axes):
        return prod(self._unit_shape(shape, axes))


_SLICE_ARGS = """
    Args:
        pooling: "AVG", "MAX" or "SUM" of the scores in a unit.

    Raises:
        ValueError: For a pooling that does not exist.
"""


def _slice(cls):
    """Registers a slice pattern and completes its docstring."""
    cls.__doc__ = cls.__doc__.replace("\n    {slice_args}\n", _SLICE_ARGS)
    return keras.saving.register_keras_serializable(package="tfprune")(dataclass(frozen=True)(cls))


@keras.saving.register_keras_serializable(package="tfprune")
@dataclass(frozen=True)
class Filter(_SlicePattern):
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
        check.choice("over_group", self.over_group, _POOLING)
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

    def _pooled_axes(self, ndim, axes):
        kept = axes.resolve(ndim).outputs
        return tuple(a for a in range(ndim) if a not in kept)


@_slice
class Channel(_SlicePattern):
    """All that comes from one input channel.

    {slice_args}

    Example:

    >>> tfprune.compute_mask(np.array([[1.0, 1.0], [2.0, 2.0]]), 0.5, pattern=tfprune.Channel())
    array([[False, False],
           [ True,  True]])
    """

    def _pooled_axes(self, ndim, axes):
        kept = axes.resolve(ndim).inputs
        return tuple(a for a in range(ndim) if a not in kept)


@_slice
class Kernel(_SlicePattern):
    """The whole window between one input and one output channel; in a Dense kernel, a weight.

    {slice_args}

    Example:

    >>> tfprune.Kernel().unit_count((3, 3, 16, 32), tfprune.patterns.KernelAxes())
    512
    """

    def _pooled_axes(self, ndim, axes):
        return axes.spatial(ndim)


@_slice
class Row(_SlicePattern):
    """One row of a convolution's window; in a Dense kernel, one row of the matrix.

    A row runs along the last spatial axis, the width. In a kernel without a window it runs over
    the output channels.

    {slice_args}

    Example:

    >>> tfprune.Row().unit_count((3, 5, 16, 32), tfprune.patterns.KernelAxes())
    1536
    """

    def _pooled_axes(self, ndim, axes):
        spatial = axes.spatial(ndim)
        return spatial[-1:] if spatial else axes.resolve(ndim).outputs


@_slice
class Column(_SlicePattern):
    """One column of a convolution's window; in a Dense kernel, one column of the matrix.

    A column runs along the last but one spatial axis, the height; a window of one dimension has
    columns of one weight. In a kernel without a window it runs over the input channels.

    {slice_args}

    Example:

    >>> tfprune.Column().unit_count((3, 5, 16, 32), tfprune.patterns.KernelAxes())
    2560
    """

    def _pooled_axes(self, ndim, axes):
        spatial = axes.spatial(ndim)
        return spatial[-2:-1] if spatial else axes.resolve(ndim).inputs


@keras.saving.register_keras_serializable(package="tfprune")
@dataclass(frozen=True)
class Slice(_SlicePattern):
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

    def _pooled_axes(self, ndim, axes):
        return tuple(axis % ndim for axis in self.axes)


_BY_NAME = {
    "unstructured": Unstructured,
    "block": Block,
    "n_of_m": NOfM,
    "filter": Filter,
    "channel": Channel,
    "kernel": Kernel,
    "row": Row,
    "column": Column,
    "slice": Slice,
}


def built_in():
    """Returns the patterns that come with tfprune, by name."""
    return dict(_BY_NAME)


def get(pattern):
    """Returns a pattern.

    Args:
        pattern: A `Pattern`, the name of one, its serialized form, or `None` for `Unstructured`.

    Raises:
        ValueError: For an unknown name.
        TypeError: For anything else.
    """
    return _frozen.get(pattern, "pattern", Pattern, _BY_NAME, Unstructured)
