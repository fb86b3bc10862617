"""Parameters, multiplications and bytes of a model."""

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from operator import attrgetter

import keras
import numpy as np

from tfprune import _keras
from tfprune._keras.checks import check_followable
from tfprune._layers import facts, registry
from tfprune._layers.stored import StoredKernel, number_of_weights, stores_nonzeros
from tfprune._reports.code_cost import macs_of_code


@dataclass(frozen=True)
class ModelCost:
    """The cost of a model.

    Attributes:
        parameters: Number of weights, excluding the states of random generators and metrics.
            Zeros count, even those that a sparse layer does not store.
        bytes: Size of the stored weights in memory, for a sparse layer with their places.
        macs: Multiply-accumulate operations of matrix products and convolutions for one example;
            `None` if the length of an input is unknown.
        uncounted: Paths of layers with weights whose multiplications are not counted in `macs`.
    """

    parameters: int
    bytes: int
    macs: int | None
    uncounted: tuple


def model_cost(model):
    """Counts the parameters, bytes and multiplications of a model.

    Zeros count like all other weights.

    Args:
        model: A built Sequential or Functional model. Nested models are counted too.

    Returns:
        A `ModelCost`.

    Raises:
        TypeError: If `model` is not a Keras 3 model.
        ValueError: If `model` is not built, or its `call` is code.

    Example:

    >>> model = keras.Sequential([keras.Input((8, 8, 3)), keras.layers.Conv2D(4, 3)])
    >>> cost = tfprune.model_cost(model)
    >>> cost.parameters, cost.macs
    (112, 3888)
    """
    check_followable(model)
    calls = _calls(model, _size)
    return ModelCost(
        _parameters(model),
        sum(_keras.host_array(weight).nbytes for weight in _weights(model)),
        known_sum(call.macs for call in calls),
        tuple(dict.fromkeys(path for call in calls for path in call.uncounted)),
    )


@dataclass(frozen=True)
class LayerCost:
    """The cost of one layer.

    Attributes:
        layer: Path of the layer in the model.
        type: Class name of the layer.
        shape: Shape of its output, without the batch.
        parameters: Number of its weights.
        prunable: Number of these that can be pruned, or that a sparse layer holds.
        zeros: Number of these that are exactly zero, stored or not.
        macs: Multiplications for one example, over all calls of the layer; `None` if unknown.
        effective_macs: Multiplications without those by a zero weight, as in a runtime with
            sparse kernels.
    """

    layer: str
    type: str
    shape: tuple
    parameters: int
    prunable: int
    zeros: int
    macs: int | None
    effective_macs: int | None

    @property
    def sparsity(self):
        """Fraction of zeros among the prunable weights."""
        return self.zeros / self.prunable if self.prunable else 0.0


def layer_costs(model):
    """Counts parameters, zeros and multiplications of a model, layer by layer.

    Args:
        model: A built Sequential or Functional model without wrappers. Layers of nested models
            are listed too; layers without weights or multiplications are omitted.

    Returns:
        List of `LayerCost`s, in the order of execution.

    Raises:
        TypeError: If `model` is not a Keras 3 model.
        ValueError: If `model` is not built, or its `call` is code.

    Example:

    >>> model = keras.Sequential([keras.Input((8, 8, 3)), keras.layers.Conv2D(4, 3, name="conv")])
    >>> (row,) = tfprune.layer_costs(model)
    >>> row.layer, row.shape, row.macs
    ('conv', (6, 6, 4), 3888)
    """
    check_followable(model)
    dense: dict = {}
    for call in _calls(model, _size):
        dense.setdefault(call.path, []).append(call)
    nonzeros = _nonzeros_once()
    sparse: dict = {}
    for call in _calls(model, nonzeros):
        sparse.setdefault(call.path, []).append(call.macs)
    rows = []
    for path, calls in dense.items():
        layer = calls[0].layer
        weights = _prunable(layer)
        row = LayerCost(
            path,
            type(layer).__name__,
            calls[0].shape[1:],
            _parameters(layer),
            sum(map(_size, weights)),
            sum(_size(weight) - nonzeros(weight) for weight in weights),
            known_sum(call.macs for call in calls),
            known_sum(sparse[path]),
        )
        if row.parameters or row.macs:
            rows.append(row)
    return rows


