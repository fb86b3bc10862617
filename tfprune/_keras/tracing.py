"""Runs the code of a layer on placeholders, and lists the calls that it makes."""

import contextlib
import inspect
import threading
from dataclasses import dataclass

import keras
from keras.src import backend as keras_backend
from keras.src.layers import layer as layer_module
from keras.src.ops.node import Node
from keras.src.ops.operation import Operation

from tfprune._keras.walking import GraphCall, through_wrappers

# Code often computes with the sizes of its inputs, so these must be numbers.
_BATCH, _LENGTH = 3, 7


@dataclass(frozen=True, eq=False)
class CodeTrace:
    """The calls that the code of a layer makes.

    Attributes:
        inputs: List of KerasTensors, one for each tensor among the arguments of the layer's call.
        calls: List of `GraphCall`s, of layers inside and of operations, in running order.
        outputs: List of the KerasTensors that the layer returns; `None` in place of a tensor that
            does not depend on the inputs.
    """

    inputs: list
    calls: list
    outputs: list


def trace_code(layer, args, kwargs, path="", sizes=(_BATCH, _LENGTH)):
    """Runs a layer's `call` once on placeholders. Computes nothing and leaves no trace.

    Args:
        layer: A built layer.
        args: The positional arguments, with KerasTensors in them.
        kwargs: The keyword arguments.
        path: Path of the layer, for the paths of the calls inside.
        sizes: Numbers to use for an unknown batch size and for other unknown sizes.

    Returns:
        A `CodeTrace`.

    Raises:
        Exception: Any error of the layer's code, which may need more than placeholders.
    """
    inputs = []

    def placeholder(item):
        if not isinstance(item, keras.KerasTensor):
            return item
        shape = tuple(
            sizes[min(axis, 1)] if size is None else size for axis, size in enumerate(item.shape)
        )
        inputs.append(keras.KerasTensor(shape, dtype=item.dtype))
        return inputs[-1]

    args, kwargs = keras.tree.map_structure(placeholder, (args, dict(kwargs)))
    signature = inspect.signature(layer.call)
    if "training" in signature.parameters:
        bound = signature.bind(*args, **kwargs)
        bound.arguments["training"] = False
        args, kwargs = bound.args, bound.kwargs
    calls, result = calls_of(layer.call, args, kwargs, path)
    outputs = [
        item if isinstance(item, keras.KerasTensor) else None
        for item in keras.tree.flatten(result)
        if item is not None
    ]
    return CodeTrace(inputs, calls, outputs)


def calls_of(function, args, kwargs=None, path=""):
    """Runs a function on KerasTensors.

    Returns:
        The list of `GraphCall`s that it makes, and its result.
    """
    calls: list = []
    with _recorded(calls, path):
        result = function(*args, **(kwargs or {}))
    return calls, result


@contextlib.contextmanager
def _recorded(calls, path):
    """Lists the symbolic calls of this thread, and keeps them out of Keras's own graph."""
    thread = threading.get_ident()
    busy: list = []

    def instead_of(original):
        def symbolic_call(operation, *args, **kwargs):
            if busy or threading.get_ident() != thread:
                return original(operation, *args, **kwargs)
            busy.append(True)
            try:
                if isinstance(operation, keras.layers.Layer):
                    # A layer's own compute_output_spec() may know less than its code.
                    outputs = keras_backend.compute_output_spec(operation.call, *args, **kwargs)
                else:
                    outputs = operation.compute_output_spec(*args, **kwargs)
                outputs = keras.tree.map_structure(_as_dense, outputs)
            finally:
                busy.pop()
            found = [t for t in keras.tree.flatten(outputs) if isinstance(t, keras.KerasTensor)]
            own = f"{path}/{operation.name}" if path else operation.name
            calls.append(GraphCall(through_wrappers(operation), args, kwargs, found, own))
            return outputs

        return symbolic_call

    def no_node(*args, **kwargs):
        return None if threading.get_ident() == thread else Node(*args, **kwargs)

    with contextlib.ExitStack() as stack:
        for cls in (Operation, layer_module.Layer):
            original = cls.symbolic_call
            stack.enter_context(_replaced(cls, "symbolic_call", instead_of(original)))
        if hasattr(layer_module, "Node"):
            stack.enter_context(_replaced(layer_module, "Node", no_node))
        yield


def _as_dense(item):
    # Keras calls the result of an einsum sparse, which some layers then refuse.
    sparse = isinstance(item, keras.KerasTensor) and item.sparse
    return keras.KerasTensor(item.shape, dtype=item.dtype) if sparse else item


@contextlib.contextmanager
def _replaced(holder, name, value):
    before = vars(holder).get(name, _replaced)
    setattr(holder, name, value)
    try:
        yield
    finally:
        if before is _replaced:
            delattr(holder, name)
        else:
            setattr(holder, name, before)
