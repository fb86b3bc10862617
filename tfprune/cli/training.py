"""Default losses and metrics for models that were saved uncompiled."""

import keras
import numpy as np

from tfprune._base import validation as check


def compile_for(model, data, loss, optimizer):
    """Compiles a model with a loss that fits its outputs and the labels."""
    labels = data.train[1]
    check_labels(model, labels)
    chosen = loss or _loss(model, labels)
    classes = model.output_shape[-1]
    metrics = ["accuracy"] if labels.dtype.kind in "iub" or "crossentropy" in str(chosen) else []
    if classes == 1 and not metrics:
        metrics = ["mae"]
    model.compile(optimizer, chosen, metrics=metrics)


def _loss(model, labels):
    """Returns the usual loss for class indices, one-hot vectors or other numbers."""
    last = getattr(model.layers[-1], "activation", None)
    name = getattr(last, "__name__", "")
    classes = model.output_shape[-1]
    if labels.dtype.kind in "iub" and labels.ndim == len(model.output_shape) - 1 and classes > 1:
        return keras.losses.SparseCategoricalCrossentropy(from_logits=name != "softmax")
    if labels.dtype.kind in "iub" and classes == 1:
        return keras.losses.BinaryCrossentropy(from_logits=name != "sigmoid")
    if name == "softmax":
        return keras.losses.CategoricalCrossentropy()
    return keras.losses.MeanSquaredError()


def check_labels(model, labels):
    """Raises ValueError for class indices for which the model has no output."""
    if not isinstance(model.output_shape, tuple):
        raise ValueError(
            check.message(
                "a model with one output",
                f"'{model.name}' with {len(model.output_shape)}",
                "Use the Python functions, which take any data.",
            )
        )
    classes = model.output_shape[-1]
    whole = labels.dtype.kind in "iu" and labels.ndim == len(model.output_shape) - 1
    if whole and classes > 1 and not 0 <= labels.min() <= labels.max() < classes:
        raise ValueError(
            check.message(
                f"class numbers from 0 to {classes - 1}, the outputs of '{model.name}'",
                f"{labels.min()} to {labels.max()}",
                "Number the classes from 0, or pass the model that was made for this data.",
            )
        )


def measured(model, data, batch_size):
    """Returns the loss and the metrics on the test data, as `{name: value}`."""
    x, y = data.test
    found = model.evaluate(x, y, batch_size=batch_size, verbose=0, return_dict=True)
    return {name: float(np.asarray(value)) for name, value in found.items()}
