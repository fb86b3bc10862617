"""Folds BatchNormalization into the layers before it."""

import keras
import numpy as np

from tfprune import _keras
from tfprune._channels.graph import without_wrappers
from tfprune._channels.rules.makers import channel_axis
from tfprune._keras.checks import check_followable
from tfprune._layers import facts


def fold_batch_norm(model):
    """Folds BatchNormalization into the layers before it, for inference.

    At inference, a BatchNormalization multiplies each channel by a constant and adds another. A
    preceding dense layer or convolution (including transposed, depthwise and separable ones)
    without activation can absorb both into its kernel and bias. The folded model predicts the
    same values up to rounding, in less time. Do not train it as a replacement for the original:
    it no longer normalizes by batch statistics.

    A BatchNormalization is kept if another layer also reads its input, if it or the layer before
    it is called several times or always in training mode, if the two differ in channel axis or
    precision, or if the layer before it is quantized, has LoRA weights, or belongs to a class with
    its own computation (register such a class with `tfprune.register_layer`).

    Args:
        model: A built Sequential or Functional model, plain or wrapped. Nested models are folded
            too. `model` is not changed.

    Returns:
        A new, plain, uncompiled model; a copy if there is nothing to fold. Zeros in kernels stay
        zeros. An output of a folded BatchNormalization takes the name of the layer before it.

    Raises:
        TypeError: If `model` is not a Keras 3 model.
        ValueError: If `model` is not built, or its `call` is code, which cannot be followed.

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
    model = without_wrappers(model)
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
    """Yields `(maker, norms)`: a layer and the normalizations after it that it can absorb."""
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
    """Whether a call has one tensor and no argument that changes the computation."""
    named = [value for name, value in call.kwargs.items() if name not in left_out]
    asked = [value for value in (*call.args[1:], *named) if value is not None]
    tensors = [x for x in keras.tree.flatten((call.args, named)) if _keras.is_symbolic(x)]
    return len(tensors) == 1 and all(value is False for value in asked)


def _scaled(layer):
    """Returns the `PrunableWeight` that absorbs the scale; `None` if the layer has none."""
    return facts.fact(layer, "folds", computes_alike=True)


def _others(layer):
    """Returns the weights of a layer that folding leaves unchanged."""
    changed = {id(_scaled(layer).get(layer)), id(layer.bias)}
    return [variable for variable in layer.weights if id(variable) not in changed]


def _can_take_over(layer):
    if _scaled(layer) is None or layer.activation not in (None, keras.activations.linear):
        return False
    quantized = getattr(layer, "quantization_mode", None) or layer.dtype_policy.quantization_mode
    return not quantized and not getattr(layer, "lora_enabled", False)


def _fits(maker, call):
    norm, shape = call.layer, call.output_shapes[0]
    # A mask affects only the statistics, which are estimated only in training.
    plain_call = _is_plain(call, left_out=("mask",))
    if type(norm) is not keras.layers.BatchNormalization or not plain_call:
        return False
    return (
        norm.axis % len(shape) == channel_axis(maker, shape)
        and norm.compute_dtype == maker.compute_dtype
    )


def _folded(maker, norms):
    """Returns the new kernel and bias of a layer; `None` if they are not finite."""
    made = _scaled(maker)
    variable = made.get(maker)
    kernel = _double(variable)
    axes = made.axes_of(maker).resolve(kernel.ndim).outputs
    shape = [size if axis in axes else 1 for axis, size in enumerate(kernel.shape)]
    scale, bias = np.ones(1), np.zeros(1) if maker.bias is None else _double(maker.bias)
    # The check for finite numbers comes below.
    with np.errstate(all="ignore"):
        for norm in norms:
            gamma = 1.0 if norm.gamma is None else _double(norm.gamma)
            beta = 0.0 if norm.beta is None else _double(norm.beta)
            factor = gamma / np.sqrt(_double(norm.moving_variance) + norm.epsilon)
            scale = scale * factor
            bias = bias * factor + (beta - _double(norm.moving_mean) * factor)
        # Adding 0.0 turns -0.0 into 0.0, which compresses better.
        arrays = [kernel * scale.reshape(shape) + 0.0, bias]
        arrays = [array.astype(_host_type(variable)) for array in arrays]
    return arrays if all(np.isfinite(array).all() for array in arrays) else None


def _double(variable):
    return np.asarray(_keras.host_array(variable), "float64")


def _host_type(variable):
    # NumPy has no bfloat16; float32 has the same range.
    return "float32" if variable.dtype == "bfloat16" else variable.dtype
