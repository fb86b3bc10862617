"""Rules for layers that make channels: convolutions, dense layers, embeddings."""

import keras
import numpy as np

from tfprune import _keras
from tfprune._channels.ledger import UNKNOWN, array, evaluated, unknown_values
from tfprune._channels.rules.operations import has_single_numbers, is_elementwise

# Elementwise activations.
_ALONE = """
    celu elu exponential gelu hard_shrink hard_sigmoid hard_silu hard_swish hard_tanh leaky_relu
    linear log_sigmoid mish relu relu6 selu sigmoid silu soft_shrink softplus softsign
    sparse_plus sparse_sigmoid squareplus swish tanh tanh_shrink
"""


def channel_axis(layer, shape):
    """Returns the axis of the channels in a tensor of a layer that knows `data_format`."""
    return 1 if getattr(layer, "data_format", None) == "channels_first" else len(shape) - 1


def acts_alone(activation):
    """Whether an activation is known to be elementwise, by its name or its operations."""
    if any(activation is getattr(keras.activations, name, None) for name in _ALONE.split()):
        return True
    try:
        calls, result = _keras.calls_of(activation, [keras.KerasTensor((3, 7))])
    except Exception:
        # Its code needs more than a placeholder.
        return False
    known = all(is_elementwise(call.layer) and has_single_numbers(call) for call in calls)
    return known and isinstance(result, keras.KerasTensor) and tuple(result.shape) == (3, 7)


def activated(call, flow):
    """Applies a layer's own activation to the channels that the layer computed."""
    activation = call.layer.activation
    if activation is None or activation is keras.activations.linear:
        return flow
    if not acts_alone(activation):
        name = getattr(activation, "__name__", type(activation).__name__)
        path = call.ledger.path(call.layer)
        call.ledger.fix(
            flow.labels,
            f"the activation '{name}' of '{path}' is not known to be elementwise",
        )
        return flow.carrying(unknown_values(len(flow.labels)))
    ndim = len(call.output_shapes[0])
    values = evaluated(activation, len(flow.labels), flow.axis, ndim, flow.values)
    return flow.carrying(values)


def output_bias(layer, number):
    bias = getattr(layer, "bias", None)
    return np.zeros(number, "float32") if bias is None else array(bias)


def constants(kernel, axis, bias):
    """The bias where all weights of an output channel are zero, NaN elsewhere."""
    axis %= kernel.ndim
    others = tuple(i for i in range(kernel.ndim) if i != axis)
    return np.where(np.any(kernel != 0, axis=others), np.float32(np.nan), bias)


def read_by(call, flow, kernel, axis, fold=None, why="", part=""):
    """Reads channels with a kernel; a channel with all-zero weights counts as zero."""
    axis %= kernel.ndim
    others = tuple(i for i in range(kernel.ndim) if i != axis)
    used = np.any(kernel != 0, axis=others)
    call.read(flow.carrying(np.where(used, flow.values, 0)), fold, why, part)


def _needs_no_padding(layer):
    return layer.padding == "valid" or all(size == 1 for size in layer.kernel_size)


def _folds(layer, kernel, axis):
    """Returns the function from removed constant inputs to the correction of the bias."""
    if not _needs_no_padding(layer):
        return None, f"its padding is '{layer.padding}', so borders differ"

    def fold(values):
        where = np.flatnonzero(values)
        taken = np.moveaxis(kernel, axis, 0)[where]
        return values[where] @ taken.reshape(len(where), -1, kernel.shape[-1]).sum(axis=1)

    return fold, ""


def convolution(call):
    """Reads all channels and makes new ones."""
    layer = call.layer
    axis = channel_axis(layer, call.shapes[0])
    flow = call.take(axis)
    if layer.groups > 1:
        return _grouped_convolution(call, flow)
    kernel = array(layer.kernel)
    call.cut(layer.kernel, -2, flow.labels, reads=True)
    read_by(call, flow, kernel, -2, *_folds(layer, kernel, -2))
    out = call.make(layer.filters, axis, constants(kernel, -1, output_bias(layer, layer.filters)))
    call.cut(layer.kernel, -1, out.labels)
    call.cut(layer.bias, 0, out.labels)
    call.edit("filters", out.labels)
    return [activated(call, out)]


def _grouped_convolution(call, flow):
    """Removes a group with all channels that it reads and makes, or keeps all of it."""
    layer = call.layer
    grouped = flow.labels.reshape(layer.groups, -1)
    for column in grouped.T:
        call.ledger.tie(grouped[:, 0], column)
    per_group = layer.filters // layer.groups
    labels = np.repeat(grouped[:, 0], per_group)
    call.cut(layer.kernel, -1, labels)
    call.cut(layer.bias, 0, labels)
    call.edit("filters", labels)
    call.edit("groups", grouped[:, 0])
    bias, kernel = output_bias(layer, layer.filters), array(layer.kernel)
    given = np.repeat(flow.values.reshape(layer.groups, -1), per_group, axis=0)
    known = np.all(given == 0, axis=1) | (~np.isnan(given).any(axis=1) & _needs_no_padding(layer))
    taps = kernel.reshape(-1, *kernel.shape[-2:]).sum(axis=0)
    summed = np.sum(given * taps.T, axis=1) + bias
    values = np.where(known, summed, constants(kernel, -1, bias))
    out = type(flow)(flow.axis, labels, values.astype("float32"))
    return [activated(call, out)]


