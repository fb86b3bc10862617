"""The walk through a model's graph: call by call, into nested models, through wrappers."""

from dataclasses import dataclass

import keras

from tfprune._keras.calls import graph_calls
from tfprune._keras.layers import runs_as_graph


@dataclass(frozen=True, eq=False)
class GraphCall:
    """One call in a model's graph.

    Attributes:
        layer: The layer or other operation. In place of a transparent wrapper, it is the
            wrapped layer.
        args: The positional arguments of the call, with KerasTensors in them.
        kwargs: The keyword arguments.
        outputs: List of the KerasTensors that it returns.
        path: Names of the layer and of the models around it.
    """

    layer: object
    args: tuple
    kwargs: dict
    outputs: list
    path: str

    @property
    def tensors(self):
        """The list of KerasTensors among the arguments."""
        found = keras.tree.flatten((self.args, self.kwargs))
        return [item for item in found if isinstance(item, keras.KerasTensor)]

    @property
    def shapes(self):
        """Their shapes, the batch included."""
        return [tuple(tensor.shape) for tensor in self.tensors]

    @property
    def output_shapes(self):
        """The shapes of the outputs."""
        return [tuple(tensor.shape) for tensor in self.outputs]


def is_transparent(layer):
    """Whether a layer is a wrapper that computes the same as its `inner`.

    Its class declares so by `is_transparent = True`.
    """
    return getattr(type(layer), "is_transparent", False)


def through_wrappers(layer):
    """Returns the layer inside a transparent wrapper, and any other layer unchanged."""
    while is_transparent(layer):
        layer = layer.inner
    return layer


def calls_in(model, path=""):
    """Yields a `GraphCall` for each call in a model, in running order; a nested model is one call.

    Args:
        model: A built Sequential or Functional model.
        path: Names of the models around this one.
    """
    for operation, args, kwargs, outputs in graph_calls(model):
        own = f"{path}/{operation.name}" if path else operation.name
        yield GraphCall(through_wrappers(operation), args, kwargs, outputs, own)


def follow_calls(model, values, visit, enter=None, path=""):
    """Propagates custom values through a model in place of tensors.

    Args:
        model: A built Sequential or Functional model.
        values: List with a value for each input of the model.
        visit: Function from a `GraphCall` and the list of its input values to the list of its
            output values.
        enter: Function from the `GraphCall` of a nested model and its input values to the values
            of the nested model's inputs; by default the same ones.
        path: Names of the models around this one.

    Returns:
        List with the value of each output of the model. A nested model that only runs its layers
        is entered at each of its calls; any other is visited as one call.
    """
    known = {id(tensor): value for tensor, value in zip(model.inputs, values, strict=True)}
    for call in calls_in(model, path):
        given = [known[id(tensor)] for tensor in call.tensors]
        if runs_as_graph(call.layer):
            entered = enter(call, given) if enter else given
            made = follow_calls(call.layer, entered, visit, enter, call.path)
        else:
            made = visit(call, given)
        known.update(zip(map(id, call.outputs), made, strict=True))
    return [known[id(tensor)] for tensor in model.outputs]
