"""Channel flow: one rule for each layer type. A rule reads a `Call` and returns its outputs' flows.

In case of doubt, a rule keeps the channels: it calls `stop` or `fix` with the reason.
"""

import functools

import keras
import numpy as np

from tfprune import _keras
from tfprune._base import validation as check
from tfprune._channels.ledger import UNKNOWN, array, unknown_values
from tfprune._channels.rules.attention import attention, einsum_dense
from tfprune._channels.rules.grouped_attention import (
    biased_attention,
    gated_experts,
    grouped_attention,
)
from tfprune._channels.rules.makers import (
    activated,
    channel_axis,
    convolution,
    dense,
    depthwise_convolution,
    embedding,
    reversible_embedding,
    separable_convolution,
    transposed_convolution,
)
from tfprune._channels.rules.normalizations import (
    batch_normalization,
    group_normalization,
    layer_normalization,
    rms_normalization,
)
from tfprune._channels.rules.operations import (
    OPERATIONS,
    concatenation,
    elementwise,
    merge,
    reordering,
)
from tfprune._channels.rules.recurrent import bidirectional, recurrent, time_distributed
from tfprune._layers import facts
from tfprune._layers.registry import check_layer_class


def register_channel_rule(layer_class, rule):
    """Registers how channels flow through a custom layer class.

    Without a rule, all channels that a layer reads or makes are kept.

    Args:
        layer_class: A subclass of `keras.layers.Layer`. The rule also applies to subclasses that
            override none of its methods except the constructor and methods for configs and shapes.
        rule: `"elementwise"` if the layer has no weights and each number of its output depends
            only on the numbers at the same place of its inputs; or a function that takes a
            `tfprune.structural.Call` and returns the list of the outputs' `Flow`s.

    Raises:
        TypeError: If `layer_class` is not a layer class, or `rule` is neither a function nor a
            string.
        ValueError: If `rule` is another string.

    Example:

    >>> class Scale(keras.layers.Layer):
    ...     def build(self, input_shape):
    ...         self.scale = self.add_weight(shape=input_shape[-1:], initializer="ones")
    ...     def call(self, inputs):
    ...         return inputs * self.scale
    >>> def scale_rule(call):
    ...     flow = call.take(-1)
    ...     call.cut(call.layer.scale, 0, flow.labels)
    ...     return [flow.carrying(flow.values * call.layer.scale.numpy())]
    >>> tfprune.register_channel_rule(Scale, scale_rule)
    """
    check_layer_class("layer_class", layer_class)
    mend = 'Pass "elementwise", or a function that takes a tfprune.structural.Call.'
    if isinstance(rule, str):
        check.choice("rule", rule, ("elementwise",))
    elif not callable(rule):
        raise TypeError(check.message("`rule` to be a function", f"rule={rule!r}", mend))
    facts.declare(layer_class, flow=rule)


def rule_of(layer):
    """Returns the rule for a layer or operation; `None` if there is none."""
    if not isinstance(layer, keras.layers.Layer):
        known = type(layer).__module__.startswith("keras.")
        return OPERATIONS.get(type(layer).__name__) if known else None
    if is_changed(layer):
        return None
    flow = facts.fact(layer, "flow", computes_alike=True)
    return KINDS[flow] if isinstance(flow, str) else flow


def is_changed(layer):
    """Whether a layer, or one inside it, is quantized or has LoRA weights."""
    return any(_has_other_weights(inner) for inner in _keras.flatten(layer))


def _has_other_weights(layer):
    return getattr(layer, "quantization_mode", None) or getattr(layer, "lora_enabled", False)


def takes_several(rule):
    """Whether a rule supports layers that are called on several tensors."""
    return rule in _SEVERAL or rule not in KINDS.values()


# -- Layers that pass channels on ------------------------------------------------------------------


def _prelu(call):
    layer, flow = call.layer, call.inputs[0]
    axis = len(call.shapes[0]) - 1 if flow.axis is None else flow.axis
    flow = call.take(axis)
    if axis not in (layer.shared_axes or ()):
        if call.shared:
            call.fix(f"'{call.ledger.path(layer)}' is called several times")
        call.cut(layer.alpha, axis - 1, flow.labels)
    return [flow.carrying(np.where(flow.values >= 0, flow.values, np.nan))]


def _layer_scale(call):
    layer, flow = call.layer, call.take(-1)
    call.cut(layer.gamma, 0, flow.labels)
    call.edit("projection_dim", flow.labels)
    gamma = array(layer.gamma)
    return [flow.carrying(np.where(gamma == 0, 0, flow.values * gamma))]


