"""Shared by all sparse layers: variables, files, the product, and the error in training."""

from typing import Any

import keras
import numpy as np
from keras import activations, ops

from tfprune import _keras
from tfprune._base import validation as check
from tfprune._layers.stored import StoredKernel, StoresNonzeros
from tfprune.sparse import kernels
from tfprune.sparse.storage import CompressedRows


class SparseLayer(keras.layers.Layer, StoresNonzeros):
    """A layer with one matrix of weights, stored without its zeros, and a bias.

    A subclass says the shape of its matrix in `matrix_shape`, that of the kernel in `dense_shape`,
    and calls `product`.

    Args:
        nonzeros: Number of nonzero weights.
        activation: Activation function.
        use_bias: Whether there is a bias.
        **kwargs: Arguments of `keras.layers.Layer`.
    """

    supports_masking = True

    def __init__(self, nonzeros, activation=None, use_bias=True, **kwargs):
        kwargs.setdefault("trainable", False)
        super().__init__(**kwargs)
        self.nonzeros = check.integer("nonzeros", nonzeros, 0, "Count the nonzero weights.")
        self.activation = activations.get(activation)
        self.use_bias = use_bias
        # XLA knows none of TensorFlow's sparse kernels.
        self.supports_jit = _keras.backend() != "tensorflow"

    def matrix_shape(self, input_shape):
        """Returns `(outputs, inputs)`, the shape of the matrix."""
        raise NotImplementedError

    def dense_shape(self):
        """Returns the shape of the kernel with its zeros, once the layer is built."""
        raise NotImplementedError

    def bias_shape(self, input_shape):
        """Returns the shape of the bias; by default, one for each row of the matrix."""
        return (self.sizes[0],)

    @property
    def stored(self):
        return StoredKernel(self.dense_shape(), self.nonzeros)

    @property
    def compressed(self):
        return [self.values, *self.indices]

    def build(self, input_shape):
        self.sizes = tuple(self.matrix_shape(input_shape))
        self.values = self._variable("values", (self.nonzeros,), "float32")
        specs = kernels.active().index_specs(self.nonzeros, self.sizes)
        self.indices = [self._variable(name, *spec) for name, spec in specs.items()]
        self.bias: Any = None
        if self.use_bias:
            self.bias = self._variable("bias", self.bias_shape(input_shape), "float32")
        self._put(CompressedRows.empty(self.nonzeros, self.sizes))
        self.built = True

    def _variable(self, name, shape, dtype):
        return self.add_weight(
            name=name,
            shape=shape,
            dtype=dtype,
            initializer="zeros",
            trainable=False,
            autocast=False,
        )

    def _put(self, rows):
        self.values.assign(rows.values)
        made = kernels.active().indices(rows)
        for variable, array in zip(self.indices, made.values(), strict=True):
            variable.assign(array)

    def put(self, matrix, bias=None):
        """Stores a matrix and a bias.

        Args:
            matrix: Array of the shape of the matrix, with as many nonzeros as the layer has.
            bias: Array of the shape of the bias, or `None`.
        """
        self._put(CompressedRows.of(np.asarray(matrix, "float32")))
        if self.use_bias:
            self.bias.assign(np.asarray(bias, "float32").reshape(self.bias.shape))

    def matrix(self):
        """Returns the matrix with its zeros, as an array of shape `(outputs, inputs)`."""
        return self._compressed().dense()

    def _compressed(self):
        arrays = {name: _keras.on_host(array) for name, array in self._indices().items()}
        columns, counts = kernels.active().columns_and_counts(arrays, self.sizes)
        return CompressedRows(_keras.on_host(self.values), columns, counts, self.sizes)

    def _indices(self):
        names = kernels.active().index_specs(self.nonzeros, self.sizes)
        return {name: variable.value for name, variable in zip(names, self.indices, strict=True)}

    def product(self, inputs):
        """Multiplies.

        Args:
            inputs: Tensor of shape `(examples, inputs of the matrix)`.

        Returns:
            Tensor of shape `(examples, outputs of the matrix)`.
        """
        return kernels.active().product(self.values.value, self._indices(), self.sizes, inputs)

    def check_call(self, training):
        """Raises in training."""
        if training:
            raise ValueError(not_for_training(f"training=True in sparse layer '{self.name}'"))

    def compute_mask(self, inputs, previous_mask=None):
        return previous_mask

    # -- Files ---------------------------------------------------------------------------------

    def save_own_variables(self, store):
        for name, array in self._compressed().packed().items():
            store[name] = array
        if self.use_bias:
            store["bias"] = _keras.on_host(self.bias)

    def load_own_variables(self, store):
        rows = CompressedRows.unpacked(store, self.nonzeros, self.sizes, self.name)
        self._put(rows)
        if self.use_bias:
            self.bias.assign(np.asarray(store["bias"]))

    def get_config(self):
        return {
            **super().get_config(),
            "nonzeros": self.nonzeros,
            "activation": activations.serialize(self.activation),
            "use_bias": self.use_bias,
        }


def not_for_training(received):
    """The message for an attempt to train."""
    return check.message(
        "a sparse model to be used only for prediction",
        received,
        "Train the model that tfprune.to_sparse was given, and convert it again.",
    )


def activated(layer, outputs):
    """Applies a layer's activation, if it has one."""
    return outputs if layer.activation is None else layer.activation(outputs)


def flat(inputs, columns):
    """Returns inputs as a matrix of `columns` columns; a matrix is returned unchanged."""
    return inputs if len(inputs.shape) == 2 else ops.reshape(inputs, (-1, columns))
