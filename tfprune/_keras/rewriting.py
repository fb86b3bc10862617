"""New values of variables that NumPy writes into the backend's memory."""

import numpy as np

from tfprune._keras.devices import on_accelerator
from tfprune._keras.layers import backend


def rewritable(variable):
    """Whether `rewrite` can take a variable, whose value NumPy then reads without a copy."""
    # The replicas of a `tf.distribute` strategy have memory of their own.
    replicas = hasattr(variable.value, "values")
    if backend() != "tensorflow" or replicas or on_accelerator(variable):
        return False
    import tensorflow as tf

    return tf.executing_eagerly()


def rewrite(variable, write):
    """Assigns the value that NumPy writes into new memory of the backend, without a copy of it.

    On TensorFlow, an array that is assigned is copied twice. JAX and PyTorch compute on a CPU as
    fast as NumPy, so this function leaves them alone.

    Args:
        variable: Keras variable.
        write: Function `(old, new)` that fills the array `new`, given the read-only value `old`.

    Returns:
        Whether it did. If not, nothing was changed.
    """
    if not rewritable(variable):
        return False
    import tensorflow as tf

    old = tf.convert_to_tensor(variable.value)
    with tf.device(old.device):
        new = tf.raw_ops.Empty(shape=old.shape, dtype=old.dtype)
    memory = _memory(new)
    if memory is None:
        return False
    write(np.asarray(old), memory)
    # Without another reference to it, the optimizer updates the value in place.
    del memory
    variable.assign(new)
    return True


def _memory(tensor):
    """A tensor's memory as an array; `None` where TensorFlow would hand out a copy."""
    if not hasattr(tensor, "_numpy"):
        return None
    memory, again = tensor._numpy(), tensor._numpy()
    same = memory.ctypes.data == again.ctypes.data
    return memory if same and memory.flags.writeable else None
