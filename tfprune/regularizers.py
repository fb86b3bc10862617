"""Regularizers: penalties that push whole units of a weight towards zero during training."""

import math
import numbers

import keras
import numpy as np
from keras import ops

from tfprune import patterns
from tfprune._base import validation as check


@keras.saving.register_keras_serializable(package="tfprune")
class GroupLasso(keras.regularizers.Regularizer):
    """Group lasso: `strength * sum over units of sqrt(size of the unit) * ||unit||_2`.

    L1 makes single weights small; group lasso makes whole filters, channels or blocks small, so
    that pruning them later costs little accuracy. Its gradient at an all-zero unit is zero, so
    pruned units do not affect it.

    Args:
        strength: Factor of the penalty, a number of at least 0; often 1e-5 to 1e-3.
        pattern: The pattern of a unit: `Filter`, `Channel`, `Kernel`, `Row`, `Column`, `Slice` or
            `Block`, or the name of one. Its `pooling` has no effect here.
        axes: `tfprune.patterns.KernelAxes` of the weight; by default the last axis counts outputs
            and the one before it inputs, as in Dense and Conv kernels.

    Raises:
        ValueError: If the strength is negative or not finite, or the pattern has units of single
            weights; when called, if the pattern does not fit the weight.
        TypeError: If an argument has the wrong type.

    Example:

    >>> penalty = tfprune.GroupLasso(0.5, "filter")
    >>> round(float(penalty(np.array([[3.0, 0.0], [4.0, 0.0]], dtype="float32"))), 4)
    3.5355
    >>> layer = keras.layers.Conv2D(32, 3, kernel_regularizer=tfprune.GroupLasso(1e-4))

    Reference:

    - [Yuan & Lin, 2006: Model selection and estimation in regression with grouped
      variables](https://doi.org/10.1111/j.1467-9868.2005.00532.x)
    - [Wen et al., 2016: Learning Structured Sparsity in Deep Neural
      Networks](https://arxiv.org/abs/1608.03665)
    """

    def __init__(self, strength, pattern="filter", axes=None):
        self.strength = _strength(strength)
        self.pattern = patterns.get(pattern)
        if not isinstance(self.pattern, (patterns.SlicePattern, patterns.Block)):
            raise ValueError(
                check.message(
                    "a slice pattern or Block for GroupLasso",
                    f"pattern={self.pattern}",
                    "For single weights use keras.regularizers.L1.",
                )
            )
        self.axes = _kernel_axes(axes)

    def __call__(self, x):
        x = ops.convert_to_tensor(x)
        shape = tuple(x.shape)
        self.pattern.check(shape, self.axes)
        squares = ops.square(x)
        if isinstance(self.pattern, patterns.Block):
            totals, sizes = self._of_blocks(squares, shape)
        else:
            totals, sizes = self._of_slices(squares, shape)
        # The square root has no gradient at zero, so zeros are replaced before it is taken.
        some = totals > 0
        norms = ops.where(some, ops.sqrt(ops.where(some, totals, 1)), 0)
        return self.strength * ops.sum(norms * ops.convert_to_tensor(np.sqrt(sizes), norms.dtype))

    def _of_slices(self, squares, shape):
        """Returns the sum of each unit, and the number of weights in a unit."""
        pooled = self.pattern.pooled_axes(len(shape), self.axes)
        totals = ops.sum(squares, axis=pooled) if pooled else squares
        return totals, math.prod(shape[axis] for axis in pooled)

    def _of_blocks(self, squares, shape):
        """Returns the sum of each block, and the number of weights in each."""
        tiles = self.pattern.tiles(squares, self.axes)
        return ops.sum(tiles, axis=(2, 4)), self.pattern.weights_in_block(shape, self.axes)

    def get_config(self):
        return {
            "strength": self.strength,
            "pattern": keras.saving.serialize_keras_object(self.pattern),
            "axes": {"inputs": list(self.axes.inputs), "outputs": list(self.axes.outputs)},
        }


def _strength(value):
    number = isinstance(value, (numbers.Real, np.floating)) and not isinstance(value, bool)
    if not number or not 0 <= float(value) < math.inf:
        raise (ValueError if number else TypeError)(
            check.message(
                "`strength` to be a number of at least 0",
                f"strength={value!r}",
                "Start with 1e-4 and watch the effect on the loss.",
            )
        )
    return float(value)


def _kernel_axes(axes):
    if axes is None:
        return patterns.KernelAxes()
    if isinstance(axes, dict) and set(axes) == {"inputs", "outputs"}:
        return patterns.KernelAxes(tuple(axes["inputs"]), tuple(axes["outputs"]))
    if isinstance(axes, patterns.KernelAxes):
        return axes
    raise TypeError(
        check.message(
            "`axes` to be tfprune.patterns.KernelAxes",
            f"axes={axes!r}",
            "For a transposed convolution, for instance: KernelAxes(inputs=(-1,), outputs=(-2,)).",
        )
    )
