"""BatchNormalization folded into the layers before it."""

import keras
import numpy as np

from tfprune import _keras
from tfprune._channels.graph import plain
from tfprune._channels.rules.makers import channel_axis
from tfprune._keras.checks import check_followable
from tfprune._layers import facts


def fold_batch_norm(model):
    """Folds BatchNormalization into the layers before it, for inference.

    When a model predicts, a BatchNormalization multiplies each channel by one number and adds
    another. A convolution (transposed, depthwise and separable ones too) or dense layer without
    activation before it can do that itself, with other weights and another bias. The result
    computes the same up to rounding, in less time. In training it would not: it has no statistics
    left to follow.

    A BatchNormalization stays if something else reads what the layer before it makes, if one of
    them is called several times or always in training mode, if it works along another axis or in
    another precision, or if the layer before it is quantized, has LoRA weights or is of a class
    that computes in a way of its own (`tfprune.register_layer` makes it known).

    Args:
        model: A built Sequential or Functional model, plain or wrapped; models inside are folded
            too. It is not changed.

    Returns:
        A new, plain, uncompiled model; a copy, if there is nothing to fold. Zeros in kernels stay
        zeros. An output that a BatchNormalization made bears the name of the layer before it.

    Raises:
        TypeError: If `model` is no Keras 3 model.
        ValueError: If it is not built, or its `call` is code, which cannot be followed.

    Example:

    >>> layers = [keras.layers.Conv2D(4, 3, use_bias=False), keras.layers.BatchNormalization()]
    >>> model = keras.Sequential([keras.Input((8, 8, 3)), *layers, keras.layers.ReLU()])
    >>> folded = tfprune.fold_batch_norm(model)
    >>> [type(layer).__name__ for layer in folded.layers], folded.layers[0].use_bias
    (['Conv2D', 'ReLU'], True)

    Reference:
        Jacob et al., "Quantization and Training of Neural Networks for Efficient
        Integer-Arithmetic-Only Inference", CVPR 2018, section 3.2.
    """
    check_followable(model)
    model = plain(model)
    folded, gone = {}, set()
    for maker, norms in _chains(model):
        weights = _folded(maker, norms)
        if weights is not None:
            folded[id(maker)] = weights
            gone |= {id(norm) for norm in norms}

    def config_of(layer):
        if id(layer) not in folded or layer.use_bias:
            return None
        return {**layer.get_config(), "use_bias": True}

    def move(old, new):
        if id(old) not in folded:
            _keras.copy_variables(old.weights, new.weights, old.name)
            return
        kernel, bias = folded[id(old)]
        _keras.copy_variables(_others(old), _others(new), old.name)
        _scaled(new).get(new).assign(kernel)
        new.bias.assign(bias)

    def shape_of(inner, number):
        return tuple(inner.inputs[number].shape)

    return _keras.rebuild_graph(model, config_of, shape_of, move, leave_out=gone)


def _chains(model):
    """Yields `(maker, norms)`: a layer and the normalizations behind it that it can take over."""
    models = [m for m in _keras.flatten(model) if _keras.is_graph(m) and _keras.runs_as_graph(m)]
    times: dict = {}
    for one in models:
        for call in _keras.calls_in(one):
            times[id(call.layer)] = times.get(id(call.layer), 0) + 1
    for one in models:
        readers: dict = {}
        calls = list(_keras.calls_in(one))
        for call in calls:
            for tensor in call.tensors:
                readers.setdefault(id(tensor), []).append(call)
        for tensor in one.outputs:
            readers.setdefault(id(tensor), []).append(None)
        for call in calls:
            maker, outputs = call.layer, call.outputs
            if times[id(maker)] > 1 or not _can_take_over(maker) or not _is_plain(call):
                continue
            norms: list = []
            while len(readers.get(id(outputs[0]), [])) == 1:
                reader = readers[id(outputs[0])][0]
                if reader is None or times[id(reader.layer)] > 1 or not _fits(maker, reader):
                    break
                norms.append(reader.layer)
                outputs = reader.outputs
            if norms:
                yield maker, norms


def _is_plain(call, left_out=()):
    """Whether a call has one tensor, and nothing that asks for another way of computing."""
    named = [value for name, value in call.kwargs.items() if name not in left_out]
    asked = [value for value in (*call.args[1:], *named) if value is not None]
    tensors = [x for x in keras.tree.flatten((call.args, named)) if _is_tensor(x)]
    return len(tensors) == 1 and all(value is False for value in asked)


def _is_tensor(item):
    return isinstance(item, keras.KerasTensor)


def _scaled(layer):
    """The `PrunableWeight` that takes over the scale; `None` if the layer cannot."""
    return facts.fact(layer, "folds", computes_alike=True)


def _others(layer):
    """The weights of a layer that stay as they are."""
    changed = {id(_scaled(layer).get(layer)), id(layer.bias)}
    return [variable for variable in layer.weights if id(variable) not in changed]


def _can_take_over(layer):
    if _scaled(layer) is None or layer.activation not in (None, keras.activations.linear):
        return False
    quantized = getattr(layer, "quantization_mode", None) or layer.dtype_policy.quantization_mode
    return not quantized and not getattr(layer, "lora_enabled", False)


def _fits(maker, call):
    norm, shape = call.layer, call.output_shapes[0]
    # A mask decides on statistics alone, and these are estimated in training only.
    plain_call = _is_plain(call, left_out=("mask",))
    if type(norm) is not keras.layers.BatchNormalization or not plain_call:
        return False
    return (
        norm.axis % len(shape) == channel_axis(maker, shape)
        and norm.compute_dtype == maker.compute_dtype
    )


def _folded(maker, norms):
    """The new kernel and bias of a layer; `None` where they are no finite numbers."""
    made = _scaled(maker)
    variable = made.get(maker)
    kernel = _double(variable)
    axes = made.axes_of(maker).resolve(kernel.ndim).outputs
    shape = [size if axis in axes else 1 for axis, size in enumerate(kernel.shape)]
    scale, bias = np.ones(1), np.zeros(1) if maker.bias is None else _double(maker.bias)
    # Numbers that do not come out finite are looked for below.
    with np.errstate(all="ignore"):
        for norm in norms:
            gamma = 1.0 if norm.gamma is None else _double(norm.gamma)
            beta = 0.0 if norm.beta is None else _double(norm.beta)
            factor = gamma / np.sqrt(_double(norm.moving_variance) + norm.epsilon)
            scale = scale * factor
            bias = bias * factor + (beta - _double(norm.moving_mean) * factor)
        # No -0.0 where a negative number meets a zero: it compresses worse.
        arrays = [kernel * scale.reshape(shape) + 0.0, bias]
        arrays = [array.astype(_host_type(variable)) for array in arrays]
    return arrays if all(np.isfinite(array).all() for array in arrays) else None


def _double(variable):
    return np.asarray(_keras.host_array(variable), "float64")


def _host_type(variable):
    # NumPy has no bfloat16; it reaches as far as float32.
    return "float32" if variable.dtype == "bfloat16" else variable.dtype
