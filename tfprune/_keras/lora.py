"""LoRA weights under a mask."""

import keras
from keras.src import api_export

from tfprune._keras.layers import flatten, plain_class
from tfprune._keras.own_class import change_class
from tfprune._keras.patching import (
    delete_untracked,
    replace_method,
    restore_method,
    set_untracked,
)

_BEFORE = "_class_before_pruning"
_MASKING: dict = {}
_WITH_LORA = ("kernel", "embeddings")


def stored_weight(layer, name):
    """Returns the variable that an attribute of a layer reads, without the LoRA term."""
    stored = getattr(layer, f"_{name}", None)
    return stored if isinstance(stored, keras.Variable) else getattr(layer, name)


def is_quantized(layer):
    """Whether a layer computes with quantized weights."""
    return getattr(layer, "quantization_mode", None) is not None


def with_lora(layer, name):
    """Returns the masked sum of a weight and its LoRA term; `None` in a layer without LoRA."""
    if name not in _WITH_LORA or not getattr(layer, "lora_enabled", False):
        return None
    return getattr(layer, name)


def mask_lora(layer, name, masked):
    """Makes a layer compute with, and save, the masked sum of a weight and its LoRA term.

    Args:
        layer: The layer; it may have LoRA weights now or get them later.
        name: The attribute of the weight.
        masked: Function that masks a tensor.
    """
    if not hasattr(type(layer), "enable_lora") or name not in _WITH_LORA:
        return

    def enable_lora(*args, **kwargs):
        type(layer).enable_lora(layer, *args, **kwargs)
        _compute_masked(layer, name, masked)

    replace_method(layer, "enable_lora", enable_lora)
    if getattr(layer, "lora_enabled", False):
        _compute_masked(layer, name, masked)


def merge_lora(layer, name, variable):
    """Merges the LoRA term into its weight, masked, and undoes `mask_lora`."""
    if name not in _WITH_LORA:
        return
    restore_method(layer, "enable_lora")
    if _masking_name(layer) is None:
        return
    variable.assign(keras.ops.cast(getattr(layer, name), variable.dtype))
    factor = getattr(layer, f"lora_{name}_b")
    factor.assign(keras.ops.zeros(factor.shape))
    delete_untracked(layer, "_lora_mask")
    change_class(layer, plain_class(layer))


def merge_copied(source, target):
    """In a copy of a layer or model, turns masked sums with LoRA terms into plain weights."""
    pairs = ([layer for layer in flatten(holder) if layer.weights] for holder in (source, target))
    for old, new in zip(*pairs, strict=True):
        name = _masking_name(old)
        if name is not None:
            variable = stored_weight(new, name)
            variable.assign(keras.ops.cast(getattr(old, name), variable.dtype))
            factor = getattr(new, f"lora_{name}_b")
            factor.assign(keras.ops.zeros(factor.shape))


def _masking_name(layer):
    return getattr(type(layer), "_masking", None)


def _compute_masked(layer, name, masked):
    set_untracked(layer, "_lora_mask", masked)
    if _masking_name(layer) is None:
        change_class(layer, _masking_class(type(layer), name))


def _masking_class(cls, name):
    """Returns a subclass of a layer class that reads its weight masked.

    A layer of it is saved as one of the original class.
    """
    if (cls, name) not in _MASKING:

        def weight(self):
            return self._lora_mask(getattr(super(derived, self), name))

        names = {"__module__": cls.__module__, _BEFORE: cls, "_masking": name}
        derived = type(cls)(cls.__name__, (cls,), {**names, name: property(weight)})
        public = api_export.get_name_from_symbol(cls)
        if public is not None:
            api_export.REGISTERED_OBJS_TO_NAMES[derived] = public
        registered = keras.saving.get_registered_name(cls)
        if ">" in registered:
            package, _, own = registered.partition(">")
            # Keras keeps the original class under this name.
            keras.saving.register_keras_serializable(package, own)(derived)
            keras.saving.register_keras_serializable(package, own)(cls)
        _MASKING[cls, name] = derived
    return _MASKING[cls, name]
