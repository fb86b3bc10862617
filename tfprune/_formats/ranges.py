"""The examples on which quantizers find the ranges of activations."""

import time

import keras

from tfprune import _keras
from tfprune._formats.examples import fitted

_BATCH = 32
# Seconds without a progress bar.
_PATIENCE = 3.0


class Ranges:
    """All examples of some data, one by one, so that memory stays small. It can be read again.

    Args:
        model: A built model.
        data: Anything that `fit` takes.
        samples: Largest number of examples, or `None` for all.
        examples: The first examples, which are all of them where the data has no known length: a
            generator cannot be read again, and a data set may have no end.
        verbose: 1 shows a progress bar if reading takes over 3 seconds.
    """

    def __init__(self, model, data, samples, examples, verbose):
        self._model, self._data = model, data
        self._samples = float("inf") if samples is None else samples
        self._examples, self._verbose = examples, verbose
        self._batches = _keras.number_of_batches(data, _BATCH)

    def __iter__(self):
        """Yields lists of arrays, in the order of the model's inputs, with a batch of one."""
        number, start, progress = 0, time.monotonic(), None
        for done, batch in enumerate(self._in_batches(), 1):
            arrays = keras.tree.flatten(batch)
            for i in range(len(arrays[0])):
                if number >= self._samples:
                    break
                number += 1
                yield [array[i : i + 1] for array in arrays]
            if self._verbose and progress is None and time.monotonic() - start >= _PATIENCE:
                progress = keras.utils.Progbar(self._batches, unit_name="batch")
            if progress is not None:
                progress.update(done)
            if number >= self._samples:
                break

    def _in_batches(self):
        if self._batches is None:
            yield self._examples
            return
        for batch in _keras.numpy_batches(self._data, _BATCH):
            yield fitted(self._model, batch)
