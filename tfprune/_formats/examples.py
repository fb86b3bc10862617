"""Random inputs for a model or file."""

import numpy as np

from tfprune._base import validation as check


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
                "Build the same layers with keras.Model(inputs, outputs).",
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
