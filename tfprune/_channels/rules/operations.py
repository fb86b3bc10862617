"""Rules shared by layers and bare operations: elementwise, merging, reshaping."""

import keras
import numpy as np

from tfprune._channels.ledger import UNKNOWN, Flow, evaluated, unknown_values


def elementwise(call):
    """Passes channels on: each output number depends only on inputs at the same place."""
    if len(call.inputs) > 1:
        return merge(call)
    flow = call.inputs[0]
    if flow.axis is None:
        return [UNKNOWN]
    ndim = len(call.shapes[0])
    values = evaluated(call.layer, len(flow.labels), flow.axis, ndim, flow.values)
    return [flow.carrying(values)]


def merge(call, function=None):
    """Merges broadcast tensors, for instance by a sum or a product.

    Args:
        call: The `Call`.
        function: The operation, with one argument for each tensor; by default the layer itself.
    """
    ndim = len(call.output_shapes[0])
    sizes = [_from_right(shape, ndim) for shape in call.shapes]
    places = {
        flow.axis + ndim - len(shape)
        for flow, shape in zip(call.inputs, call.shapes, strict=True)
        if flow.axis is not None
    }
    if len(places) != 1:
        name = call.ledger.path(call.layer)
        return call.stop(f"'{name}' aligns channels of one input with places of another")
    (axis,) = places
    full = max(size[axis] or 0 for size in sizes)
    wide = [i for i, size in enumerate(sizes) if size[axis] == full]
    narrow = [i for i in range(len(sizes)) if i not in wide]
    for index in narrow:
        call.fix("they are spread over all channels of another tensor", index)
    unknown = [i for i in wide if call.inputs[i].axis is None]
    name = call.ledger.path(call.layer)
    if unknown:
        call.fix(f"'{name}' merges them with an input, or with channels that are not followed")
    flows = [call.inputs[i] for i in wide if call.inputs[i].axis is not None]
    if not flows:
        return [UNKNOWN]
    for flow in flows[1:]:
        call.ledger.tie(flows[0].labels, flow.labels)
    columns = []
    for index, flow in enumerate(call.inputs):
        known = flow.axis is not None and index in wide
        columns.append(flow.values if known else unknown_values(full))
    values = _merged(call, function, axis, ndim, full, columns)
    return [Flow(axis, flows[0].labels, values)]


def _merged(call, function, axis, ndim, number, columns):
    layer = call.layer
    if function is None:
        is_layer = isinstance(layer, keras.layers.Layer)
        function = (lambda *inputs: layer(list(inputs))) if is_layer else layer
    values = evaluated(function, number, axis, ndim, *columns)
    if type(layer).__name__ == "Multiply":
        # Zero times any number is zero, so a silent channel needs no known gate.
        silent = np.any([column == 0 for column in columns], axis=0)
        values = np.where(silent, np.float32(0), values)
    return values


def _from_right(shape, ndim):
    return (1,) * (ndim - len(shape)) + tuple(shape)


def concatenation(call, axis):
    """Concatenates tensors along the channels or along another axis."""
    ndim = len(call.output_shapes[0])
    axis %= ndim
    followed = {flow.axis for flow in call.inputs if flow.axis is not None}
    if not followed:
        return [UNKNOWN]
    if followed == {axis}:
        flows = [call.take(axis, index) for index in range(len(call.inputs))]
        labels = np.concatenate([flow.labels for flow in flows])
        return [Flow(axis, labels, np.concatenate([flow.values for flow in flows]))]
    name = call.ledger.path(call.layer)
    if len(followed) > 1 or any(flow.axis is None for flow in call.inputs):
        return call.stop(f"'{name}' aligns them with places of another tensor")
    flows = call.inputs
    for flow in flows[1:]:
        call.ledger.tie(flows[0].labels, flow.labels)
    same = np.all([flow.values == flows[0].values for flow in flows], axis=0)
    return [flows[0].carrying(np.where(same, flows[0].values, np.nan))]


