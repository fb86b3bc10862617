"""Times two layers or models in turn, compiled as `predict` compiles them."""

import time
from dataclasses import dataclass

import keras
import numpy as np

from tfprune import _keras

# A run is repeated until it takes as long, so that the clock's own time does not count.
_SECONDS = 0.002


@dataclass(frozen=True)
class Race:
    """Two computations, timed in turn.

    Attributes:
        dense: Median time in seconds.
        sparse: The same.
        gain: How many times as fast the sparse form is: the smaller of the ratio of the fastest
            rounds, and the median of the ratios round by round.
    """

    dense: float
    sparse: float
    gain: float


def race(dense, sparse, calls, runs):
    """Times a layer or model against its sparse form.

    Args:
        dense: The layer or model.
        sparse: Its sparse form.
        calls: List of inputs; a run takes each of them once.
        runs: Number of rounds.

    Returns:
        A `Race`.
    """
    sides = [_repeated(_compiled(side), calls) for side in (dense, sparse)]
    seconds = np.array([[side() for side in sides] for _ in range(runs)])
    dense_median, sparse_median = np.median(seconds, axis=0).tolist()
    fastest = seconds.min(axis=0)
    gains = np.median(seconds[:, 0] / seconds[:, 1]), fastest[0] / fastest[1]
    return Race(dense_median, sparse_median, float(min(gains)))


def _repeated(function, calls):
    def once(number):
        start = time.perf_counter()
        for _ in range(number):
            for inputs in calls:
                function(inputs)
        return (time.perf_counter() - start) / number

    once(1)
    number = max(1, int(_SECONDS / max(once(1), 1e-7)))
    return lambda: once(number)


def _compiled(layer):
    """Returns a function that runs a layer and waits until it is done."""
    if _keras.backend() == "torch":
        return _on_torch(layer)
    if _keras.backend() == "jax":
        return _on_jax(layer)
    return _on_tensorflow(layer)


def _on_torch(layer):
    import torch

    def run(inputs):
        with torch.no_grad():
            layer(inputs)
        if torch.cuda.is_available():
            torch.cuda.synchronize()

    return run


def _on_jax(layer):
    import jax

    state = [
        [v.value for v in v] for v in (layer.trainable_variables, layer.non_trainable_variables)
    ]
    compiled = jax.jit(lambda state, inputs: layer.stateless_call(*state, inputs)[0])
    return lambda inputs: jax.block_until_ready(compiled(state, inputs))


def _on_tensorflow(layer):
    import tensorflow as tf

    compiled = tf.function(layer)

    def run(inputs):
        # Reading one number waits for a device that runs on its own.
        for tensor in keras.tree.flatten(compiled(inputs)):
            tf.reshape(tensor, (-1,))[:1].numpy()

    return run
