"""The sparse form of EinsumDense."""

import math

import keras
from keras import ops

from tfprune.sparse.layers.base import SparseLayer, activated
from tfprune.sparse.layers.equation import Contraction


@keras.saving.register_keras_serializable(package="tfprune")
class SparseEinsumDense(SparseLayer):
    """An EinsumDense layer that stores only nonzero weights.

    `tfprune.to_sparse` makes it. Its equation is a matrix product: no axis of the kernel is an
    axis of the inputs and of the outputs at once.

    Args:
        equation: The equation, as in EinsumDense.
        output_shape: Shape of the outputs without the batch, as in EinsumDense.
        kernel_shape: Shape of the kernel with its zeros.
        bias_axes: Axes of the bias, as in EinsumDense; `None` for no bias.
        nonzeros: Number of nonzero weights.
        activation: Activation function.
        **kwargs: Arguments of `keras.layers.Layer`.

    Example:

    >>> layer = tfprune.sparse.SparseEinsumDense(
    ...     "abc,cd->abd", (None, 2), kernel_shape=(3, 2), bias_axes=None, nonzeros=1)
    >>> layer.build((None, 4, 3))
    >>> layer.put([[0, 0, 5], [0, 0, 0]])
    >>> keras.ops.convert_to_numpy(layer(np.ones((1, 4, 3), "float32")))[0, 0].tolist()
    [5.0, 0.0]
    """

    def __init__(
        self, equation, output_shape, kernel_shape, bias_axes, nonzeros, activation=None, **kwargs
    ):
        super().__init__(nonzeros, activation, bias_axes is not None, **kwargs)
        self.equation = equation
        self.output_sizes = output_shape
        self.kernel_shape = tuple(kernel_shape)
        self.bias_axes = bias_axes

    def build(self, input_shape):
        self.contraction = Contraction.of(self.equation, len(input_shape))
        super().build(input_shape)

    def matrix_shape(self, input_shape):
        return self.contraction.matrix_shape(self.kernel_shape)

    def dense_shape(self):
        return self.kernel_shape

    def bias_shape(self, input_shape):
        return self.contraction.bias_shape(self.kernel_shape, input_shape, self.bias_axes)

    def compute_output_shape(self, input_shape):
        contraction = Contraction.of(self.equation, len(input_shape))
        return contraction.output_shape(self.kernel_shape, input_shape)

    def call(self, inputs, training=None):
        self.check_call(training)
        plan = self.contraction
        sizes = ops.shape(inputs)
        examples = [sizes[axis] for axis in plan.examples]
        inputs = ops.transpose(inputs, plan.before)
        outputs = self.product(ops.reshape(inputs, (-1, self.sizes[1])))
        made = [self.kernel_shape[axis] for axis in plan.made]
        # One size may be left open: the first, which is the batch.
        first = -1 if examples and 0 not in made else math.prod(examples)
        outputs = ops.reshape(outputs, (first, *examples[1:], *made))
        outputs = ops.transpose(outputs, plan.after)
        if self.bias is not None:
            outputs = ops.add(outputs, self.bias)
        return activated(self, outputs)

    def get_config(self):
        config = super().get_config()
        del config["use_bias"]
        return {
            **config,
            "equation": self.equation,
            "output_shape": self.output_sizes,
            "kernel_shape": self.kernel_shape,
            "bias_axes": self.bias_axes,
        }
