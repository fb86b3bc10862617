"""Watching, tracing and reading the calls of layers."""

import functools

import keras
from keras.src import backend as keras_backend
from keras.src.backend.common import global_state
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


class watched_calls:
    """Calls `seen(layer, arguments, outputs)` after each call of the layers.

    Args:
        layers: The layers to watch.
        seen: The function to call.
    """

    def __init__(self, layers, seen):
        self._layers = layers
        self._seen = seen

    def __enter__(self):
        for layer in self._layers:
            # Bypasses Keras's tracking; an attribute of the object hides the method of its class.
            object.__setattr__(layer, "call", self._watched(layer, layer.call))

    def _watched(self, layer, call):
        @functools.wraps(call)
        def watched(*args, **kwargs):
            outputs = call(*args, **kwargs)
            self._seen(layer, args, outputs)
            return outputs

        return watched

    def __exit__(self, *error):
        for layer in self._layers:
            object.__delattr__(layer, "call")


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
