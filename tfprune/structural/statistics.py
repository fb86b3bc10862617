"""New statistics for BatchNormalization, from data."""

import keras
import numpy as np

from tfprune import _keras
from tfprune._base import validation as check
from tfprune._keras.checks import check_built, not_keras
from tfprune._wrapping.strip import strip_pruning


def recalibrate(model, data, batch_size=32):
    """Estimates the statistics of BatchNormalization anew, on data.

    Removing channels changes what the layers behind them see, if these channels were not silent;
    fine-tuning may be too short for the moving averages to follow. Every BatchNormalization gets
    the mean over all batches of the batch's mean and of the batch's variance, each batch run in
    training mode. Weights stay.

    Args:
        model: A built Sequential or Functional model. It is not changed.
        data: Inputs: an array, a data set, or anything else that `fit` takes; labels are not
            looked at. It is read once.
        batch_size: For arrays.

    Returns:
        A copy, plain and uncompiled. Layers that are frozen keep their statistics.

    Raises:
        TypeError: If `model` is no Keras 3 model.
        ValueError: If it is not built, has no BatchNormalization that is not frozen, or there is
            no data.

    Example:

    >>> model = keras.Sequential([keras.Input((2,)), keras.layers.BatchNormalization()])
    >>> new = tfprune.recalibrate(model, np.array([[1.0, 5.0], [3.0, 5.0]]))
    >>> np.round(new.layers[0].moving_mean, 3).tolist()
    [2.0, 5.0]
    """
    if not isinstance(model, keras.Model):
        raise TypeError(not_keras(model, "model"))
    check_built(model)
    new = strip_pruning(model)
    norms = [layer for layer in _keras.flatten(new) if _learns(layer)]
    if not norms:
        raise ValueError(
            check.message(
                "a model with a BatchNormalization that is not frozen",
                f"'{model.name}', which has none",
                "There is nothing to estimate anew.",
            )
        )
    batches = 0
    momenta = [norm.momentum for norm in norms]
    for batch in _keras.numpy_batches(data, batch_size):
        inputs = batch[0] if isinstance(batch, tuple) else batch
        for norm in norms:
            # The first batch replaces what is there; later ones make a plain mean.
            norm.momentum = batches / (batches + 1)
        new(inputs, training=True)
        batches += 1
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    if not batches:
        raise ValueError(check.message("data", "none", "Pass at least one batch."))
    _copy_random_states(model, new)
    return new


def _learns(layer):
    return isinstance(layer, keras.layers.BatchNormalization) and layer.trainable


def _copy_random_states(model, new):
    """Dropout drew numbers on the way."""
    states = [generator.state for generator in _keras.seed_generators(model)]
    copies = [generator.state for generator in _keras.seed_generators(new)]
    for state, copy in zip(states, copies, strict=True):
        copy.assign(np.asarray(keras.ops.convert_to_numpy(state)))
