"""Estimates new statistics for BatchNormalization from data."""

import keras
import numpy as np

from tfprune import _keras
from tfprune._base import validation as check
from tfprune._keras.checks import check_model
from tfprune._updates.passes import mean_statistics
from tfprune._updates.recalibration import learning_norms
from tfprune._wrapping.strip import strip_pruning


def recalibrate(model, data, batch_size=32):
    """Re-estimates the statistics of BatchNormalization on data.

    Removing channels that are not silent changes the inputs of later layers, and a short
    fine-tuning may not give the moving averages time to follow. This function runs each batch in
    training mode and gives every BatchNormalization the average of the batch means and of the
    batch variances, over all of its calls. Weights do not change.

    Args:
        model: A built Sequential or Functional model. It is not changed.
        data: Inputs: an array, a data set, or anything else that `fit` takes. Labels are ignored.
            The data is read once.
        batch_size: Batch size for arrays.

    Returns:
        A copy, plain and uncompiled. Frozen layers keep their statistics.

    Raises:
        TypeError: If `model` is not a Keras 3 model, or `batch_size` is not a whole number.
        ValueError: If `model` is not built or has no trainable BatchNormalization, `data` is
            empty or does not fit, or `batch_size` is below 1.

    Example:

    >>> model = keras.Sequential([keras.Input((2,)), keras.layers.BatchNormalization()])
    >>> new = tfprune.recalibrate(model, np.array([[1.0, 5.0], [3.0, 5.0]]))
    >>> np.round(new.layers[0].moving_mean, 3).tolist()
    [2.0, 5.0]
    """
    check_model(model)
    new = strip_pruning(model)
    norms = learning_norms(new)
    if not norms:
        raise ValueError(
            check.message(
                "a model with a BatchNormalization that is not frozen",
                f"'{model.name}', which has none",
                "Skip the recalibration, or set layer.trainable=True.",
            )
        )
    if data is None:
        raise ValueError(
            check.message("data", "data=None", "Pass an array or a data set of inputs.")
        )
    batch_size = check.integer("batch_size", batch_size, 1, "Use for instance 32.")
    batches = 0
    with mean_statistics(norms):
        for batch in _keras.numpy_batches(data, batch_size):
            inputs = batch[0] if isinstance(batch, tuple) else batch
            try:
                new(inputs, training=True)
            except (ValueError, TypeError) as error:
                shapes = keras.tree.map_structure(np.shape, inputs)
                raise ValueError(
                    check.message(
                        f"inputs that fit model '{model.name}'",
                        f"a batch of shapes {shapes}",
                        "Pass an array or a data set of the inputs that the model is trained on.",
                    )
                ) from error
            batches += 1
    if not batches:
        raise ValueError(check.message("data", "none", "Pass at least one batch."))
    _copy_random_states(model, new)
    return new


def _copy_random_states(model, new):
    """Restores the seed generators, because dropout advanced them."""
    states = [generator.state for generator in _keras.seed_generators(model)]
    copies = [generator.state for generator in _keras.seed_generators(new)]
    for state, copy in zip(states, copies, strict=True):
        copy.assign(np.asarray(keras.ops.convert_to_numpy(state)))
