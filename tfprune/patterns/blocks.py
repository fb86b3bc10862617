"""Blocks of neighbouring weights."""

from dataclasses import dataclass
from math import prod

import numpy as np

from tfprune._base import validation as check
from tfprune.patterns.axes import from_matrices, matrix_shape, namespace_of, to_matrices
from tfprune.patterns.base import PATTERNS, Pooled
from tfprune.patterns.pooling import over, summed


@PATTERNS.part()
@dataclass(frozen=True)
class Block(Pooled):
    """Blocks of `h` input channels by `w` output channels.

    A Dense kernel is one matrix of blocks; a convolution kernel has one matrix for each position
    of its window. If the block size does not divide the kernel, the last blocks are smaller, and
    their scores are pooled over fewer weights.

    Args:
        block_size: `(h, w)`, both at least 1.
        pooling: "AVG", "MAX" or "SUM" of the scores in a block.

    Raises:
        ValueError, TypeError: For an invalid block size or pooling.

    Example:

    >>> weight = np.array([[1.0, 1.0, 9.0], [1.0, 1.0, 9.0]])
    >>> tfprune.compute_mask(weight, 0.5, pattern=tfprune.Block((2, 2)))
    array([[False, False,  True],
           [False, False,  True]])
    """

    on_tensors = True
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
        _, inputs, outputs = matrix_shape(shape, axes)
        height, width = self.block_size
        if height > inputs or width > outputs:
            raise ValueError(
                check.message(
                    f"a block no larger than {name}, {inputs} inputs by {outputs} outputs",
                    f"block_size={self.block_size}",
                    "Use smaller blocks, or give this layer another pattern with "
                    "tfprune.Rule(...).",
                )
            )

    def _grid(self, shape, axes):
        spatial, inputs, outputs = matrix_shape(shape, axes)
        height, width = self.block_size
        return spatial, -(-inputs // height), -(-outputs // width)

    def unit_count(self, shape, axes):
        return prod(self._grid(shape, axes))

    def tiles(self, array, axes, fill=0):
        """Cuts an array or a tensor of the kernel's shape into its blocks.

        Args:
            array: Array or tensor.
            axes: `KernelAxes`.
            fill: The number that pads the last blocks if the block size does not divide the kernel.

        Returns:
            An array of shape (positions of the window, rows of blocks, height, columns of blocks,
            width).
        """
        names, shape = namespace_of(array), tuple(int(n) for n in array.shape)
        spatial, inputs, outputs = matrix_shape(shape, axes)
        _, rows, columns = self._grid(shape, axes)
        height, width = self.block_size
        matrices = to_matrices(array, axes)
        margin = ((0, 0), (0, rows * height - inputs), (0, columns * width - outputs))
        if any(after for _, after in margin):
            matrices = names.pad(matrices, margin, constant_values=fill)
        return names.reshape(matrices, (spatial, rows, height, columns, width))

    def pool(self, scores, axes):
        if self.pooling == "MAX":
            tiles = self.tiles(scores, axes, -np.inf)
            return namespace_of(scores).max(tiles, axis=(2, 4))
        total = summed(self.tiles(scores, axes), (2, 4))
        if self.pooling == "SUM":
            return total
        return over(total, self.weights_in_block(scores.shape, axes))

    def weights_in_block(self, shape, axes):
        """Returns the number of weights in each block of a kernel of this shape."""
        _, inputs, outputs = matrix_shape(shape, axes)
        height, width = self.block_size
        rows = np.minimum(height, inputs - np.arange(0, inputs, height))
        columns = np.minimum(width, outputs - np.arange(0, outputs, width))
        return np.outer(rows, columns).astype("float32")

    def expand(self, units, shape, axes):
        names = namespace_of(units)
        spatial, inputs, outputs = matrix_shape(shape, axes)
        _, rows, columns = self._grid(shape, axes)
        height, width = self.block_size
        one = names.reshape(units, (spatial, rows, 1, columns, 1))
        tiles = names.broadcast_to(one, (spatial, rows, height, columns, width))
        spread = names.reshape(tiles, (spatial, rows * height, columns * width))
        return from_matrices(spread[:, :inputs, :outputs], shape, axes)

    def collapse(self, mask, axes):
        return namespace_of(mask).any(self.tiles(mask, axes, False), axis=(2, 4))