# -- Weights ---------------------------------------------------------------------------------------


def _weights(layer):
    return [weight for weight in layer.weights if "seed_generator" not in weight.path]


def _parameters(layer):
    return number_of_weights(_keras.flatten(layer), _weights(layer))


def _prunable(layer):
    """Returns the prunable variables, and the `StoredKernel`s, of a layer and of those inside."""
    found: dict = {}
    for inner in [layer, *(chain[-1][1] for chain in _keras.walk(layer))]:
        if stores_nonzeros(inner):
            found[id(inner)] = inner.stored
        for entry in (registry.own_prunable_weights(inner) if inner.built else None) or []:
            variable = entry.get(inner)
            found[id(variable)] = variable
    return list(found.values())


def _size(weight):
    return int(np.prod(weight.shape))


def _nonzeros_once():
    """Returns a function that counts the nonzero elements of a weight, and caches the count."""
    known: dict = {}

    def count(weight):
        if isinstance(weight, StoredKernel):
            return weight.nonzeros
        if id(weight) not in known:
            # A layer with LoRA or 4-bit weights makes a new tensor at each access. Keep it alive,
            # so that no other tensor gets its id.
            variable = isinstance(weight, keras.Variable)
            array = _keras.host_array(weight) if variable else _keras.on_host(weight)
            known[id(weight)] = (weight, int(np.count_nonzero(array)))
        return known[id(weight)][1]

    return count


# -- Multiplications -------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Call:
    """The multiplications of one call of a layer, and the paths of uncounted layers."""

    path: str
    layer: keras.layers.Layer
    shape: tuple
    macs: int | None
    uncounted: list


def _calls(model, count, around=""):
    """Lists a `_Call` for each call of a layer; `count(weight)` counts its multiplying elements."""
    found = []

    def visit(call, given):
        if isinstance(call.layer, keras.layers.Layer):
            shapes, shape = _shapes(call), call.output_shapes[0]
            arguments = (call.args, call.kwargs)
            macs, uncounted = _of_call(call.layer, call.path, shapes, shape, count, arguments)
            found.append(_Call(call.path, call.layer, shape, macs, uncounted))
        return call.outputs

    _keras.follow_calls(model, model.inputs, visit, path=around)
    return found


def _macs(model, around, count):
    calls = _calls(model, count, around)
    return known_sum(call.macs for call in calls), [
        path for call in calls for path in call.uncounted
    ]


def known_sum(numbers):
    """Returns the sum of numbers; `None` if one of them is unknown."""
    found = list(numbers)
    return None if None in found else sum(found)


def _shapes(call):
    """Returns `{argument: shape}` of the tensors passed to a layer, including the batch."""
    bound = inspect.signature(call.layer.call).bind(*call.args, **call.kwargs).arguments
    tensors = {name: keras.tree.flatten(value) for name, value in bound.items()}
    return {
        name: tuple(items[0].shape)
        for name, items in tensors.items()
        if items and isinstance(items[0], keras.KerasTensor)
    }


@dataclass(frozen=True)
class _Work:
    """A call whose multiplications are counted.

    Attributes:
        layer: The layer.
        path: Its path.
        shapes: `{argument: shape}` of its inputs, including the batch.
        out_shape: Shape of its output.
        count: Function from a weight to the number of its multiplying elements.
    """

    layer: keras.layers.Layer
    path: str
    shapes: dict
    out_shape: tuple
    count: Callable

    @property
    def shape(self):
        return next(iter(self.shapes.values()))


def _of_call(layer, path, shapes, out_shape, count, arguments=None):
    """Returns the multiplications of a call (`None` if unknown) and paths of uncounted layers."""
    macs = facts.fact(layer, "macs")
    if macs is None:
        # Scaling by a number per channel, as in a normalization, is not a matrix product.
        wide = [weight for weight in layer.trainable_weights if len(weight.shape) > 1]
        if not wide:
            return 0, []
        return _of_code(layer, arguments, path, count) if arguments else (0, [path])
    work = _Work(layer, path, shapes, out_shape, count)
    if macs.places in _INSIDE:
        return _INSIDE[macs.places](work)
    if macs.places == "attention":
        return _of_attention(work), []
    places = _PLACES[macs.places](work)
    return _times(sum(count(attrgetter(name)(layer)) for name in macs.weights), places), []


