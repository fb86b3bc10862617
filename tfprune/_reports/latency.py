"""Measures how long models and files take to predict, each in its own runtime."""

import time
from dataclasses import dataclass

import numpy as np
from rich.table import Table

from tfprune._base import validation as check
from tfprune._base.progress import progress
from tfprune._base.text import as_text
from tfprune._formats.examples import random_inputs
from tfprune._formats.table import opened

# A timed run of a fast model repeats it for at least this long, so that the clock is exact enough.
_SHORTEST = 0.002
_MOST_REPEATS = 100


@dataclass(frozen=True)
class Latency:
    """The time in seconds that a model or file takes to predict one batch on this machine.

    `str(latency)` is one line of text.

    Attributes:
        median: Median of the runs.
        low: Lower quartile of the runs.
        high: Upper quartile of the runs.
        runs: Number of runs.
        batch_size: Examples in the batch.
        threads: Number of threads; `None` for as many as the runtime takes.
        runtime: Name of the runtime.
    """

    median: float
    low: float
    high: float
    runs: int
    batch_size: int
    threads: int | None = 1
    runtime: str = "Keras"

    def __str__(self):
        middle, low, high = (in_milliseconds(value) for value in (self.median, self.low, self.high))
        return f"{middle} ms ({low} to {high})"


def in_milliseconds(seconds):
    """Returns seconds as milliseconds, with a digit more where there are fewer than 0.1."""
    value = 1000 * seconds
    return f"{value:.2f}" if value >= 0.1 or not value else f"{value:.3f}"


class Latencies(dict):
    """`{name: Latency}`, or for several batch sizes `{name: {batch size: Latency}}`.

    `str(latencies)` is a table with a column for each batch size.
    """

    def by_batch(self):
        """Returns `{name: {batch size: Latency}}`."""
        return {
            name: found if isinstance(found, dict) else {found.batch_size: found}
            for name, found in self.items()
        }

    def table(self):
        """Returns the latencies as a `rich.table.Table`."""
        rows = self.by_batch()
        first = next(iter(rows.values()))
        table = Table(title=f"Milliseconds a batch: {conditions(next(iter(first.values())))}")
        table.add_column("Model")
        table.add_column("Runtime")
        for batch_size in first:
            table.add_column(f"Batch {batch_size}", justify="right")
        for name, found in rows.items():
            cells = [str(latency).replace(" ms", "") for latency in found.values()]
            table.add_row(name, next(iter(found.values())).runtime, *cells)
        return table

    def __str__(self):
        return as_text(self.table())


def conditions(latency):
    """Says in a few words how a latency was measured."""
    threads = "all" if latency.threads is None else latency.threads
    plural = "" if threads == 1 else "s"
    return f"{threads} thread{plural}, median (quartiles) of {latency.runs} runs"


def measure_latency(model, batch_size=1, runs=30, warmup=3, input_shape=None, threads=1):
    """Measures how long a model or file takes to predict one batch, in its own runtime.

    A Keras model and a `.keras` file run by `predict_on_batch`: the function that Keras compiles
    for the backend, including the transfer of the arrays. A SavedModel runs in TensorFlow,
    `.tflite` in LiteRT, `.onnx` in ONNX Runtime and `.pt2` in PyTorch, on any backend of Keras.
    Floating-point inputs are drawn from a normal distribution; integer inputs are zeros. A run of
    a fast model repeats it for two milliseconds and takes the mean. On a busy machine, compare
    models with `compare_latency` rather than across separate calls.

    Args:
        model: A built Sequential or Functional model, plain or wrapped, which is not changed. Or
            the path of a `.keras`, `.tflite`, `.onnx` or `.pt2` file or of the folder of a
            SavedModel.
        batch_size: Examples in the batch.
        runs: Number of timed runs.
        warmup: Number of batches predicted before the timed ones; the first one compiles.
        input_shape: Shape of the input without the batch, needed if the model leaves it open; for
            several inputs, a list with one shape for each.
        threads: Number of threads, or `None` for as many as the runtime takes. On Linux, Keras and
            SavedModels get as many processors instead; elsewhere, they take all.

    Returns:
        A `Latency`, in seconds.

    Raises:
        TypeError: If `model` is neither a Keras 3 model nor a path, or a number is not whole.
        ValueError: If the model is not built, its `call` is code, a file does not exist or is of
            another kind, a shape is unknown or does not fit, or an input takes strings.
        ImportError: If the runtime is not installed. The message names the extra to install.

    Example:

    >>> model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(4)])
    >>> latency = tfprune.measure_latency(model, batch_size=32, runs=5)
    >>> 0 < latency.low <= latency.median <= latency.high, latency.runs
    (True, 5)
    """
    batch_size = check.integer("batch_size", batch_size, 1, "Use for instance 1.")
    found = compare_latency({"model": model}, batch_size, runs, warmup, input_shape, threads, 0)
    return found["model"]


