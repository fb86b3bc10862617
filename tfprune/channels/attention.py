"""Rules for attention and for matrices with several axes."""

import keras
import numpy as np

from tfprune import _keras_graph as graph
from tfprune.channels.ledger import UNKNOWN, Flow, array, unknown_values
from tfprune.channels.makers import activated, constants, output_bias, read_by

_MASKS = ("query_mask", "value_mask", "key_mask", "attention_mask")


def attention(call):
    """Whole heads are channels beside those of the output.

    A head goes with all that is computed for it alone; in a GroupQueryAttention, a head of keys
    and values goes with all heads of queries that share it.
    """
    layer, path = call.layer, call.ledger.path(call.layer)
    inputs = _inputs(call)
    if inputs is None:
        return call.stop(f"'{path}' is called on numbers beside tensors")
    parts = {name: call.of(part) for name, part in graph.attention_parts(layer).items()}
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
    """`{name: index}` of the inputs; the key is the value if it is not given."""
    found = {name: call.tensors(name) for name in ("query", "value", "key")}
    found["key"] = found["key"] or found["value"]
    if any(indices[0] is None for indices in found.values()):
        return None
    found["gate"] = found["query"]
    return {name: indices[0] for name, indices in found.items()}


def _project(part, flow, heads):
    """A projection of the inputs: its kernel has a matrix for each head."""
    kernel, bias = part.layer.kernel, part.layer.bias
    part.cut(kernel, 0, flow.labels, reads=True)
    part.cut(kernel, 1, heads)
    part.cut(bias, 0, heads)
    weights = array(kernel)

    def fold(values):
        return np.tensordot(values, weights, 1)

    if bias is None:
        read_by(part, flow, weights, 0, None, "it has no bias")
    else:
        read_by(part, flow, weights, 0, fold)


def _is_zero(part):
    """Whether a projection is zero for each of its heads, whatever comes in."""
    kernel, bias = array(part.kernel), array(part.bias)
    used = np.any(kernel != 0, axis=(0, 2))
    return ~used if bias is None else ~(used | np.any(bias != 0, axis=1))


def _look_at_masks(call, inputs, heads):
    """A mask with a number for each head has the axis of the heads."""
    axes = getattr(call.layer, "attention_axes", None) or (1,)
    full = len(call.shapes[inputs["query"]]) + len(axes)
    for name in _MASKS:
        for index in call.tensors(name):
            if index is not None:
                call.fix(f"'{call.ledger.path(call.layer)}' takes them for a mask", index)
            shape = (None,) * full if index is None else call.shapes[index]
            if name == "attention_mask" and len(shape) == full and shape[-2 * len(axes) - 1] != 1:
                reason = f"the mask of '{call.ledger.path(call.layer)}' has a number for each"
                call.ledger.fix(heads, reason)


def _output(call, part, flows, grouped):
    """What the heads are projected to; these channels the layer makes."""
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
        # Its config cannot say how many there are: as many as come in, and both must be alike.
        call.ledger.tie(query, made.labels)
        call.ledger.tie(query, flows["value"].labels)
    else:
        # Without this entry there would be as many as come in.
        call.edit("output_shape", made.labels, lambda number: (int(number),), also=query)
    return made


def _scores(call, inputs, heads):
    """The scores, if they are asked for: a matrix for each head."""
    if len(call.output_shapes) == 1:
        return []
    if len(call.shapes[inputs["query"]]) == 3:
        return [Flow(1, heads, unknown_values(len(heads)))]
    call.ledger.fix(heads, f"the scores of '{call.ledger.path(call.layer)}' are not followed")
    return [UNKNOWN]


def einsum_dense(call):
    """One letter summed, one letter new, both last, as in "abc,cd->abd"."""
    layer = call.layer
    left, output = layer.equation.replace(" ", "").split("->")
    inputs, kernel_letters = left.split(",")
    bias_fits = layer.bias is None or len(layer.bias.shape) == 1
    simple = (
        len(kernel_letters) == 2
        and inputs[-1] == kernel_letters[0]
        and output == inputs[:-1] + kernel_letters[1]
        and (layer.bias is None or layer.bias_axes == kernel_letters[1])
    )
    if not (simple and bias_fits):
        return call.stop(f"'{call.ledger.path(layer)}' computes '{layer.equation}'")
    flow, kernel = call.take(-1), array(layer.kernel)
    number, axis = kernel.shape[1], len(call.output_shapes[0]) - 1
    call.cut(layer.kernel, 0, flow.labels, reads=True)
    read_by(call, flow, kernel, 0, None, "it is an EinsumDense")
    out = call.make(number, axis, constants(kernel, -1, output_bias(layer, number)))
    call.cut(layer.kernel, 1, out.labels)
    call.cut(layer.bias, 0, out.labels)
    shape = layer.get_config()["output_shape"]
    before = [] if isinstance(shape, int) else list(shape)[:-1]
    call.edit("output_shape", out.labels, lambda number: (*before, int(number)))
    return [activated(call, out)]
