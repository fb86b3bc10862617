"""Values on many devices: where variables lie, and how values that span processes are read."""

import contextlib
import itertools

import keras
import numpy as np
from keras import ops
from keras.src.backend.common import global_state

from tfprune._base import validation as check
from tfprune._keras.replicas import has_copies

# Seconds that a process waits for the others before it says that they are missing.
PATIENCE = 300
_READS = itertools.count()


class _Fixed:
    """A distribution that gives each variable the same layout."""

    def __init__(self, layout):
        self._layout = layout

    def get_variable_layout(self, variable):
        return self._layout


def laid_out_like(variable):
    """Context in which new variables lie on the devices as `variable` does.

    The patterns of a `LayoutMap` know the names of weights, and not those of their masks.
    """
    return _laid_out(getattr(variable, "_layout", None))


@contextlib.contextmanager
def everywhere(axes):
    """Context in which new variables with so many axes are whole on each device."""
    distribution = global_state.get_global_attribute("distribution")
    mesh = getattr(distribution, "device_mesh", None)
    layout = None
    if mesh is not None:
        from keras.distribution import TensorLayout

        layout = TensorLayout([None] * axes, mesh)
    with _laid_out(layout):
        yield


@contextlib.contextmanager
def _laid_out(layout):
    if layout is None:
        yield
        return
    before = global_state.get_global_attribute("distribution")
    global_state.set_global_attribute("distribution", _Fixed(layout))
    try:
        yield
    finally:
        global_state.set_global_attribute("distribution", before)


def spans_processes(value):
    """Whether no process holds a whole tensor, so that all of them have to take part in a read."""
    whole = getattr(value, "is_fully_replicated", True)
    return not (whole or getattr(value, "is_fully_addressable", True))


def on_host(tensor):
    """Returns a tensor as a NumPy array; one that spans processes is gathered from all of them.

    Raises:
        RuntimeError: If not all processes call it.
    """
    if isinstance(tensor, keras.Variable):
        tensor = tensor.value
    if not spans_processes(tensor):
        return np.asarray(ops.convert_to_numpy(tensor))
    from jax.experimental import multihost_utils

    _meet()
    return np.asarray(multihost_utils.process_allgather(tensor, tiled=True))


def _meet():
    """Waits until all processes are here; collective operations themselves wait for ever."""
    from jax._src import distributed

    client = getattr(distributed.global_state, "client", None)
    if client is None:
        return
    try:
        client.wait_at_barrier(f"tfprune_read_{next(_READS)}", PATIENCE * 1000)
    except Exception as error:
        raise RuntimeError(
            check.message(
                "all processes to read the weights, which span them",
                f"{error!s:.200}",
                "Call reports, strip_pruning and all else that reads weights in each process: "
                "not inside of `if process_id == 0`.",
            )
        ) from error


def on_accelerator(variable):
    """Whether a variable lies on a GPU or a TPU."""
    value = variable.value
    if keras.backend.backend() == "jax":
        return any(device.platform != "cpu" for device in value.devices())
    if keras.backend.backend() == "torch":
        return value.device.type != "cpu"
    return any(kind in getattr(value, "device", "") for kind in ("GPU", "TPU"))


def is_one_tensor(variable):
    """Whether a variable can be read as one tensor.

    Replicas of a `tf.distribute` strategy hold copies of one, but for variables that each of them
    writes by itself.
    """
    if keras.backend.backend() != "tensorflow" or not hasattr(variable.value, "values"):
        return True
    return has_copies(variable)


def is_fully_sharded(model):
    """Whether PyTorch's `fully_shard` replaced the parameters of a model."""
    if keras.backend.backend() != "torch":
        return False
    return any(type(parameter).__name__ == "DTensor" for parameter in model.parameters())


def layout_of(tensor):
    """Returns a text that differs for tensors that lie differently on the devices."""
    return str(getattr(tensor, "sharding", ""))


def is_spread(tensor):
    """Whether devices hold parts of a tensor."""
    return not getattr(tensor, "is_fully_replicated", True)


def any_along(variable, axes):
    """Returns, as a NumPy array, whether any value of a bool variable is True along some axes."""
    if on_accelerator(variable) or spans_processes(variable.value):
        return on_host(ops.any(variable, axis=axes))
    return on_host(variable).any(axis=axes)


def as_bits(tensor):
    """Returns the bits of a float32 tensor as int32."""
    if keras.backend.backend() == "jax":
        import jax

        return jax.lax.bitcast_convert_type(tensor, "int32")
    if keras.backend.backend() == "torch":
        import torch

        return tensor.contiguous().view(torch.int32)
    import tensorflow as tf

    return tf.bitcast(tensor, tf.int32)


def compiled(function):
    """Compiles a function of tensors in lists and tuples, where the backend compiles."""
    if keras.backend.backend() == "jax":
        import jax

        return jax.jit(function)
    if keras.backend.backend() == "torch":
        import torch

        return torch.no_grad()(function)
    import tensorflow as tf

    run = tf.function(function, jit_compile=True, autograph=False)

    def on_tensors(*args):
        # A NumPy array would be a constant, and each new one would be compiled again.
        tensors = keras.tree.map_structure(tf.convert_to_tensor, args)
        # To call `run` itself, for several shapes and devices, TensorFlow takes for a mistake.
        return run.get_concrete_function(*tensors)(*tensors)

    return on_tensors


def count_kept(variable):
    """Returns the number of True values in a bool variable, counted where it lies."""
    return int(on_host(ops.sum(variable)))
