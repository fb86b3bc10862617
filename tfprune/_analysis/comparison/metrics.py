"""Computes the compiled metrics of a model from the outputs of a file."""

import keras
import numpy as np

from tfprune import _keras
from tfprune._formats.examples import fitted

_BATCH = 128


def metrics_of(session, judge, data):
    """Returns `{name: value}` of the loss and the compiled metrics.

    Args:
        session: A `Session` that computes the outputs.
        judge: A compiled Keras model with the same outputs; its metrics are reset.
        data: What `evaluate` takes.
    """
    judge.reset_metrics()
    total, number, found = 0.0, 0, {}
    structure = _keras.symbolic_outputs(judge)
    for batch in _keras.numpy_batches(data, _BATCH):
        x, y, weight = keras.utils.unpack_x_y_sample_weight(batch)
        size = len(keras.tree.flatten(x)[0])
        outputs = keras.tree.pack_sequence_as(structure, session.run(_as_taken(judge, x)))
        loss = judge.compute_loss(x, y, outputs, weight, training=False)
        total, number = total + size * float(loss), number + size
        found = judge.compute_metrics(x, y, outputs, weight)
    values = {name: float(value) for name, value in found.items() if name != "loss"}
    judge.reset_metrics()
    return {"loss": total / number, **values} if number else {}


def _as_taken(model, x):
    """Inputs in the model's dtypes: Keras converts bytes of an image by itself, a file does not."""
    numbers = all(np.asarray(array).dtype.kind in "biuf" for array in keras.tree.flatten(x))
    return fitted(model, (x,)) if numbers else x
