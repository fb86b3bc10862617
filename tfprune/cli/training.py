"""Training and measuring in the commands, and losses for models that were saved uncompiled."""

import keras
import numpy as np

from tfprune._base import validation as check
from tfprune.cli.loading import load_data, load_model, split


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
    name = _last_activation(model.layers[-1])
    classes = model.output_shape[-1]
    if labels.dtype.kind in "iub" and labels.ndim == len(model.output_shape) - 1 and classes > 1:
        return keras.losses.SparseCategoricalCrossentropy(from_logits=name != "softmax")
    if labels.dtype.kind in "iub" and classes == 1:
        return keras.losses.BinaryCrossentropy(from_logits=name != "sigmoid")
    if name == "softmax":
        return keras.losses.CategoricalCrossentropy()
    return keras.losses.MeanSquaredError()


def _last_activation(layer):
    """Name of the activation that makes a model's outputs, in whatever its last layer wraps."""
    if isinstance(layer, keras.layers.Wrapper):
        return _last_activation(layer.layer)
    if isinstance(layer, keras.layers.Softmax):
        return "softmax"
    return getattr(getattr(layer, "activation", None), "__name__", "")


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


# -- Commands that evaluate ------------------------------------------------------------------------


def evaluated(args):
    """Loads the data that a command evaluates repeatedly.

    The test part of the data is only for the final result: a choice based on it would overfit.

    Returns:
        The compiled model, its training data, and the part of them held out for the evaluations.
    """
    model = load_model(args.model, args, compile=True)
    data = load_data(args, model)
    check_labels(model, data.train[1])
    if not model.compiled or args.loss is not None:
        compile_for(model, data, args.loss, "adam")
    x, y = data.train
    parts = split(x, y, args.held_out)
    return model, parts["train"], parts["test"]


# -- Commands that train ---------------------------------------------------------------------------


def check_training(args):
    """Raises for options of a training that are out of range."""
    for name, value in (("--epochs", args.epochs), ("--batch-size", args.batch_size)):
        check.integer(name, value, 1, "Give a whole number from 1 up.")
    if args.seed is not None:
        check.integer("--seed", args.seed, 0, "Give a whole number below 2**32.")


def set_seed(seed):
    """Seeds all random numbers; `None` leaves them alone."""
    if seed is not None:
        keras.utils.set_random_seed(seed % 2**32)


def compile_as(model, original, data, args):
    """Compiles with the given loss and optimizer, or else with those of the original model."""
    own = original.get_compile_config() if original.compiled else None
    if args.learning_rate is not None:
        optimizer = keras.optimizers.Adam(args.learning_rate)
    elif own is not None:
        optimizer = keras.optimizers.deserialize(own["optimizer"])
    else:
        optimizer = keras.optimizers.Adam(1e-4)
    if own is None or args.loss is not None:
        compile_for(model, data, args.loss, optimizer)
        return
    model.compile_from_config({**own, "optimizer": keras.optimizers.serialize(optimizer)})


def train(model, callback, data, args, output):
    """Trains a wrapped model with a pruning callback and a progress bar."""
    progress = output.progress(args.epochs)
    try:
        model.fit(
            *data.train,
            batch_size=args.batch_size,
            epochs=args.epochs,
            verbose=0,
            callbacks=[callback, progress],
        )
    finally:
        progress.stop()


def measured(model, data, args):
    """Returns the loss and the metrics on the test data, as `{name: value}`."""
    x, y = data.test
    try:
        found = model.evaluate(x, y, batch_size=args.batch_size, verbose=0, return_dict=True)
    except Exception as error:
        # Losses raise many kinds of errors for labels of the wrong form.
        raise ValueError(
            check.message(
                f"labels that fit the loss of '{model.name}'",
                f"labels of shape {y.shape[1:]} and type {y.dtype} ({error})",
                "Pass another --loss, for instance sparse_categorical_crossentropy.",
            )
        ) from error
    return {name: float(np.asarray(value)) for name, value in found.items()}
