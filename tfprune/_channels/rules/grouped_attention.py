"""Rules for attention layers of other packages, whose parts are layers inside them."""

import inspect

import keras
import numpy as np

from tfprune import _keras
from tfprune._channels.ledger import UNKNOWN, Flow, array, unknown_values
from tfprune._channels.rules.attention import einsum_letters
from tfprune._channels.rules.makers import constants, read_by


def grouped_attention(call):
    """Removes heads of keys and values together with the heads of queries that share them.

    The size of a head stays, and with it a rotary embedding and a normalization of each head.
    """
    layer, path = call.layer, call.ledger.path(call.layer)
    parts, axes = _keras.projections(layer), None
    if parts is not None and all(isinstance(p, keras.layers.EinsumDense) for p in parts.values()):
        axes = {role: _axes(part, role) for role, part in parts.items()}
    if (
        axes is None
        or None in axes.values()
        or not getattr(layer, "query_head_dim_normalize", True)
    ):
        return call.stop(f"'{path}' computes attention in a way that is not known")
    number = int(parts["key"].kernel.shape[axes["key"][1]])
    repeats = int(parts["query"].kernel.shape[axes["query"][1]]) // number
    shared = call.ledger.source(layer, number, "heads")
    own = np.repeat(shared, repeats)
    (hidden,) = call.tensors(next(iter(inspect.signature(layer.call).parameters)))
    flow = call.take(-1, hidden)
    for role in ("query", "key", "value"):
        labels = own if role == "query" else shared
        _project(call.of(parts[role]), flow, axes[role], labels)
    silent = np.repeat(_is_zero(parts["value"], axes["value"][1]), repeats)
    output, (head, made_axis) = call.of(parts["output"]), axes["output"]
    kernel = array(output.layer.kernel)
    output.cut(output.layer.kernel, head, own, reads=True)
    given = Flow(None, own, np.where(silent, 0, np.nan).astype("float32"))
    read_by(output, given, kernel, head, None, "a head is more than one number")
    for key, labels in (("num_key_value_heads", shared), ("num_query_heads", own)):
        call.edit(key, labels)
    return _made(call, output, made_axis)


def _axes(part, role):
    """Returns two axes of a projection's kernel: of the other channels and of the heads.

    For the output, the heads come first.
    """
    letters = einsum_letters(part.equation)
    if letters is None or len(part.kernel.shape) != 3:
        return None
    inputs, kernel, output = letters
    if role == "output":
        outer, inner = output[-1], inputs[-2]
        found = (kernel.find(inner), kernel.find(outer))
    else:
        outer, inner = inputs[-1], output[-2]
        found = (kernel.find(outer), kernel.find(inner))
    return None if -1 in found or inner in (output if role == "output" else inputs) else found


def _project(part, flow, axes, heads):
    layer, (read, head) = part.layer, axes
    kernel, bias = array(layer.kernel), layer.bias
    part.cut(layer.kernel, read, flow.labels, reads=True)
    part.cut(layer.kernel, head, heads)
    if bias is not None and len(bias.shape) == 2 and bias.shape[1] > 1:
        part.cut(bias, 0, heads)
    elif bias is not None:
        part.ledger.fix(heads, f"the bias of '{part.ledger.path(layer)}' is of another shape")
    read_by(part, flow, kernel, read, None, "it is a matrix for each head")
    shape = layer.get_config()["output_shape"]
    part.edit("output_shape", heads, lambda number: (*shape[:-2], int(number), shape[-1]))


def _is_zero(part, axis):
    """Returns for each head whether a projection is zero for any input."""
    kernel = np.moveaxis(array(part.kernel), axis, 0)
    used = kernel.reshape(len(kernel), -1).any(axis=1)
    return ~used if part.bias is None else ~(used | array(part.bias).any(axis=-1))


