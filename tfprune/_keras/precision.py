"""Models that compute in half precision, and their copies in float32."""

import keras

from tfprune._keras.layers import is_graph, walk

_HALF = {"float16", "bfloat16"}


def computes_in_half(model):
    """Whether a layer of a model computes in float16 or bfloat16."""
    return any(chain[-1][1].compute_dtype in _HALF for chain in walk(model))


def in_float32(model):
    """Returns a copy of a graph model that computes in float32; the model itself if it does so.

    The copy has the same weights. A model whose `call` is code is returned unchanged.
    """
    if not is_graph(model) or not computes_in_half(model):
        return model
    copy = type(model).from_config(_without_half(model.get_config()))
    copy.set_weights(model.get_weights())
    return copy


def _without_half(config):
    """Returns a config in which policies of half precision are replaced by float32."""
    if isinstance(config, dict):
        if config.get("class_name") in ("DTypePolicy", "FloatDTypePolicy"):
            policy = keras.dtype_policies.deserialize(config)
            return "float32" if policy.compute_dtype in _HALF else config
        return {name: _without_half(value) for name, value in config.items()}
    if isinstance(config, (list, tuple)):
        return type(config)(_without_half(value) for value in config)
    return config
