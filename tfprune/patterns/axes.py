"""Which axes of a kernel count inputs, and which count outputs."""

from dataclasses import dataclass
from math import prod

import numpy as np


@dataclass(frozen=True)
class KernelAxes:
    """Which axes of a kernel count input channels and which count output channels.

    The others are spatial (the window of a convolution). In a depthwise kernel one axis counts
    both.

    Args:
        inputs: Axes of the input channels; negative ones count from the end.
        outputs: Axes of the output channels.
        reduced: Axes that the product sums over, where these are not `inputs`: a tied embedding
            is looked up by rows, and multiplied along them. Groups of N:M run along these.
        experts: Whether the first axis counts experts: at each of its places there is a weight of
            its own, which gets the sparsity by itself under local scope.

    Example:

    >>> tfprune.patterns.KernelAxes(inputs=(-2,), outputs=(-1,)).spatial(4)
    (0, 1)
    """

    inputs: tuple = (-2,)
    outputs: tuple = (-1,)
    reduced: tuple | None = None
    experts: bool = False

    def resolve(self, ndim):
        """Returns the same with non-negative axes."""
        return KernelAxes(
            tuple(axis % ndim for axis in self.inputs),
            tuple(axis % ndim for axis in self.outputs),
            None if self.reduced is None else tuple(axis % ndim for axis in self.reduced),
            self.experts,
        )

    @property
    def of_product(self):
        """The same axes, with those that the product sums over as inputs."""
        if self.reduced is None:
            return self
        return KernelAxes(self.reduced, self.inputs, experts=self.experts)

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


def matrix_shape(shape, axes):
    spatial, inputs, outputs = axes.as_matrices(len(shape))
    return tuple(prod(shape[a] for a in part) for part in (spatial, inputs, outputs))


def to_matrices(array, axes):
    """Returns a kernel as (spatial positions, input channels, output channels)."""
    spatial, inputs, outputs = axes.as_matrices(array.ndim)
    return array.transpose(spatial + inputs + outputs).reshape(matrix_shape(array.shape, axes))


def from_matrices(matrices, shape, axes):
    """Undoes `to_matrices` for a kernel of this shape."""
    order = sum(axes.as_matrices(len(shape)), ())
    moved = matrices.reshape(tuple(shape[a] for a in order))
    return np.ascontiguousarray(moved.transpose(np.argsort(order)))
