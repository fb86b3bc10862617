"""The walk through a model's graph: call by call, into models inside, through wrappers."""

from dataclasses import dataclass

import keras

from tfprune._keras.calls import graph_calls
from tfprune._keras.layers import runs_as_graph


@dataclass(frozen=True, eq=False)
class GraphCall:
    """One call in a model's graph.

    Attributes:
        layer: The layer, or the operation that is no layer. A wrapper that is transparent is
            never seen: the layer in it is.
        args: What it is called on, with KerasTensors in it.
        kwargs: Further arguments by name.
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
        """List of the KerasTensors among the arguments."""
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


def through_wrappers(layer):
    """Returns the layer inside a wrapper that changes nothing; others as they are.

    A class says by `is_transparent = True` that its `inner` computes what it computes.
    """
    while getattr(type(layer), "is_transparent", False):
        layer = layer.inner
    return layer


def calls_in(model, path=""):
    """Yields a `GraphCall` for each call in a model, in running order; a model inside is one call.

    Args:
        model: A built Sequential or Functional model.
        path: Names of the models around this one.
    """
    for operation, args, kwargs, outputs in graph_calls(model):
        own = f"{path}/{operation.name}" if path else operation.name
        yield GraphCall(through_wrappers(operation), args, kwargs, outputs, own)


def follow_calls(model, values, visit, enter=None, path=""):
    """Runs through a model with values of one's own in place of tensors.

    Args:
        model: A built Sequential or Functional model.
        values: List with a value for each input of the model.
        visit: Function from a `GraphCall`, and the list of the values that come to it, to the list
            of those of its outputs.
        enter: Function from the `GraphCall` of a model inside, and the values that come to it, to
            those that its inputs get; by default the same ones.
        path: Names of the models around this one.

    Returns:
        List with the value of each output of the model. A model inside is run through at each of
        its calls, if it does nothing but run its layers; otherwise it is visited.
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
