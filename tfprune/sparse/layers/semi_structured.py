"""The form of Dense for the sparse tensor cores of NVIDIA GPUs."""

import keras
import numpy as np
from keras import ops

from tfprune import _keras
from tfprune.sparse.layers.dense import SparseDense

# The dtypes in which PyTorch multiplies such matrices to rounding; float32 would be TF32.
HALF = ("float16", "bfloat16")


@keras.saving.register_keras_serializable(package="tfprune")
class SemiStructuredDense(SparseDense):
    """A Dense layer of which at least two in every four inputs of a unit have no weight.

    `tfprune.to_sparse` makes it from layers that compute in float16 or bfloat16, pruned with
    `NOfM(2, 4)`, on PyTorch with an NVIDIA GPU, where it is faster. On other devices and backends
    it computes with compressed rows, in float32. Its speed is not measured.

    Args:
        units: Number of outputs.
        nonzeros: Number of nonzero weights.
        activation: Activation function, as in Dense.
        use_bias: Whether there is a bias.
        **kwargs: Arguments of `keras.layers.Layer`.

    Example:

    >>> layer = tfprune.sparse.SemiStructuredDense(1, nonzeros=2, use_bias=False)
    >>> layer.build((None, 4))
    >>> layer.put([[0, 1, 0, 2]])
    >>> keras.ops.convert_to_numpy(layer(np.ones((1, 4), "float32"))).tolist()
    [[3.0]]
    """

    _tensor = None

    def _put(self, rows):
        super()._put(rows)
        self._tensor = None

    def product(self, inputs):
        if not _has_tensor_cores(inputs):
            outputs = super().product(ops.cast(inputs, "float32"))
            return ops.cast(outputs, self.compute_dtype)
        import torch

        if self._tensor is None:
            matrix = torch.as_tensor(self.matrix(), dtype=inputs.dtype, device=inputs.device)
            self._tensor = torch.sparse.to_sparse_semi_structured(matrix)
        return torch.nn.functional.linear(inputs, self._tensor)


def has_semi_structured_kernels():
    """Whether the present backend and device multiply such matrices."""
    if _keras.backend() != "torch":
        return False
    import torch

    return torch.cuda.is_available() and torch.cuda.get_device_capability() >= (8, 0)


def is_semi_structured(matrix):
    """Whether at least two in every four weights of each row of a matrix are zero."""
    height, width = matrix.shape
    if width % 4:
        return False
    return bool((np.count_nonzero(matrix.reshape(height, -1, 4), axis=-1) <= 2).all())


def _has_tensor_cores(inputs):
    if not has_semi_structured_kernels():
        return False
    return inputs.is_cuda and str(inputs.dtype).removeprefix("torch.") in HALF
