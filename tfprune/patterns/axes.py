"""The input and output axes of a kernel."""

import numbers
from dataclasses import dataclass
from math import prod

import numpy as np
from keras import ops

from tfprune._base import validation as check


@dataclass(frozen=True)
class KernelAxes:
    """Names the axes of a kernel that count input channels and those that count output channels.

    All other axes are spatial (the window of a convolution). In a depthwise kernel, one axis
    counts both.

    Args:
        inputs: Axes of the input channels; negative numbers count from the end.
        outputs: Axes of the output channels.
        reduced: Axes that the product sums over, if they are not `inputs`: a tied embedding is
            looked up by rows and multiplied along them. N:M groups run along these axes.
        experts: Whether the first axis counts experts. Each expert is a separate weight, which
            local scope prunes to the sparsity on its own.

    Example:

    >>> tfprune.patterns.KernelAxes(inputs=(-2,), outputs=(-1,)).spatial(4)
    (0, 1)
    """

    inputs: tuple = (-2,)
    outputs: tuple = (-1,)
    reduced: tuple | None = None
    experts: bool = False

    def __post_init__(self):
        mend = "Use for instance KernelAxes(inputs=(-2,), outputs=(-1,))."
        for name in ("inputs", "outputs", "reduced"):
            axes = getattr(self, name)
            if name == "reduced" and axes is None:
                continue
            whole = isinstance(axes, (tuple, list)) and all(
                isinstance(axis, numbers.Integral) and not isinstance(axis, bool) for axis in axes
            )
            if not whole:
                raise TypeError(
                    check.message(f"`{name}` to be a tuple of axes", f"{name}={axes!r:.80}", mend)
                )
            object.__setattr__(self, name, tuple(int(axis) for axis in axes))
        if not isinstance(self.experts, bool):
            raise TypeError(
                check.message("`experts` to be a bool", f"experts={self.experts!r:.80}", mend)
            )

    def resolve(self, ndim):
        """Returns the same with non-negative axes; raises ValueError for axes that are not there.

        A weight with one axis takes the usual (-2,) as its only one.
        """
        for axis in (*self.inputs, *self.outputs, *(self.reduced or ())):
            if not -max(ndim, 2) <= axis < max(ndim, 1) or ndim == 0:
                raise ValueError(
                    check.message(
                        f"axes of a weight with {ndim} axes",
                        f"axis {axis}",
                        "Count from 0, or from the end with negative numbers.",
                    )
                )
        return KernelAxes(
            tuple(axis % ndim for axis in self.inputs),
            tuple(axis % ndim for axis in self.outputs),
            None if self.reduced is None else tuple(axis % ndim for axis in self.reduced),
            self.experts,
        )

    @property
    def of_product(self):
        """The same axes, with the axes that the product sums over as inputs."""
        if self.reduced is None:
            return self
        return KernelAxes(self.reduced, self.inputs, experts=self.experts)

    def spatial(self, ndim):
        """Returns the axes that count neither inputs nor outputs."""
        known = self.resolve(ndim)
        return tuple(a for a in range(ndim) if a not in known.inputs + known.outputs)

    def as_matrices(self, ndim):
        """Returns the axis order `(spatial, inputs, outputs)` that turns a kernel into matrices.

        An axis that counts both is treated as an output axis: a depthwise kernel has one input.
        """
        known = self.resolve(ndim)
        inputs = tuple(a for a in known.inputs if a not in known.outputs)
        return self.spatial(ndim), inputs, known.outputs


def matrix_shape(shape, axes):
    spatial, inputs, outputs = axes.as_matrices(len(shape))
    return tuple(prod(shape[a] for a in part) for part in (spatial, inputs, outputs))


def to_matrices(array, axes):
    """Returns a kernel, an array or a tensor, as (positions of the window, inputs, outputs)."""
    shape = tuple(int(n) for n in array.shape)
    order = sum(axes.as_matrices(len(shape)), ())
    names = namespace_of(array)
    return names.reshape(names.transpose(array, order), matrix_shape(shape, axes))


def from_matrices(matrices, shape, axes):
    """Undoes `to_matrices` for a kernel of this shape."""
    order = sum(axes.as_matrices(len(shape)), ())
    names = namespace_of(matrices)
    moved = names.reshape(matrices, tuple(shape[a] for a in order))
    back = names.transpose(moved, tuple(int(axis) for axis in np.argsort(order)))
    return np.ascontiguousarray(back) if names is np else back


def namespace_of(array):
    """Returns `numpy` for an array, and `keras.ops` for a tensor."""
    return np if isinstance(array, (np.ndarray, np.generic)) else ops