def reordering(call, order=None, target_key=None):
    """Moves numbers to other places: transposed, reshaped, or both.

    Args:
        call: The `Call`.
        order: The input's axes without the batch, in their new order, counted from 0.
        target_key: The entry of the config that holds the new shape, if any.
    """
    flow, shape, out_shape = call.inputs[0], call.shapes[0], call.output_shapes[0]
    if flow.axis is None:
        return [UNKNOWN]
    name = call.ledger.path(call.layer)
    if target_key and call.shared:
        return call.stop(f"'{name}' has one target shape for several calls")
    # All places along an axis of unknown length hold the same channels, so one is enough.
    inner = [size or 1 for size in shape[1:]]
    index = np.arange(len(flow.labels))
    wide = [1] * len(inner)
    wide[flow.axis - 1] = len(index)
    full = np.broadcast_to(index.reshape(wide), inner)
    if order is not None:
        full = full.transpose(order)
    target = _concrete(full.size, shape, out_shape)
    if target is None:
        return call.stop(f"'{name}' has a shape that is only known at run time")
    full = full.reshape(target)
    varying = [i for i in range(full.ndim) if (full != full.take([0], axis=i)).any()]
    if len(index) < 2 or len(varying) != 1:
        return call.stop(f"'{name}' splits channels, or mixes them with places")
    axis = varying[0] + 1
    column = np.moveaxis(full, varying[0], 0).reshape(full.shape[varying[0]], -1)[:, 0]
    if out_shape[axis] is None:
        return call.stop(f"'{name}' has a shape that is only known at run time")
    labels = flow.labels[column]
    if target_key:
        _edit_target(call, target_key, axis, labels, len(out_shape))
    return [Flow(axis, labels, flow.values[column])]


def _concrete(size, shape, out_shape):
    """Returns the output's shape without the batch, with 1 for each unknown length."""
    target = list(out_shape[1:])
    if not target or (None in target and None not in shape[1:]):
        return None
    known = int(np.prod([n for n in target if n is not None]))
    gaps = [i for i, n in enumerate(target) if n is None]
    if size % max(known, 1) or (not gaps and known != size):
        return None
    for position, gap in enumerate(gaps):
        target[gap] = size // known if position == 0 else 1
    return target


def _edit_target(call, key, axis, labels, ndim):
    target = list(call.layer.get_config()[key])
    place = axis - (ndim - len(target))
    if target[place] in (-1, None):
        return

    def value(number):
        return tuple(int(number) if i == place else n for i, n in enumerate(target))

    call.edit(key, labels, value)


# -- Bare operations -------------------------------------------------------------------------------


def _operation(call):
    """Follows an elementwise operation on tensors and numbers, as in `x * 2 + y`."""
    args, kwargs = call.arguments
    tensors = [i for i, arg in enumerate(args) if isinstance(arg, keras.KerasTensor)]
    others = [arg for i, arg in enumerate(args) if i not in tensors]
    single = [np.ndim(arg) == 0 for arg in [*others, *kwargs.values()]]
    if len(tensors) != len(call.inputs) or not all(single):
        return call.stop(f"'{call.layer.name}' has a number for each of them")

    def function(*arrays):
        given = list(args)
        for place, value in zip(tensors, arrays, strict=True):
            given[place] = value
        return call.layer(*given, **kwargs)

    if len(tensors) > 1:
        return merge(call, function)
    flow = call.inputs[0]
    if flow.axis is None:
        return [UNKNOWN]
    ndim = len(call.shapes[0])
    return [flow.carrying(evaluated(function, len(flow.labels), flow.axis, ndim, flow.values))]


def _reshape_operation(call):
    return reordering(call, target_key="newshape")


def _transpose_operation(call):
    axes = call.layer.axes
    if axes is None or axes[0] != 0:
        return call.stop(f"'{call.layer.name}' moves the batch")
    return reordering(call, [axis - 1 for axis in axes[1:]])


