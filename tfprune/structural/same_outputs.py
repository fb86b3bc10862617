"""Compares what two models compute from the same random inputs."""

import keras
import numpy as np

from tfprune import _keras
from tfprune._base import validation as check

# Differences through rounding, as fractions of the largest output.
_ROUNDING, _HALF_PRECISION = 1e-3, 5e-2
# Stands for a length that the inputs leave open.
_LENGTH = 5


def difference(one, other, seed=0):
    """Returns the largest difference of outputs as a fraction of the largest output.

    Args:
        one: A model.
        other: A model with the same inputs.
        seed: Of the random inputs.
    """
    random = np.random.default_rng(seed)

    def example(spec):
        shape = [2, *[size or _LENGTH for size in spec.shape[1:]]]
        dtype = keras.backend.standardize_dtype(spec.dtype)
        if "float" in dtype:
            return random.normal(size=shape).astype("float32")
        return np.ones(shape, dtype)

    inputs = keras.tree.map_structure(example, _keras.symbolic_inputs(one))
    pairs = zip(_outputs(one, inputs), _outputs(other, inputs), strict=True)
    found = 0.0
    for ours, theirs in pairs:
        if ours.shape != theirs.shape:
            return np.inf
        largest = max(float(np.abs(ours).max(initial=0)), 1e-6)
        found = max(found, float(np.abs(ours - theirs).max(initial=0)) / largest)
    return found


def is_rounding(model, found):
    """Whether a `difference` from a model is no more than rounding."""
    half = any(keras.backend.standardize_dtype(v.dtype).endswith("16") for v in model.weights)
    mixed = any("16" in layer.compute_dtype for layer in _keras.flatten(model))
    return found <= (_HALF_PRECISION if half or mixed else _ROUNDING)


def check_same(model, smaller, layers):
    """Raises ValueError if a smaller model computes something else.

    The code of a layer may read the number of its channels in a way that following it cannot see.

    Args:
        model: The plain model; the channels that were removed from it are silent.
        smaller: The model without them.
        layers: The layers whose code was followed.
    """
    try:
        found = difference(model, smaller)
    except Exception:
        # Random inputs do not suit every model; the user's own data will show it then.
        return
    if is_rounding(model, found) or np.isnan(found):
        return
    names = sorted({_keras.plain_class(layer).__name__ for layer in layers})
    raise ValueError(
        check.message(
            "layers whose code computes the same without the silent channels",
            f"outputs that differ by {found:.2g} of the largest, from code of {', '.join(names)}",
            "Look there for numbers that depend on how many channels there are, such as "
            "`self.dense.units`; or exempt these layers with tfprune.Rule(..., prune=False).",
        )
    )


def _outputs(model, inputs):
    tensors = keras.tree.flatten(model(inputs, training=False))
    return [np.asarray(_keras.on_host(tensor)).astype("float64") for tensor in tensors]
