"""Seconds that a model takes to predict, measured."""

import time
from dataclasses import dataclass

import keras
import numpy as np

from tfprune import _keras
from tfprune._base import validation as check
from tfprune._keras.checks import check_built, not_keras


@dataclass(frozen=True)
class Latency:
    """Seconds that a model takes to predict one batch, on this machine. Its text is a line.

    Attributes:
        median: The median of the runs.
        low: Their lower quartile.
        high: Their upper quartile.
        runs: How many there were.
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

    What is measured is `model.predict_on_batch`: the function that Keras compiles for the
    backend, with the arrays' way there and back. Numbers given in are drawn from a normal
    distribution, integers are zeros. On a machine that does other things too, compare models with
    `compare_latency` and not from call to call.

    Args:
        model: A built Sequential or Functional model, plain or wrapped. It is not changed.
        batch_size: Examples in the batch.
        runs: How many batches are timed.
        warmup: How many are predicted before; the first one compiles.
        input_shape: The shape of the input without the batch, needed where the model leaves it
            open; for several inputs, a list with one for each.

    Returns:
        A `Latency`, in seconds.

    Raises:
        TypeError: If `model` is no Keras 3 model, or a number is not whole.
        ValueError: If the model is not built, its `call` is code, a shape is not known or does
            not fit, or an input takes strings.

    Example:

    >>> model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(4)])
    >>> latency = tfprune.measure_latency(model, batch_size=32, runs=5)
    >>> 0 < latency.low <= latency.median <= latency.high, latency.runs
    (True, 5)
    """
    return compare_latency({"model": model}, batch_size, runs, warmup, input_shape)["model"]


def compare_latency(models, batch_size=1, runs=30, warmup=3, input_shape=None):
    """Measures how long several models take to predict one batch, in turn.

    One run of each, then the next of each: what slows the machine down for a while meets all of
    them. See `measure_latency` for what is measured, the other arguments and the errors.

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
                "`models` to be a dictionary of models by name",
                f"models={models!r}",
                'Use for instance {"before": model, "after": small}.',
            )
        )
    batch_size = check.integer("batch_size", batch_size, 1, "Use for instance 1.")
    runs = check.integer("runs", runs, 1, "Use for instance 30.")
    warmup = check.integer("warmup", warmup, 1, "The first run compiles: leave out at least 1.")
    given = {name: example_inputs(model, batch_size, input_shape) for name, model in models.items()}
    compiled = {name: model.predict_function for name, model in models.items()}
    seconds: dict = {name: [] for name in models}
    try:
        for turn in range(warmup + runs):
            # Who comes first changes, so that nobody has always the same one before.
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
    """Arrays in the structure that a model takes."""
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
                "Give numbers for each `None`, without the batch; for several inputs, a list.",
            )
        )
    if any(None in shape for shape in given):
        raise ValueError(
            check.message(
                "inputs whose shapes are known",
                f"'{model.name}', which takes " + ", ".join(map(str, known)),
                "Say how large they are to be: input_shape=(224, 224, 3) for instance.",
            )
        )
    return given


def _array(model, tensor, shape, random):
    fixed = tensor.shape[0]
    if fixed not in (None, shape[0]):
        raise ValueError(
            check.message(
                f"batch_size={fixed}, which '{model.name}' is made for",
                f"batch_size={shape[0]}",
                "Use that, or make the model without a batch size.",
            )
        )
    if tensor.dtype == "string":
        raise ValueError(
            check.message(
                "inputs that are numbers",
                f"'{model.name}', whose input '{tensor.name}' takes strings",
                "Measure the model that begins behind the layers that read strings.",
            )
        )
    if "float" in tensor.dtype:
        return random.normal(size=shape).astype("float32")
    return np.zeros(shape, tensor.dtype)