def transposed_convolution(call):
    """Reads channels along the kernel's last axis, and makes channels along the one before it."""
    layer = call.layer
    axis = channel_axis(layer, call.shapes[0])
    flow = call.take(axis)
    kernel = array(layer.kernel)
    call.cut(layer.kernel, -1, flow.labels, reads=True)
    read_by(call, flow, kernel, -1, None, "it is transposed, so borders differ")
    out = call.make(layer.filters, axis, constants(kernel, -2, output_bias(layer, layer.filters)))
    call.cut(layer.kernel, -2, out.labels)
    call.cut(layer.bias, 0, out.labels)
    call.edit("filters", out.labels)
    return [activated(call, out)]


def _through_depthwise(layer, flow, kernel, bias):
    """Returns a depthwise kernel's outputs: each input channel makes `multiplier` channels."""
    multiplier = kernel.shape[-1]
    labels, values = np.repeat(flow.labels, multiplier), np.repeat(flow.values, multiplier)
    taps = kernel.reshape(-1, kernel.shape[-2] * multiplier)
    summed = taps.sum(axis=0)
    known = (values == 0) | (~np.isnan(values) & _needs_no_padding(layer))
    values = np.where(known, np.where(values == 0, 0, values * summed) + bias, np.nan)
    values = np.where(np.any(taps != 0, axis=0), values, bias)
    return type(flow)(flow.axis, labels, values.astype("float32"))


def depthwise_convolution(call):
    """Makes new channels from each input channel, without mixing any."""
    layer = call.layer
    flow = call.take(channel_axis(layer, call.shapes[0]))
    kernel = array(layer.kernel)
    out = _through_depthwise(
        layer, flow, kernel, output_bias(layer, kernel.shape[-2] * kernel.shape[-1])
    )
    call.cut(layer.kernel, -2, flow.labels)
    call.cut(layer.bias, 0, out.labels)
    return [activated(call, out)]


def separable_convolution(call):
    """Applies a depthwise kernel, then a kernel that mixes channels."""
    layer = call.layer
    axis = channel_axis(layer, call.shapes[0])
    flow = call.take(axis)
    depthwise, pointwise = array(layer.depthwise_kernel), array(layer.pointwise_kernel)
    between = _through_depthwise(layer, flow, depthwise, 0)
    call.cut(layer.depthwise_kernel, -2, flow.labels, reads=True)
    call.cut(layer.pointwise_kernel, -2, between.labels, reads=True)
    reached = np.isnan(between.values).reshape(len(flow.labels), -1).any(axis=1)
    # At a padded border, a constant input gives other outputs, so the value is unknown.
    values = np.where(reached & (flow.values != 0), np.nan, flow.values)

    def fold(values):
        passed = np.repeat(values, depthwise.shape[-1])
        passed = passed * depthwise.reshape(-1, len(passed)).sum(axis=0)
        return passed @ pointwise.reshape(len(passed), -1)

    valid = _needs_no_padding(layer)
    why = "" if valid else f"its padding is '{layer.padding}', so borders differ"
    call.read(flow.carrying(values) if valid else flow, fold if valid else None, why)
    out = call.make(
        layer.filters, axis, constants(pointwise, -1, output_bias(layer, layer.filters))
    )
    call.cut(layer.pointwise_kernel, -1, out.labels)
    call.cut(layer.bias, 0, out.labels)
    call.edit("filters", out.labels)
    return [activated(call, out)]


def dense(call):
    """Reads one set of channels and makes another, with a matrix between them."""
    layer = call.layer
    flow = call.take(-1)
    kernel = array(layer.kernel)
    call.cut(layer.kernel, 0, flow.labels, reads=True)
    read_by(call, flow, kernel, 0, lambda values: values @ kernel)
    axis = len(call.output_shapes[0]) - 1
    out = call.make(layer.units, axis, constants(kernel, -1, output_bias(layer, layer.units)))
    call.cut(layer.kernel, 1, out.labels)
    call.cut(layer.bias, 0, out.labels)
    call.edit("units", out.labels)
    return [activated(call, out)]


def embedding(call):
    """Makes channels from a table with one column for each."""
    layer = call.layer
    call.fix(f"'{call.ledger.path(layer)}' reads them as token ids")
    axis = len(call.output_shapes[0]) - 1
    table = array(layer.embeddings)
    out = call.make(layer.output_dim, axis, constants(table, 1, 0))
    call.cut(layer.embeddings, 1, out.labels)
    call.edit("output_dim", out.labels)
    return [out]


def reversible_embedding(call):
    """Makes channels from a table; called in reverse, reads them with it, or with a second one."""
    layer = call.layer
    if not any(call.given("reverse")):
        return embedding(call)
    flow = call.take(-1)
    table = layer.embeddings if layer.tie_weights else layer.reverse_embeddings
    axis = 1 if layer.tie_weights else 0
    call.ledger.tie(flow.labels, call.ledger.source(layer, layer.output_dim))
    call.cut(table, axis, flow.labels, reads=True)
    read_by(call, flow, array(table), axis, None, "it has no bias")
    return [UNKNOWN]
