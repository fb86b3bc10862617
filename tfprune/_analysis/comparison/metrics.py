"""Computes the compiled metrics of a model from the outputs of a file."""

import keras

from tfprune import _keras

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
        outputs = keras.tree.pack_sequence_as(structure, session.run(x))
        loss = judge.compute_loss(x, y, outputs, weight, training=False)
        total, number = total + size * float(loss), number + size
        found = judge.compute_metrics(x, y, outputs, weight)
    values = {name: float(value) for name, value in found.items() if name != "loss"}
    judge.reset_metrics()
    return {"loss": total / number, **values} if number else {}
