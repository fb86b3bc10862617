"""Measures how long a model takes to predict."""

import time
from dataclasses import dataclass

import keras
import numpy as np

from tfprune import _keras
from tfprune._base import validation as check
from tfprune._keras.checks import check_built, not_keras


@dataclass(frozen=True)
class Latency:
    """The time in seconds that a model takes to predict one batch on this machine.

    `str(latency)` is one line of text.

    Attributes:
        median: Median of the runs.
        low: Lower quartile of the runs.
        high: Upper quartile of the runs.
        runs: Number of runs.
        batch_size: Examples in the batch.
    """

    median: float
    low: float
    high: float
    runs: int
    batch_size: int

    def __str__(self):
        middle, low, high = (1000 * value for value in (self.median, self.low, self.high))
        return f"{middle:.2f} ms ({low:.2f} to {high:.2f})"


def measure_latency(model, batch_size=1, runs=30, warmup=3, input_shape=None):
    """Measures how long a model takes to predict one batch.

    Times `model.predict_on_batch`: the function that Keras compiles for the backend, including
    the transfer of the arrays. Floating-point inputs are drawn from a normal distribution;
    integer inputs are zeros. On a busy machine, compare models with `compare_latency` rather than
    across separate calls.

    Args:
        model: A built Sequential or Functional model, plain or wrapped. It is not changed.
        batch_size: Examples in the batch.
        runs: Number of timed batches.
        warmup: Number of batches predicted before the timed ones; the first one compiles.
        input_shape: Shape of the input without the batch, needed if the model leaves it open; for
            several inputs, a list with one shape for each.

    Returns:
        A `Latency`, in seconds.

    Raises:
        TypeError: If `model` is not a Keras 3 model, or a number is not whole.
        ValueError: If the model is not built, its `call` is code, a shape is unknown or does not
            fit, or an input takes strings.

    Example:

    >>> model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(4)])
    >>> latency = tfprune.measure_latency(model, batch_size=32, runs=5)
    >>> 0 < latency.low <= latency.median <= latency.high, latency.runs
    (True, 5)
    """
    return compare_latency({"model": model}, batch_size, runs, warmup, input_shape)["model"]


def compare_latency(models, batch_size=1, runs=30, warmup=3, input_shape=None):
    """Measures how long several models take to predict one batch, alternating between them.

    The models take turns run by run, so that a temporary slowdown of the machine affects all of
    them. See `measure_latency` for the measurement, the other arguments and the errors.

    Args:
        models: `{name: model}`.

    Returns:
        `{name: Latency}`.

    Example:

    >>> model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(4), keras.layers.Dense(2)])
    >>> small = tfprune.remove_channels(model, {model.layers[0].name: [0, 1]})
    >>> list(tfprune.compare_latency({"before": model, "after": small}, runs=5))
    ['before', 'after']
    """
    if not isinstance(models, dict) or not models:
        raise TypeError(
            check.message(
                "`models` to be a dictionary from names to models",
                f"models={models!r}",
                'Use for instance {"before": model, "after": small}.',
            )
        )
    batch_size = check.integer("batch_size", batch_size, 1, "Use for instance 1.")
    runs = check.integer("runs", runs, 1, "Use for instance 30.")
    warmup = check.integer("warmup", warmup, 1, "The first run compiles, so skip at least 1.")
    given = {name: example_inputs(model, batch_size, input_shape) for name, model in models.items()}
    compiled = {name: model.predict_function for name, model in models.items()}
    seconds: dict = {name: [] for name in models}
    try:
        for turn in range(warmup + runs):
            # Rotate the order, so that no model always follows the same one.
            names = list(models)[turn % len(models) :] + list(models)[: turn % len(models)]
            for name in names:
                start = time.perf_counter()
                models[name].predict_on_batch(given[name])
                seconds[name].append(time.perf_counter() - start)
    finally:
        for name, model in models.items():
            model.predict_function = compiled[name]
    return {name: _summary(values[warmup:], batch_size) for name, values in seconds.items()}


def _summary(seconds, batch_size):
    low, middle, high = np.quantile(seconds, [0.25, 0.5, 0.75]).tolist()
    return Latency(middle, low, high, len(seconds), batch_size)


def example_inputs(model, batch_size, input_shape=None):
    """Returns example arrays in the structure of a model's inputs."""
    if not isinstance(model, keras.Model):
        raise TypeError(not_keras(model, "model"))
    check_built(model)
    if not _keras.is_graph(model):
        raise ValueError(
            check.message(
                "a Sequential or Functional model, which knows the shapes of its inputs",
                f"'{model.name}' of class {type(model).__name__}",
                "Build the same layers with keras.Model(inputs, outputs).",
            )
        )
    structure = _keras.symbolic_inputs(model)
    tensors = keras.tree.flatten(structure)
    shapes = _shapes(model, tensors, input_shape)
    random = np.random.default_rng(0)
    arrays = [
        _array(model, tensor, (batch_size, *shape), random)
        for tensor, shape in zip(tensors, shapes, strict=True)
    ]
    return keras.tree.pack_sequence_as(structure, arrays)


def _shapes(model, tensors, input_shape):
    known = [tuple(tensor.shape[1:]) for tensor in tensors]
    if input_shape is None:
        given = known
    else:
        several = any(isinstance(size, (list, tuple)) for size in input_shape)
        given = [tuple(shape) for shape in input_shape] if several else [tuple(input_shape)]
    fits = len(given) == len(known) and all(
        len(shape) == len(own) and all(n in (None, m) for n, m in zip(own, shape, strict=True))
        for shape, own in zip(given, known, strict=True)
    )
    if not fits:
        raise ValueError(
            check.message(
                f"shapes that fit the inputs of '{model.name}', " + ", ".join(map(str, known)),
                f"input_shape={input_shape!r}",
                "Replace each `None` by a number, without the batch; for several inputs, pass a "
                "list.",
            )
        )
    if any(None in shape for shape in given):
        raise ValueError(
            check.message(
                "inputs whose shapes are known",
                f"'{model.name}', which takes " + ", ".join(map(str, known)),
                "Pass the shape, for instance input_shape=(224, 224, 3).",
            )
        )
    return given


def _array(model, tensor, shape, random):
    fixed = tensor.shape[0]
    if fixed not in (None, shape[0]):
        raise ValueError(
            check.message(
                f"batch_size={fixed}, the fixed batch size of '{model.name}'",
                f"batch_size={shape[0]}",
                f"Use {fixed}, or build the model without a batch size.",
            )
        )
    if tensor.dtype == "string":
        raise ValueError(
            check.message(
                "numeric inputs",
                f"'{model.name}', whose input '{tensor.name}' takes strings",
                "Measure the part of the model after the layers that read strings.",
            )
        )
    if "float" in tensor.dtype:
        return random.normal(size=shape).astype("float32")
    return np.zeros(shape, tensor.dtype)
