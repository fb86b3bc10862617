"""Prints tables or JSON to stdout, progress and errors to stderr."""

import json
import math
import sys
from typing import Any

import keras
import numpy as np
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from tfprune._base.text import show

_UNBOUNDED = 10_000


class Output:
    """The output of a command.

    Args:
        as_json: Whether results are printed as JSON.
    """

    def __init__(self, as_json=False):
        self.as_json = as_json
        # In a file or a pipe, tables are as wide as they need to be.
        self.results = Console(soft_wrap=False, width=None if sys.stdout.isatty() else _UNBOUNDED)
        self.messages = Console(stderr=True, highlight=False, soft_wrap=True)

    def give(self, data, *shown):
        """Prints a result: `data` as JSON, or the renderables `shown`."""
        if self.as_json:
            print(json.dumps(_in_json(data), indent=2, default=str, allow_nan=False))
            return
        show(self.results, *shown)

    def say(self, text):
        """Prints a message to stderr."""
        self.messages.print(text, markup=False)

    def progress(self, epochs):
        """Returns a callback that shows epochs, loss and sparsity while a model trains."""
        return _Progress(self.messages, epochs)


def _in_json(data):
    """JSON has neither NaN nor infinity: `null` replaces them."""
    if isinstance(data, dict):
        return {key: _in_json(value) for key, value in data.items()}
    if isinstance(data, (list, tuple)):
        return [_in_json(value) for value in data]
    if isinstance(data, (float, np.floating)) and not math.isfinite(data):
        return None
    return data


class _Progress(keras.callbacks.Callback):
    """One progress bar per epoch, with the loss, the metrics and the sparsity."""

    def __init__(self, console, epochs):
        super().__init__()
        self._epochs = epochs
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.fields[numbers]}"),
            console=console,
        )
        self._task: Any = None

    def on_epoch_begin(self, epoch, logs=None):
        self._bar.start()
        self._task = self._bar.add_task(
            f"epoch {epoch + 1}/{self._epochs}", total=self.params.get("steps"), numbers=""
        )

    def on_train_batch_end(self, batch, logs=None):
        self._bar.update(self._task, completed=batch + 1, numbers=_numbers(logs))

    def on_epoch_end(self, epoch, logs=None):
        self._bar.update(self._task, numbers=_numbers(logs))

    def on_train_end(self, logs=None):
        self.stop()

    def stop(self):
        if self._task is not None:
            self._bar.stop()


def _numbers(logs):
    return "  ".join(f"{name} {float(value):.4f}" for name, value in (logs or {}).items())