def _unchanged(call):
    flow, noise = call.inputs[0], getattr(call.layer, "noise_shape", None)
    if noise is not None and flow.axis is not None and noise[flow.axis] not in (None, 1):
        return call.stop(f"the noise of '{call.ledger.path(call.layer)}' has their number")
    return [call.inputs[0]]


def _rescaling(call):
    if np.size(call.layer.scale) > 1 or np.size(call.layer.offset) > 1:
        return call.stop(f"'{call.ledger.path(call.layer)}' has a number for each of them")
    return elementwise(call)


def _softmax(call):
    layer, flow = call.layer, call.inputs[0]
    axes = layer.axis if isinstance(layer.axis, (list, tuple)) else [layer.axis]
    if flow.axis in [axis % len(call.shapes[0]) for axis in axes]:
        return call.stop(f"'{call.ledger.path(layer)}' mixes them")
    return [flow.carrying(unknown_values(len(flow.labels)))]


def _masking(call):
    flow = call.inputs[0]
    call.fix(f"'{call.ledger.path(call.layer)}' compares all of them")
    return [flow.carrying(np.where(flow.values == 0, 0, np.nan))]


def _spatial(call, keeps_constants=False):
    """Follows layers that change each channel's places: pooling, padding, cropping, upsampling."""
    flow = call.take(channel_axis(call.layer, call.shapes[0]))
    nearest = getattr(call.layer, "interpolation", "nearest") == "nearest"
    if (keeps_constants and nearest) or getattr(call.layer, "padding", None) == "valid":
        return [flow]
    return [flow.carrying(np.where(flow.values == 0, 0, np.nan))]


def _global_pooling(call):
    axis = channel_axis(call.layer, call.shapes[0])
    flow = call.take(axis)
    return [flow.moved(1 if axis == 1 else len(call.output_shapes[0]) - 1)]


# -- Layers that move channels to other places -----------------------------------------------------


def _flatten(call):
    order = None
    if call.layer.data_format == "channels_first":
        # Keras puts the channels last before it flattens.
        order = [*range(1, len(call.shapes[0]) - 1), 0]
    return reordering(call, order)


def _reshape(call):
    return reordering(call, target_key="target_shape")


def _permute(call):
    return reordering(call, [dimension - 1 for dimension in call.layer.dims])


def _repeat_vector(call):
    return [call.take(1).moved(2)]


def _concatenate(call):
    return concatenation(call, call.layer.axis)


def _custom_scale(call):
    return merge(call, lambda one, two: one + two * call.layer.scale)


def _activation_layer(call):
    flow = call.inputs[0]
    return [UNKNOWN] if flow.axis is None else [activated(call, flow)]


# By the kind of flow in the table of layer facts.
KINDS = {
    "activation": _activation_layer,
    "attention": attention,
    "batch_normalization": batch_normalization,
    "biased_attention": biased_attention,
    "bidirectional": bidirectional,
    "concatenate": _concatenate,
    "convolution": convolution,
    "custom_scale": _custom_scale,
    "dense": dense,
    "depthwise_convolution": depthwise_convolution,
    "einsum_dense": einsum_dense,
    "elementwise": elementwise,
    "embedding": embedding,
    "flatten": _flatten,
    "gated_experts": gated_experts,
    "global_pooling": _global_pooling,
    "grouped_attention": grouped_attention,
    "group_normalization": group_normalization,
    "layer_normalization": layer_normalization,
    "layer_scale": _layer_scale,
    "masking": _masking,
    "merge": merge,
    "permute": _permute,
    "pooling": _spatial,
    "prelu": _prelu,
    "recurrent": recurrent,
    "repeat_vector": _repeat_vector,
    "rescaling": _rescaling,
    "reshape": _reshape,
    "resizing": functools.partial(_spatial, keeps_constants=True),
    "reversible_embedding": reversible_embedding,
    "rms_normalization": rms_normalization,
    "separable_convolution": separable_convolution,
    "softmax": _softmax,
    "time_distributed": time_distributed,
    "transposed_convolution": transposed_convolution,
    "unchanged": _unchanged,
}
_SEVERAL = (
    merge,
    _concatenate,
    _custom_scale,
    elementwise,
    attention,
    biased_attention,
    grouped_attention,
    recurrent,
    bidirectional,
    time_distributed,
)
