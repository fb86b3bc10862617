"""The examples on which quantizers find the ranges of activations."""

import keras

from tfprune import _keras
from tfprune._base.progress import progress
from tfprune._formats.examples import fitted

_BATCH = 32


class Ranges:
    """All examples of some data, one by one, so that memory stays small. It can be read again.

    Args:
        model: A built model.
        data: Anything that `fit` takes.
        samples: Largest number of examples, or `None` for all.
        examples: The first examples, which are all of them where the data has no known length: a
            generator cannot be read again, and a data set may have no end.
        verbose: 1 shows a progress bar on a terminal, 0 does not.
    """

    def __init__(self, model, data, samples, examples, verbose):
        self._model, self._data = model, data
        self._samples = float("inf") if samples is None else samples
        self._examples, self._verbose = examples, verbose
        self._batches = _keras.number_of_batches(data, _BATCH)

    def __iter__(self):
        """Yields lists of arrays, in the order of the model's inputs, with a batch of one."""
        number = 0
        with progress(self._batches or 1, "batches for ranges", self._verbose) as done:
            for batch in self._in_batches():
                arrays = keras.tree.flatten(batch)
                for i in range(len(arrays[0])):
                    if number >= self._samples:
                        return
                    number += 1
                    yield [array[i : i + 1] for array in arrays]
                done()
                if number >= self._samples:
                    return

    def _in_batches(self):
        if self._batches is None:
            yield self._examples
            return
        for batch in _keras.numpy_batches(self._data, _BATCH):
            yield fitted(self._model, batch)