def _made(call, output, axis):
    """Makes the output channels. Their number is that of the inputs, so they are tied."""
    layer = output.layer
    number = layer.kernel.shape[axis]
    bias = np.zeros(number, "float32") if layer.bias is None else array(layer.bias)
    made = call.make(
        number, len(call.output_shapes[0]) - 1, constants(array(layer.kernel), axis, bias)
    )
    output.cut(layer.kernel, axis, made.labels)
    output.cut(layer.bias, 0, made.labels)
    if isinstance(layer, keras.layers.EinsumDense):
        shape = tuple(layer.get_config()["output_shape"])
        output.edit("output_shape", made.labels, lambda number: (*shape[:-1], int(number)))
    else:
        output.edit("units", made.labels)
    return [made, *[UNKNOWN] * (len(call.output_shapes) - 1)]


def biased_attention(call):
    """T5: one bias for each head is added to the scores, and passed on to the next layer."""
    layer, path = call.layer, call.ledger.path(call.layer)
    parts = _keras.projections(layer)
    if parts is None or not all(isinstance(part, keras.layers.Dense) for part in parts.values()):
        return call.stop(f"'{path}' computes attention in a way that is not known")
    number, size = layer.num_heads, layer.key_value_dim
    heads = call.ledger.source(layer, number, "heads")
    columns = np.repeat(heads, size)
    (query,) = call.tensors("hidden_states")
    sources = call.tensors("key_value_states") or [query]
    for role in ("query", "key", "value"):
        part, flow = call.of(parts[role]), call.take(-1, query if role == "query" else sources[0])
        kernel = part.layer.kernel
        part.cut(kernel, 0, flow.labels, reads=True)
        part.cut(kernel, 1, columns)
        read_by(part, flow, array(kernel), 0, None, "it has no bias")
        part.edit("units", columns)
    silent = ~array(parts["value"].kernel).any(axis=0)
    output = call.of(parts["output"])
    kernel = output.layer.kernel
    output.cut(kernel, 0, columns, reads=True)
    given = Flow(None, columns, np.where(silent, 0, np.nan).astype("float32"))
    read_by(output, given, array(kernel), 0, None, "a head is more than one number")
    call.edit("num_heads", heads)
    call.edit("inner_dim", columns)
    if layer.use_relative_attention_bias:
        # A silent head needs no bias, so this weight needs no mask.
        call.cut(layer.relative_attention_bias, 1, heads, reads=True)
    for index in call.tensors("position_bias"):
        given_bias = call.take(1, index)
        call.ledger.tie(given_bias.labels, heads)
    made = _made(call, output, 1)
    if len(made) > 1:
        made[1] = Flow(1, heads, unknown_values(number))
    return made


def gated_experts(call):
    """Removes the same channels between two matrices from all experts.

    Experts stay: a router chooses among them, so weights of zeros do not make an expert silent.
    """
    layer, path = call.layer, call.ledger.path(call.layer)
    matrices = _keras.expert_matrices(layer)
    output = matrices.pop("output")
    number = output.shape[1]
    labels = call.ledger.source(layer, number, "widths")
    silent = np.zeros(number, bool)
    flow = call.take(-1)
    call.fix(f"the code of '{path}' counts them")
    for role, variable in matrices.items():
        # Without its own matrix, the other factor is the second half of the gate's columns.
        times = variable.shape[-1] // number
        call.cut(variable, 1, flow.labels, reads=True)
        call.cut(variable, 2, np.tile(labels, times))
        zero = ~array(variable).any(axis=(0, 1)).reshape(times, number)
        first = zero[0] & (role == "up" or _starts_at_zero(layer.activation))
        silent |= first | zero[1:].any(axis=0)
    call.cut(output, 1, labels, reads=True)
    given = Flow(None, labels, np.where(silent, 0, np.nan).astype("float32"))
    read_by(call, given, array(output), 1, None, "it has no bias")
    call.edit("intermediate_dim", labels)
    return [UNKNOWN] * len(call.output_shapes)


def _starts_at_zero(activation):
    return not _keras.on_host(activation(keras.ops.zeros((1,))))[0]