def compare_latency(
    models, batch_size=1, runs=30, warmup=3, input_shape=None, threads=1, verbose=1
):
    """Measures how long several models or files take to predict one batch, alternating.

    They take turns run by run, so that a temporary slowdown of the machine affects all of them.
    See `measure_latency` for the measurement, the other arguments and the errors.

    Args:
        models: `{name: model or path}`.
        batch_size: Examples in the batch, or a list of such numbers.
        verbose: 1 shows a progress bar on a terminal, 0 does not.

    Returns:
        `{name: Latency}`, or for a list of batch sizes `{name: {batch size: Latency}}`. `print` it
        as a table.

    Example:

    >>> model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(4), keras.layers.Dense(2)])
    >>> small = tfprune.remove_channels(model, {model.layers[0].name: [0, 1]})
    >>> found = tfprune.compare_latency({"before": model, "after": small}, [1, 32], runs=5)
    >>> list(found), list(found["before"])
    (['before', 'after'], [1, 32])
    """
    if not isinstance(models, dict) or not models:
        raise TypeError(
            check.message(
                "`models` to be a dictionary from names to models or files",
                f"models={models!r}",
                'Use for instance {"before": model, "after": small}.',
            )
        )
    several = isinstance(batch_size, (list, tuple))
    sizes = batch_size if several else [batch_size]
    if not sizes:
        raise ValueError(check.message("a batch size", "none", "Use for instance [1, 32]."))
    sizes = [check.integer("batch_size", size, 1, "Use for instance 1.") for size in sizes]
    runs = check.integer("runs", runs, 1, "Use for instance 30.")
    warmup = check.integer("warmup", warmup, 1, "The first run compiles, so skip at least 1.")
    if threads is not None:
        threads = check.integer("threads", threads, 1, "Use for instance 1, or None for all.")
    sessions: dict = {}
    try:
        for name, model in models.items():
            sessions[name] = opened(model, threads)
        found: dict = {name: {} for name in models}
        with progress(len(sizes) * (warmup + runs), "timed runs", verbose) as done:
            for size in sizes:
                given = {name: random_inputs(s, size, input_shape) for name, s in sessions.items()}
                for name, seconds in _in_turn(sessions, given, runs, warmup, done).items():
                    found[name][size] = _summary(seconds, size, sessions[name])
    finally:
        for session in sessions.values():
            session.close()
    return Latencies(found if several else {name: found[name][sizes[0]] for name in found})


def _in_turn(sessions, given, runs, warmup, done):
    """Returns `{name: seconds of each run}` without the first runs; calls `done` after each."""
    seconds: dict = {name: [] for name in sessions}
    repeats = dict.fromkeys(sessions, 1)
    for turn in range(warmup + runs):
        if turn == warmup:
            repeats = {name: _repeats(min(values)) for name, values in seconds.items()}
        # Rotate the order, so that no model always follows the same one.
        names = list(sessions)[turn % len(sessions) :] + list(sessions)[: turn % len(sessions)]
        for name in names:
            run, inputs, number = sessions[name].run, given[name], repeats[name]
            with sessions[name].confined():
                start = time.perf_counter()
                for _ in range(number):
                    run(inputs)
                seconds[name].append((time.perf_counter() - start) / number)
        done()
    return {name: values[warmup:] for name, values in seconds.items()}


def _repeats(seconds):
    if seconds * _MOST_REPEATS <= _SHORTEST:
        return _MOST_REPEATS
    return max(1, round(_SHORTEST / seconds))


def _summary(seconds, batch_size, session):
    low, middle, high = np.quantile(seconds, [0.25, 0.5, 0.75]).tolist()
    return Latency(middle, low, high, len(seconds), batch_size, session.threads, session.runtime)
