"""Weights that are exempt by default, unless a rule names their layer."""

import keras

TOKEN_EMBEDDING = "token embedding: exempt by default"


def exempt_by_default(chain, entry):
    """Returns why a weight is exempt if no rule names its layer; `None` if it is not exempt.

    Args:
        chain: The layers from the outermost one to the one that owns the weight.
        entry: The weight's `PrunableWeight`.
    """
    if isinstance(chain[-1], keras.layers.Embedding) and any(map(_is_backbone, chain)):
        return TOKEN_EMBEDDING
    return None


def _is_backbone(layer):
    """Whether a layer is a backbone of KerasHub; does not import KerasHub."""
    return any(
        base.__name__ == "Backbone" and base.__module__.partition(".")[0] == "keras_hub"
        for base in type(layer).__mro__
    )