def _squeezing(call):
    return reordering(call)


def _indexing(call):
    """Picks places or adds axes, as in `x[:, 0]` and `x[:, None, None, :]`; all channels stay.

    A part of the channels is named by numbers in the user's code, which no removal could change.
    """
    flow, ndim = call.inputs[0], len(call.shapes[0])
    if flow.axis is None:
        return [UNKNOWN]
    args, kwargs = call.arguments
    key = kwargs["key"] if "key" in kwargs else args[1]
    entries = list(key) if isinstance(key, (list, tuple)) else [key]
    if any(not (entry is None or isinstance(entry, _ENTRIES)) for entry in entries):
        return call.stop(f"'{call.layer.name}' picks by another tensor")
    missing = ndim - sum(entry is not None and entry is not Ellipsis for entry in entries)
    place = entries.index(Ellipsis) if Ellipsis in entries else len(entries)
    entries[place : place + 1] = [slice(None)] * missing
    read, axes = 0, {}
    kept = 0
    for entry in entries:
        if entry is None:
            kept += 1
            continue
        if isinstance(entry, slice):
            axes[read] = kept
            kept += 1
        if read in (0, flow.axis) and entry != slice(None):
            return call.stop(f"'{call.layer.name}' picks some of them")
        read += 1
    if axes[0] != 0:
        return call.stop(f"'{call.layer.name}' moves the batch")
    return [flow.moved(axes[flow.axis])]


def _reduction(call):
    """Reduces places, by a mean or maximum; a sum of constants depends on their number."""
    flow, ndim = call.inputs[0], len(call.shapes[0])
    if flow.axis is None:
        return [UNKNOWN]
    axes = call.layer.axis
    axes = range(ndim) if axes is None else axes if isinstance(axes, (list, tuple)) else [axes]
    axes = sorted(axis % ndim for axis in axes)
    if flow.axis in axes or 0 in axes:
        return call.stop(f"'{call.layer.name}' mixes them")
    before = 0 if call.layer.keepdims else sum(axis < flow.axis for axis in axes)
    values = flow.values
    if type(call.layer).__name__ == "Sum":
        values = np.where(values == 0, 0, np.nan)
    return [flow.carrying(values).moved(flow.axis - before)]


def _concatenate_operation(call):
    return concatenation(call, call.layer.axis)


def is_elementwise(operation):
    """Whether an operation of Keras computes each number from those at the same place."""
    known = type(operation).__module__.startswith("keras.")
    return known and OPERATIONS.get(type(operation).__name__) is _operation


def has_single_numbers(call):
    """Whether the arguments of an operation that are not tensors are single numbers."""
    args = [*call.args, *call.kwargs.values()]
    return all(np.ndim(arg) == 0 for arg in args if not isinstance(arg, keras.KerasTensor))


# What `_indexing` finds in a key; None, which adds an axis, aside.
_ENTRIES = (int, slice, type(Ellipsis))
_ELEMENTWISE = """
    Abs Absolute Add Subtract Multiply Divide TrueDivide Maximum Minimum Power Negative Square Sqrt
    Exp Log1p Relu Relu6 Sigmoid Silu Gelu HardSigmoid HardSilu Tanh Elu Celu Selu Softplus
    Softsign LeakyRelu LogSigmoid Clip Cast Mish HardTanh
    Equal NotEqual Greater GreaterEqual Less LessEqual LogicalAnd LogicalOr LogicalNot
"""
OPERATIONS = {
    **dict.fromkeys(_ELEMENTWISE.split(), _operation),
    "Reshape": _reshape_operation,
    "Transpose": _transpose_operation,
    "Squeeze": _squeezing,
    "ExpandDims": _squeezing,
    "GetItem": _indexing,
    "Mean": _reduction,
    "Max": _reduction,
    "Min": _reduction,
    "Sum": _reduction,
    "Any": _reduction,
    "All": _reduction,
    "Concatenate": _concatenate_operation,
}
