"""Multiplications of layers whose `call` is code: of the layers inside, and of operations."""

from math import prod

import keras

from tfprune import _keras

# Operations that multiply and add, and are not counted.
_OTHERS = ("Conv", "ConvTranspose", "DepthwiseConv", "SeparableConv", "Tensordot", "Inner", "Outer")


def macs_of_code(layer, arguments, path, count, of_call):
    """Counts the multiplications of one call of a layer, by running its code on placeholders.

    Args:
        layer: The layer.
        arguments: `(args, kwargs)` of the call, with KerasTensors in them.
        path: Path of the layer.
        count: Function from a weight to the number of its multiplying elements.
        of_call: Function from a `GraphCall` of a layer inside to its multiplications and the
            paths of uncounted layers.

    Returns:
        The multiplications for one example, `None` if a length is unknown; and the paths of
        layers that are not counted.
    """
    try:
        args, kwargs = arguments
        trace = _keras.trace_code(layer, args, kwargs, path)
    except Exception:
        # Code that needs more than placeholders.
        return 0, [path]
    total, uncounted = 0, []
    for call in trace.calls:
        if isinstance(call.layer, keras.layers.Layer):
            macs, inside = of_call(call)
        elif type(call.layer).__name__ in _OTHERS:
            macs, inside = 0, [path]
        else:
            macs, inside = _of_operation(call, count, trace.inputs[0].shape[0]), []
        total += macs or 0
        uncounted += inside
    given = keras.tree.flatten(arguments)
    known = all(None not in x.shape[1:] for x in given if isinstance(x, keras.KerasTensor))
    return (total if known or not total else None), uncounted


def _of_operation(call, count, batch):
    """Returns the multiplications of a product of tensors; 0 for any other operation."""
    kind = type(call.layer).__name__
    if kind not in ("Einsum", "Matmul", "Dot", "DotProductAttention"):
        return 0
    operands = [item for item in keras.tree.flatten(call.args) if hasattr(item, "shape")]
    named = [item for item in keras.tree.flatten(call.kwargs) if hasattr(item, "shape")]
    first, second = (operands or named)[:2] if len(operands) != 1 else [*operands, *named][:2]
    if kind == "DotProductAttention":
        _, length, heads, size = first.shape
        return 2 * length * second.shape[1] * heads * size
    if kind == "Einsum":
        left = call.layer.subscripts.replace(" ", "").split("->")[0].split(",")
        letters = dict(zip(left[0], first.shape, strict=True))
        letters.update(zip(left[1], second.shape, strict=True))
        matrix, own = (second, left[1]) if _is_constant(second) else (first, left[0])
    else:
        (output,) = call.outputs
        letters = dict(enumerate(output.shape)) | {"summed": first.shape[-1]}
        matrix, own = second, (len(output.shape) - 1, "summed")
    if not _is_constant(matrix):
        return prod(letters.values()) // batch
    places = prod(size for letter, size in letters.items() if letter not in own)
    return count(matrix) * places // batch


def _is_constant(operand):
    return not isinstance(operand, keras.KerasTensor)
