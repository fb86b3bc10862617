"""Repeated recalibration of BatchNormalization for a model's current weights."""

import contextlib

import keras
import numpy as np

from tfprune import _keras
from tfprune._base import validation as check
from tfprune._updates.passes import batch_statistics_function
from tfprune._wrapping.wrapper import mask_owners


def learning_norms(model):
    """Returns the BatchNormalizations of a model that are not frozen."""
    return [
        layer
        for layer in _keras.flatten(model)
        if isinstance(layer, keras.layers.BatchNormalization) and layer.trainable
    ]


class Recalibration:
    """Sets BatchNormalization to the mean statistics of some batches; see `tfprune.recalibrate`.

    The batches are read once. Weights and random states stay unchanged, and repeated calls compile
    nothing.

    Args:
        model: A built model; its statistics are overwritten.
        data: Inputs, as in `tfprune.recalibrate`.
        batches: Number of batches to use.
        batch_size: Size of the batches that arrays are cut into.

    Raises:
        ValueError: If there is no batch.
    """

    def __init__(self, model, data, batches, batch_size):
        self._norms = learning_norms(model)
        self._inputs = []
        for batch in _keras.numpy_batches(data, batch_size):
            self._inputs.append(batch[0] if isinstance(batch, tuple) else batch)
            if len(self._inputs) == batches:
                break
        if not self._inputs:
            raise ValueError(
                check.message("`data` to recalibrate on", "no batch", "Pass at least one batch.")
            )
        self._statistics = batch_statistics_function(model, self._norms)
        self._owners = mask_owners(model)

    def __call__(self):
        with contextlib.ExitStack() as stack:
            for owner in self._owners:
                stack.enter_context(owner.attending())
            self._recalibrate()

    def _recalibrate(self):
        sums: list = [0.0] * len(self._norms)
        for inputs in self._inputs:
            found = self._statistics(inputs)
            sums = [
                total + np.array(pair, "float64") for total, pair in zip(sums, found, strict=True)
            ]
        for norm, total in zip(self._norms, sums, strict=True):
            mean, variance = total / len(self._inputs)
            norm.moving_mean.assign(mean.astype("float32"))
            norm.moving_variance.assign(variance.astype("float32"))
