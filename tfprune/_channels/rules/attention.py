"""Rules for attention and for matrices with several axes."""

import keras
import numpy as np

from tfprune import _keras
from tfprune._channels.ledger import UNKNOWN, Flow, array, unknown_values
from tfprune._channels.rules.makers import activated, constants, read_by

_MASKS = ("query_mask", "value_mask", "key_mask", "attention_mask")


def attention(call):
    """Treats whole heads as channels, in addition to the output channels.

    Removing a head removes all computations for it alone; in a GroupQueryAttention, removing a
    head of keys and values removes all heads of queries that share it.
    """
    layer, path = call.layer, call.ledger.path(call.layer)
    inputs = _inputs(call)
    if inputs is None:
        return call.stop(f"'{path}' is called on numbers as well as tensors")
    parts = {name: call.of(part) for name, part in _keras.attention_parts(layer).items()}
    grouped = not isinstance(layer, keras.layers.MultiHeadAttention)
    number = layer.num_key_value_heads if grouped else layer.num_heads
    repeats = layer.num_query_heads // number if grouped else 1
    shared = call.ledger.source(layer, number, "heads")
    own = np.repeat(shared, repeats)
    heads = {"query": own, "gate": own, "key": shared, "value": shared}
    flows = {name: call.take(-1, index) for name, index in inputs.items()}
    for name in inputs.keys() & parts.keys():
        _project(parts[name], flows[name], heads[name])
    silent = np.repeat(_is_zero(parts["value"].layer), repeats)
    kernel = array(parts["output"].layer.kernel)
    parts["output"].cut(parts["output"].layer.kernel, 0, own, reads=True)
    given = Flow(None, own, np.where(silent, 0, np.nan).astype("float32"))
    read_by(parts["output"], given, kernel, 0, None, "a head is more than one number")
    if grouped:
        call.edit("num_key_value_heads", shared)
        call.edit("num_query_heads", shared, lambda number: int(number) * repeats)
    else:
        call.edit("num_heads", shared)
    _look_at_masks(call, inputs, own)
    made = _output(call, parts["output"], flows, grouped)
    return [made, *_scores(call, inputs, own)]


def _inputs(call):
    """Returns `{name: index}` of the inputs; the key defaults to the value."""
    found = {name: call.tensors(name) for name in ("query", "value", "key")}
    found["key"] = found["key"] or found["value"]
    if any(indices[0] is None for indices in found.values()):
        return None
    found["gate"] = found["query"]
    return {name: indices[0] for name, indices in found.items()}


def _project(part, flow, heads):
    """Projects the inputs with a kernel that has a matrix for each head."""
    kernel, bias = part.layer.kernel, part.layer.bias
    part.cut(kernel, 0, flow.labels, reads=True)
    part.cut(kernel, 1, heads)
    part.cut(bias, 0, heads)
    if bias is not None and bias.shape[1] == 1:
        # On TensorFlow, Keras adds a bias of shape (n, 1) along another axis if that axis also has
        # length n.
        part.ledger.fix(heads, f"the bias of '{part.ledger.path(part.layer)}' is one for each")
    weights = array(kernel)

    def fold(values):
        return np.tensordot(values, weights, 1)

    if bias is None:
        read_by(part, flow, weights, 0, None, "it has no bias")
    else:
        read_by(part, flow, weights, 0, fold)


def _is_zero(part):
    """Returns for each head whether a projection is zero for any input."""
    kernel, bias = array(part.kernel), array(part.bias)
    used = np.any(kernel != 0, axis=(0, 2))
    return ~used if bias is None else ~(used | np.any(bias != 0, axis=1))


def _look_at_masks(call, inputs, heads):
    """Keeps the heads if a mask has a number for each of them."""
    axes = getattr(call.layer, "attention_axes", None) or (1,)
    full = len(call.shapes[inputs["query"]]) + len(axes)
    for name in _MASKS:
        for index, item in zip(call.tensors(name), call.given(name), strict=True):
            if index is not None:
                call.fix(f"'{call.ledger.path(call.layer)}' uses them as a mask", index)
            constant = tuple(getattr(item, "shape", (None,) * full))
            shape = constant if index is None else call.shapes[index]
            if name == "attention_mask" and len(shape) == full and shape[-2 * len(axes) - 1] != 1:
                reason = f"the mask of '{call.ledger.path(call.layer)}' has a number for each"
                call.ledger.fix(heads, reason)


