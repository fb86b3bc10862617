"""What tests ask of Keras: its backend, what a model computes, which optimizers can train."""

import functools

import keras
import numpy as np
import pytest

# Marks of what a plain `pytest` leaves out. The checks of the other backends have no slow set.
SLOW_ON_TENSORFLOW = [pytest.mark.slow] if keras.backend.backend() == "tensorflow" else []


def outputs(model, x):
    """What a model with one output computes; `predict` would compile it for a single call."""
    return keras.ops.convert_to_numpy(model(x, training=False))


@functools.cache
def _failure(name):
    """Why a plain model cannot be trained with an optimizer of Keras's, or `None`."""
    if not hasattr(keras.optimizers, name):
        return f"Keras {keras.__version__} has no {name}"
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(4), keras.layers.Dense(2)])
    model.compile(getattr(keras.optimizers, name)(), "mse")
    try:
        model.train_on_batch(np.ones((2, 4), "float32"), np.ones((2, 2), "float32"))
    except AttributeError as error:
        backend = keras.backend.backend()
        return f"{name} of Keras {keras.__version__} trains no plain model on {backend}: {error}"
    return None


def muon(learning_rate):
    """Returns a Muon optimizer, or skips the test where Keras has none that works."""
    reason = _failure("Muon")
    if reason:
        pytest.skip(reason)
    return keras.optimizers.Muon(learning_rate)


needs_multi_optimizer = pytest.mark.skipif(
    not hasattr(keras.optimizers, "MultiOptimizer"),
    reason=f"Keras {keras.__version__} has no MultiOptimizer",
)
