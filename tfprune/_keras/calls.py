"""Watching, tracing and reading the calls of layers."""

import contextlib
import functools
import inspect

import keras
import numpy as np
from keras import ops
from keras.src import backend as keras_backend
from keras.src.backend.common import global_state, masking
from keras.src.backend.common.stateless_scope import in_stateless_scope


def is_tracing_without_state():
    """Whether variables are read-only now, as in a stateless call in JAX's `fit`."""
    return in_stateless_scope()


def adopt_call_arguments(wrapper, layer):
    """Makes Keras treat the call arguments of a wrapper like those of the wrapped layer."""
    for name in (
        "_call_signature",
        "call_signature_parameters",
        "_call_has_training_arg",
        "_call_has_mask_arg",
        "_call_context_args",
        "_call_has_context_arg",
    ):
        # Bypasses Keras's tracking, which would record these as state of the wrapper.
        object.__setattr__(wrapper, name, getattr(layer, name))


def is_symbolic(item):
    """Whether an item is a KerasTensor."""
    return isinstance(item, keras.KerasTensor)


def as_symbolic(value):
    """Returns a KerasTensor like a tensor, and any other object unchanged."""
    if hasattr(value, "shape") and hasattr(value, "dtype"):
        return keras.KerasTensor(value.shape, dtype=keras.backend.standardize_dtype(value.dtype))
    return value


def is_training():
    """Whether the current `call` runs in training mode."""
    # Not layer._get_call_context(), which opens a context where `call` is run directly.
    context = global_state.get_global_attribute("current_call_ctx")
    return bool(context is not None and context.get_value("training"))


def outermost_called():
    """Returns the layer or model whose call encloses all others that run now, or `None`."""
    context = global_state.get_global_attribute("current_call_ctx")
    return None if context is None else context.entry_layer


class intercepted_calls:
    """Runs `handle(layer, call, args, kwargs)` in place of each call of the layers.

    Args:
        layers: The layers.
        handle: The function to run. `call` is the layer's own method; what `handle` returns are
            the outputs.
    """

    def __init__(self, layers, handle):
        self._layers = layers
        self._handle = handle

    def __enter__(self):
        for layer in self._layers:
            # Bypasses Keras's tracking; an attribute of the object hides the method of its class.
            object.__setattr__(layer, "call", self._intercepted(layer, layer.call))

    def _intercepted(self, layer, call):
        @functools.wraps(call)
        def intercepted(*args, **kwargs):
            return self._handle(layer, call, args, kwargs)

        return intercepted

    def __exit__(self, *error):
        for layer in self._layers:
            object.__delattr__(layer, "call")


def positional(call, args, kwargs):
    """Returns the positional arguments of a call; the first one also if it was given by name.

    Args:
        call: The method.
        args: Its positional arguments.
        kwargs: Its other arguments.
    """
    first = next(iter(inspect.signature(call).parameters), None)
    return args or tuple(value for name, value in kwargs.items() if name == first)


class watched_calls(intercepted_calls):
    """Calls `seen(layer, arguments, outputs)` after each call of the layers.

    The arguments are the positional ones, and the first one also if code gives it by name.

    Args:
        layers: The layers to watch.
        seen: The function to call.
    """

    def __init__(self, layers, seen):
        def handle(layer, call, args, kwargs):
            outputs = call(*args, **kwargs)
            seen(layer, positional(call, args, kwargs), outputs)
            return outputs

        super().__init__(layers, handle)


class watched_operations:
    """Calls `seen(name, arguments, outputs)` after each call of operations of `keras.ops`.

    Args:
        names: Names of the operations, as code calls them: `keras.ops.einsum`.
        seen: The function to call.
    """

    def __init__(self, names, seen):
        self._originals = {name: getattr(ops, name) for name in names}
        self._seen = seen

    def __enter__(self):
        for name, operation in self._originals.items():
            setattr(ops, name, self._watched(name, operation))

    def _watched(self, name, operation):
        @functools.wraps(operation)
        def watched(*args, **kwargs):
            outputs = operation(*args, **kwargs)
            self._seen(name, args, outputs)
            return outputs

        return watched

    def __exit__(self, *error):
        for name, operation in self._originals.items():
            setattr(ops, name, operation)


class RunStopped(Exception):
    """Ends the run of a model in the middle, from within the call of a layer."""

    # Keras replaces every other exception by its own, made from the message.
    _keras_call_info_injected = True


class HeldTensor:
    """A tensor that waits on the host, with the padding mask that Keras attached to it.

    Args:
        tensor: The tensor.
    """

    def __init__(self, tensor):
        self._array = ops.convert_to_numpy(tensor)
        self._dtype = keras.backend.standardize_dtype(tensor.dtype)
        mask = masking.get_keras_mask(tensor)
        self._mask = None if mask is None else ops.convert_to_numpy(mask)

    @property
    def array(self):
        """The values as a float32 NumPy array."""
        return np.asarray(self._array, dtype="float32")

    def tensor(self):
        """Returns the tensor again."""
        made = ops.convert_to_tensor(self._array, dtype=self._dtype)
        if self._mask is not None:
            masking.set_keras_mask(made, ops.convert_to_tensor(self._mask))
        return made


def without_gradients():
    """Returns a context in which PyTorch keeps nothing for a backward pass."""
    if keras_backend.backend() != "torch":
        return contextlib.nullcontext()
    import torch

    return torch.no_grad()


def symbolic_inputs(model):
    """Returns a Sequential or Functional model's input KerasTensors in their structure."""
    functional = model._functional if isinstance(model, keras.Sequential) else model
    return functional._inputs_struct


def symbolic_outputs(model):
    """Returns a Sequential or Functional model's output KerasTensors in their structure."""
    functional = model._functional if isinstance(model, keras.Sequential) else model
    return functional._outputs_struct


def trace(model, inputs):
    """Runs a model's `call` once on placeholders, without computing anything.

    Args:
        model: A built model.
        inputs: KerasTensors in the structure of the model's inputs.
    """
    keras_backend.compute_output_spec(lambda x: model.call(x), inputs)


def graph_calls(model):
    """Yields `(operation, args, kwargs, outputs)` of all calls in a model, in running order.

    Args:
        model: A built Sequential or Functional model.

    Yields:
        The layer, or the operation if it is not a layer; its arguments, with KerasTensors of this
        model; and the list of KerasTensors that it returns. A nested model is one call.
    """
    functional = model._functional if isinstance(model, keras.Sequential) else model
    for depth in sorted(functional._nodes_by_depth, reverse=True):
        for node in functional._nodes_by_depth[depth]:
            if not node.is_input:
                yield node.operation, node.arguments.args, node.arguments.kwargs, node.outputs