def _output(call, part, flows, grouped):
    """Makes the output channels, to which the heads are projected."""
    kernel, bias = array(part.layer.kernel), array(part.layer.bias)
    if kernel.ndim != 3:
        return UNKNOWN
    number, axis = kernel.shape[-1], len(call.output_shapes[0]) - 1
    bias = np.zeros(number, "float32") if bias is None else bias
    made = call.make(number, axis, constants(kernel, -1, bias))
    part.cut(part.layer.kernel, 2, made.labels)
    part.cut(part.layer.bias, 0, made.labels)
    query = flows["query"].labels
    if grouped:
        # The config cannot set their number, which equals that of the inputs: both are tied.
        call.ledger.tie(query, made.labels)
        call.ledger.tie(query, flows["value"].labels)
    else:
        # Without this entry, their number would equal that of the inputs.
        call.edit("output_shape", made.labels, lambda number: (int(number),), also=query)
    return made


def _scores(call, inputs, heads):
    """Returns the flow of the scores, if requested: a matrix for each head."""
    if len(call.output_shapes) == 1:
        return []
    if len(call.shapes[inputs["query"]]) == 3:
        return [Flow(1, heads, unknown_values(len(heads)))]
    call.ledger.fix(heads, f"the scores of '{call.ledger.path(call.layer)}' are not followed")
    return [UNKNOWN]


def einsum_dense(call):
    """Reads the summed letters, and makes channels for a letter that only the kernel adds."""
    layer, flow = call.layer, call.inputs[0]
    reason = f"'{call.ledger.path(layer)}' computes '{layer.equation}'"
    found = einsum_letters(layer.equation)
    if found is None:
        return call.stop(reason)
    inputs, weights, output = found
    summed = [letter for letter in inputs if letter not in output]
    new = [letter for letter in weights if letter not in inputs]
    if not (set(summed) <= set(weights) and set(new) <= set(output)):
        return call.stop(reason)
    if flow.axis is not None:
        # Letters are counted from the right, because dots may precede them.
        place = flow.axis - len(call.shapes[0]) + len(inputs)
        if place < 0 or inputs[place] not in summed:
            call.fix(reason)
        else:
            _read_letter(call, flow, weights.index(inputs[place]), len(new) == 1)
    if len(new) != 1:
        return [UNKNOWN]
    return [_made_letter(call, weights.index(new[0]), output.index(new[0]) - len(output), output)]


def einsum_letters(equation):
    """Returns the letters of the input, kernel and output, if none repeats within one of them."""
    left, output = equation.replace(" ", "").split("->")
    parts = [*left.split(","), output]
    if parts[0].startswith("..."):
        parts = [part.removeprefix("...") for part in parts]
    once = all(len(set(part)) == len(part) and "." not in part for part in parts)
    return parts if once else None


def _read_letter(call, flow, axis, one_is_made):
    layer, kernel = call.layer, array(call.layer.kernel)
    call.cut(layer.kernel, axis, flow.labels, reads=True)
    matrix = one_is_made and kernel.ndim == 2
    if not matrix or layer.bias is None or len(layer.bias.shape) != 1:
        why = "it has no bias for it"
        read_by(call, flow, kernel, axis, None, why)
    else:
        read_by(call, flow, kernel, axis, lambda values: np.tensordot(values, kernel, (0, axis)))


def _made_letter(call, kernel_axis, axis, output):
    """Makes the new letter's channels; `axis` is counted from the end of the output."""
    layer, kernel = call.layer, array(call.layer.kernel)
    number = kernel.shape[kernel_axis]
    bias = np.zeros(1, "float32") if layer.bias is None else array(layer.bias)
    own = layer.bias is not None and output[axis] in layer.bias_axes
    # One number for each channel, or one for all of them.
    known = (
        bias.reshape(-1) if own and bias.ndim == 1 else np.where(np.ptp(bias), np.nan, bias.max())
    )
    values = constants(kernel, kernel_axis, np.broadcast_to(known, number))
    made = call.make(number, len(call.output_shapes[0]) + axis, values)
    call.cut(layer.kernel, kernel_axis, made.labels)
    if bias.ndim > 1:
        # On TensorFlow, Keras adds a bias of shape (n, 1) along the last axis if that axis also has
        # length n.
        path = call.ledger.path(layer)
        call.ledger.fix(made.labels, f"the bias of '{path}' does not lie along the last axis")
    elif own:
        call.cut(layer.bias, 0, made.labels)
    shape = layer.get_config()["output_shape"]
    shape = [shape] if isinstance(shape, int) else list(shape)

    def narrowed(number):
        new = list(shape)
        new[axis] = int(number)
        return tuple(new)

    call.edit("output_shape", made.labels, narrowed)
    return activated(call, made)
