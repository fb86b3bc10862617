"""Compares what two models compute from the same random inputs."""

import keras
import numpy as np

from tfprune import _keras
from tfprune._base import validation as check
from tfprune._base.differences import relative_difference

# Differences through rounding, as fractions of the largest output.
_ROUNDING, _HALF_PRECISION = 1e-3, 5e-2
# Replaces a length that the inputs leave open.
_LENGTH = 5


def difference(one, other, seed=0):
    """Returns the largest difference of outputs as a fraction of the largest output.

    Args:
        one: A model.
        other: A model with the same inputs.
        seed: Of the random inputs.
    """
    inputs = _random_inputs(one, seed)
    return difference_of(*(model(inputs, training=False) for model in (one, other)))


def _random_inputs(model, seed=0):
    random = np.random.default_rng(seed)

    def example(spec):
        shape = [2, *[size or _LENGTH for size in spec.shape[1:]]]
        dtype = keras.backend.standardize_dtype(spec.dtype)
        if "float" in dtype:
            return random.normal(size=shape).astype("float32")
        return np.ones(shape, dtype)

    return keras.tree.map_structure(example, _keras.symbolic_inputs(model))


def difference_of(expected, outputs):
    """Returns the largest difference of tensors as a fraction of the largest expected number."""
    pairs = zip(_arrays(expected), _arrays(outputs), strict=True)
    return max((0.0, *(relative_difference(ours, theirs) for ours, theirs in pairs)))


def is_rounding(model, found):
    """Whether a `difference` from a model is no more than rounding."""
    half = any(keras.backend.standardize_dtype(v.dtype).endswith("16") for v in model.weights)
    mixed = any("16" in layer.compute_dtype for layer in _keras.flatten(model))
    return found <= (_HALF_PRECISION if half or mixed else _ROUNDING)


def check_same(model, smaller, layers):
    """Raises ValueError if a smaller model has other outputs, or fails where the model does not.

    The code of a layer may read the number of its channels in a way that following it cannot see.

    Args:
        model: The plain model; the channels that were removed from it are silent.
        smaller: The model without them.
        layers: The layers whose code was followed.
    """
    try:
        inputs = _random_inputs(model)
        expected = model(inputs, training=False)
    except Exception:
        # Random inputs do not suit every model; the user's own data will show differences.
        return
    try:
        found = difference_of(expected, smaller(inputs, training=False))
    except Exception as error:
        raise ValueError(_message(f"the error {check.first_line(error)!r}", layers)) from error
    if not is_rounding(model, found) and not np.isnan(found):
        received = f"outputs that differ by {found:.2g} of the largest"
        raise ValueError(_message(received, layers))


def _message(received, layers):
    names = sorted({_keras.plain_class(layer).__name__ for layer in layers})
    return check.message(
        "layers whose code computes the same without the silent channels",
        f"{received}, from code of {', '.join(names)}",
        "Look there for numbers that depend on how many channels there are, such as "
        "`self.dense.units`; or exempt these layers with tfprune.Rule(..., prune=False).",
    )


def _arrays(tensors):
    flat = keras.tree.flatten(tensors)
    return [np.asarray(_keras.on_host(tensor)) for tensor in flat]
