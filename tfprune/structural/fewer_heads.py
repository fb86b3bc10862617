"""Attention layers that lost heads, while the caches that models give them did not."""

import functools
import inspect
from typing import Any

import keras
from keras import ops

from tfprune import _keras

# The base class is known only when a layer loses heads.
_Layer: Any = object
_NUMBERS = ("num_key_value_heads", "_num_key_value_heads", "num_heads", "_num_heads")


class FewerHeads(_Layer):
    """Uses the first heads of a cache, and returns the cache with zeros for the others.

    A language model makes the caches of all its layers in one array, with as many heads as its
    config says. The heads are the last axis but one.
    """

    _heads: int

    def __init_subclass__(cls):
        cls.call = _with_part_of_cache(super().call)


def _with_part_of_cache(original):
    signature = inspect.signature(original)

    @functools.wraps(original)
    def call(layer, *args, **kwargs):
        bound = signature.bind(layer, *args, **kwargs)
        cache = bound.arguments.get("cache")
        if cache is None:
            return original(layer, *args, **kwargs)
        bound.arguments["cache"] = keras.tree.map_structure(
            lambda array: array[..., : layer._heads, :], cache
        )
        *others, used = original(*bound.args, **bound.kwargs)
        return (*others, keras.tree.map_structure(_as_wide_as, used, cache))

    return call


def _as_wide_as(array, full):
    more = full.shape[-2] - array.shape[-2]
    return ops.pad(array, [(0, 0)] * (len(full.shape) - 2) + [(0, more), (0, 0)])


def use_part_of_caches(layer, attributes):
    """Lets an attention layer take caches of more heads than it has.

    Args:
        layer: The layer, of any class; others are not changed.
        attributes: `{name: value}` of its attributes that were changed.
    """
    numbers = [attributes[name] for name in _NUMBERS if name in attributes]
    if not numbers or "cache" not in inspect.signature(layer.call).parameters:
        return
    if not isinstance(layer, FewerHeads):
        _keras.change_class(layer, _keras.derived_class(layer, FewerHeads))
    _keras.set_untracked(layer, "_heads", numbers[0])
