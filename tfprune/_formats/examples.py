"""Inputs for a model or file: random ones, and a part of given data."""

import keras
import numpy as np

from tfprune import _keras
from tfprune._base import validation as check
from tfprune._formats.keras_file import KerasSession


def random_inputs(session, batch_size, input_shape=None):
    """Returns a list of arrays for the inputs of a session.

    Floating-point inputs are drawn from a normal distribution; integer inputs are zeros.

    Args:
        session: A `Session`.
        batch_size: Examples in the batch.
        input_shape: Shape of the input without the batch, needed if it is open; for several
            inputs, a list with one shape for each.

    Raises:
        ValueError: If a shape is unknown or does not fit, or an input takes strings.
    """
    if session.inputs is None:
        raise ValueError(
            check.message(
                "a Sequential or Functional model, which knows the shapes of its inputs",
                f"'{session.name}', whose call() is code",
                "Pass `data` where there is such an argument, or build the same layers with "
                "keras.Model(inputs, outputs).",
            )
        )
    shapes, random = _shapes(session, input_shape), np.random.default_rng(0)
    return [
        _array(session, spec, (batch_size, *shape), random)
        for spec, shape in zip(session.inputs, shapes, strict=True)
    ]


def _shapes(session, input_shape):
    known = [spec.shape[1:] for spec in session.inputs]
    if input_shape is None:
        given = known
    else:
        several = any(isinstance(size, (list, tuple)) for size in input_shape)
        given = [tuple(shape) for shape in input_shape] if several else [tuple(input_shape)]
    fits = len(given) == len(known) and all(
        len(shape) == len(own) and all(n in (None, m) for n, m in zip(own, shape, strict=True))
        for shape, own in zip(given, known, strict=True)
    )
    if not fits:
        raise ValueError(
            check.message(
                f"shapes that fit the inputs of '{session.name}', " + ", ".join(map(str, known)),
                f"input_shape={input_shape!r}",
                "Replace each `None` by a number, without the batch; for several inputs, pass a "
                "list.",
            )
        )
    if any(None in shape for shape in given):
        raise ValueError(
            check.message(
                "inputs whose shapes are known",
                f"'{session.name}', which takes " + ", ".join(map(str, known)),
                "Pass the shape, for instance input_shape=(224, 224, 3).",
            )
        )
    return given


def _array(session, spec, shape, random):
    fixed = spec.shape[0]
    if fixed not in (None, shape[0]):
        raise ValueError(
            check.message(
                f"batch_size={fixed}, the fixed batch size of '{session.name}'",
                f"batch_size={shape[0]}",
                f"Use {fixed}, or build the model without a batch size.",
            )
        )
    if spec.dtype == "string":
        raise ValueError(
            check.message(
                "numeric inputs",
                f"'{session.name}', whose input '{spec.name}' takes strings",
                "Measure the part of the model after the layers that read strings.",
            )
        )
    if "float" in spec.dtype:
        return random.normal(size=shape).astype("float32")
    return np.zeros(shape, spec.dtype)


def _texts(session, data, samples):
    """Returns texts for the inputs of a session, empty ones without `data`."""
    if data is None:
        shapes = [tuple(size or 1 for size in spec.shape[1:]) for spec in session.inputs]
        return session.packed([np.full((samples, *shape), "", object) for shape in shapes])
    if isinstance(data, tuple):
        data = data[0]
    if hasattr(data, "as_numpy_iterator"):
        batch = next(iter(data.as_numpy_iterator()))
        data = batch[0] if isinstance(batch, tuple) else batch
    return session.packed([np.asarray(a, object)[:samples] for a in keras.tree.flatten(data)])


def fitting_inputs(model, data, samples):
    """Returns arrays in the structure of a model's inputs.

    Args:
        model: A built model.
        data: Anything that `fit` takes, of which the first `samples` examples of the first batch
            are taken, without labels; or `None` for random numbers.
        samples: Largest number of examples. A model with a fixed batch size gets one batch.

    Raises:
        ValueError: If there is no example, or the arrays do not fit the model.
    """
    session = KerasSession(model)
    specs = session.inputs or []
    samples = next((spec.shape[0] for spec in specs if spec.shape[0]), samples)
    if specs and all(spec.dtype == "string" for spec in specs):
        return _texts(session, data, samples)
    if data is None:
        return session.packed(random_inputs(session, samples))
    batch = next(_keras.numpy_batches(data, samples), None)
    if batch is None:
        raise ValueError(check.message("data", "none", "Pass at least one example."))
    return fitted(model, batch, samples)


def fitted(model, batch, samples=None):
    """Returns the inputs in a batch as arrays in the structure and dtypes of a model's inputs.

    Args:
        model: A built model.
        batch: Arrays, or a tuple `(inputs, labels)`.
        samples: Largest number of examples, or `None` for all.

    Raises:
        ValueError: If the arrays do not fit the model.
    """
    inputs = batch[0] if isinstance(batch, tuple) else batch
    arrays = [np.asarray(array)[:samples] for array in keras.tree.flatten(inputs)]
    if not _keras.is_graph(model):
        return keras.tree.pack_sequence_as(inputs, arrays)
    structure = _keras.symbolic_inputs(model)
    tensors = keras.tree.flatten(structure)
    fits = len(arrays) == len(tensors) and all(
        array.ndim == len(tensor.shape)
        and all(n in (None, m) for n, m in zip(tensor.shape[1:], array.shape[1:], strict=True))
        for array, tensor in zip(arrays, tensors, strict=True)
    )
    if not fits:
        raise ValueError(
            check.message(
                f"data that fits the input shapes of '{model.name}', "
                + ", ".join(str(tuple(tensor.shape)) for tensor in tensors),
                ", ".join(str(array.shape) for array in arrays),
                "Pass inputs alone, or a tuple (inputs, labels).",
            )
        )
    cast = [
        array.astype(keras.backend.standardize_dtype(tensor.dtype))
        for array, tensor in zip(arrays, tensors, strict=True)
    ]
    return keras.tree.pack_sequence_as(structure, cast)
