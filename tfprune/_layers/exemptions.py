"""Weights that are exempt by default, unless a rule names their layer."""

import keras

from tfprune.patterns import SlicePattern

DEPTHWISE = "depthwise: exempt by default"
TOKEN_EMBEDDING = "token embedding: exempt by default"


def exempt_by_default(chain, entry, pattern=None):
    """Returns why a weight is exempt if no rule names its layer; `None` if it is not.

    Depthwise kernels are small, and each of their weights counts: in a small network on MNIST at
    90 %, accuracy fell to 0.10 to 0.44 with them pruned and stayed at 0.85 to 0.88 with them exempt
    (three seeds). `benchmarks/exemptions.py` repeats it. Filters are another matter: they go
    with those of other layers.

    Args:
        chain: The layers from the outermost one to the one that owns the weight.
        entry: Its `PrunableWeight`.
        pattern: The `Pattern` that it would be pruned by.
    """
    if _is_depthwise(chain[-1], entry) and not isinstance(pattern, SlicePattern):
        return DEPTHWISE
    if isinstance(chain[-1], keras.layers.Embedding) and any(map(_is_backbone, chain)):
        return TOKEN_EMBEDDING
    return None


def _is_depthwise(layer, entry):
    kinds = (keras.layers.DepthwiseConv1D, keras.layers.DepthwiseConv2D)
    return isinstance(layer, kinds) or entry.name == "depthwise_kernel"


def _is_backbone(layer):
    """Whether a layer is a backbone of KerasHub; does not import KerasHub."""
    return any(
        base.__name__ == "Backbone" and base.__module__.partition(".")[0] == "keras_hub"
        for base in type(layer).__mro__
    )
