"""The sparse form of Dense."""

import keras
from keras import ops

from tfprune._base import validation as check
from tfprune.sparse.layers.base import SparseLayer, activated, flat


@keras.saving.register_keras_serializable(package="tfprune")
class SparseDense(SparseLayer):
    """A Dense layer that stores only nonzero weights.

    `tfprune.to_sparse` makes it. It computes the same as the Dense layer, up to rounding, and
    cannot be trained.

    Args:
        units: Number of outputs.
        nonzeros: Number of nonzero weights.
        activation: Activation function, as in Dense.
        use_bias: Whether there is a bias.
        **kwargs: Arguments of `keras.layers.Layer`.

    Example:

    >>> layer = tfprune.sparse.SparseDense(3, nonzeros=2, use_bias=False)
    >>> layer.build((None, 2))
    >>> layer.put([[0, 1], [2, 0], [0, 0]])
    >>> keras.ops.convert_to_numpy(layer(np.array([[1.0, 10.0]], "float32"))).tolist()
    [[10.0, 2.0, 0.0]]
    """

    def __init__(self, units, nonzeros, activation=None, use_bias=True, **kwargs):
        super().__init__(nonzeros, activation, use_bias, **kwargs)
        self.units = check.integer("units", units, 1, "Use for instance 64.")

    def matrix_shape(self, input_shape):
        return self.units, input_shape[-1]

    def dense_shape(self):
        return self.sizes[1], self.units

    def compute_output_shape(self, input_shape):
        return (*input_shape[:-1], self.units)

    def call(self, inputs, training=None):
        self.check_call(training)
        outputs = self.product(flat(inputs, self.sizes[1]))
        if self.bias is not None:
            outputs = ops.add(outputs, ops.cast(self.bias, outputs.dtype))
        outputs = activated(self, outputs)
        if len(inputs.shape) == 2:
            return outputs
        return ops.reshape(outputs, (-1, *ops.shape(inputs)[1:-1], self.units))

    def get_config(self):
        return {**super().get_config(), "units": self.units}