def _of_code(layer, arguments, path, count):
    def of_call(call):
        given = (call.args, call.kwargs)
        return _of_call(call.layer, call.path, _shapes(call), call.output_shapes[0], count, given)

    return macs_of_code(layer, arguments, path, count, of_call)


def _in_each_step(work):
    """Counts the inner layer once per time step."""
    shape, out_shape = work.shape, work.out_shape
    step, out_step = shape[:1] + shape[2:], out_shape[:1] + out_shape[2:]
    inner, inside = _of_layer(work.layer.layer, work.path, step, out_step, work.count)
    return _times(inner, shape[1]), inside


def _in_both_directions(work):
    found = [
        _of_layer(inner, work.path, work.shape, work.out_shape, work.count)
        for inner in (work.layer.forward_layer, work.layer.backward_layer)
    ]
    return known_sum(item[0] for item in found), [name for item in found for name in item[1]]


def _of_layer(layer, path, shape, out_shape, count):
    """Does the same as `_of_call` for a layer or model inside another layer."""
    path = f"{path}/{layer.name}"
    if _keras.is_graph(layer):
        return _macs(layer, path, count) if _keras.runs_as_graph(layer) else (0, [path])
    return _of_call(layer, path, {"inputs": shape}, out_shape, count)


def _times(macs, number):
    return None if macs is None or number is None else macs * number


def _of_attention(work):
    """Counts the projections, the attention scores and the weighted sum of the values."""
    layer, shapes = work.layer, work.shapes
    parts = _keras.attention_parts(layer)
    query, value = shapes["query"], shapes["value"]
    places = {name: shapes.get(name, value) for name in ("query", "key", "value")}
    places["gate"] = places["output"] = query
    if any(None in shape[1:-1] for shape in places.values()):
        return None
    projected = sum(
        _product(places[name][1:-1]) * work.count(_kernel(part)) for name, part in parts.items()
    )
    axes = getattr(layer, "attention_axes", None) or (1,)
    pairs = _product(query[1:-1]) * _product([value[axis] for axis in axes])
    heads, value_dim = _kernel(parts["output"]).shape[:2]
    key_dim = _kernel(parts["query"]).shape[2]
    return projected + pairs * int(heads) * int(key_dim + value_dim)


def _kernel(layer):
    """The kernel of a layer inside attention, which may be sparse."""
    return layer.stored if stores_nonzeros(layer) else layer.kernel


def _einsum_places(work):
    """Multiplies the sizes of all letters that the kernel does not have."""
    equation: str = work.layer.equation.replace(" ", "")
    inputs, kernel = equation.split("->")[0].split(",")
    before, _, after = inputs.partition("...")
    dots = [str(number) for number in range(len(work.shape) - len(before) - len(after))]
    names = [*before, *dots, *after]
    sizes = dict(zip(names, work.shape, strict=True))
    return _product([sizes[name] for name in names[1:] if name not in kernel])


def _window_places(layer, shape):
    first = layer.data_format == "channels_first"
    return _product(shape[2:] if first else shape[1:-1])


def _product(sizes):
    return None if None in sizes else int(np.prod(sizes))


# Number of positions at which each weight multiplies, by the kind in the table of layer facts.
_PLACES: dict = {
    "einsum": _einsum_places,
    "inputs": lambda work: _window_places(work.layer, work.shape),
    "nowhere": lambda work: 0,
    "outputs": lambda work: _window_places(work.layer, work.out_shape),
    "rows": lambda work: _product(work.shape[1:-1]),
    "steps": lambda work: work.shape[1],
}
# Layers whose multiplications are those of the layers inside them.
_INSIDE = {"both_directions": _in_both_directions, "each_step": _in_each_step}
