"""Parameters, multiplications and bytes of a model."""

import inspect
from dataclasses import dataclass

import keras
import numpy as np

from tfprune import _keras_graph as graph
from tfprune import _validation as check
from tfprune.refusals import check_built, not_keras


@dataclass(frozen=True)
class ModelCost:
    """What a model costs.

    Attributes:
        parameters: Number of its weights, states of random generators and metrics left out.
        bytes: What these take in memory.
        macs: Multiplications, each with its addition, that one example needs in matrix products
            and convolutions; `None` if lengths of inputs are not known.
        uncounted: Paths of layers with weights whose multiplications are not in `macs`.
    """

    parameters: int
    bytes: int
    macs: int | None
    uncounted: tuple


def model_cost(model):
    """Counts parameters, bytes and multiplications of a model.

    Zeros count as much as other weights.

    Args:
        model: A built Sequential or Functional model; models inside are counted too.

    Returns:
        A `ModelCost`.

    Raises:
        TypeError: If `model` is no Keras 3 model.
        ValueError: If it is not built, or its `call` is code.

    Example:

    >>> model = keras.Sequential([keras.Input((8, 8, 3)), keras.layers.Conv2D(4, 3)])
    >>> cost = tfprune.model_cost(model)
    >>> cost.parameters, cost.macs
    (112, 3888)
    """
    if not isinstance(model, keras.Model):
        raise TypeError(not_keras(model, "model"))
    check_built(model)
    if not graph.runs_as_graph(model):
        raise ValueError(
            check.message(
                "a Sequential or Functional model",
                f"'{model.name}' of class {type(model).__name__}",
                "Build the same layers with keras.Model(inputs, outputs).",
            )
        )
    weights = [weight for weight in model.weights if "seed_generator" not in weight.path]
    macs, uncounted = _macs(model, "")
    return ModelCost(
        sum(int(np.prod(weight.shape)) for weight in weights),
        sum(graph.host_array(weight).nbytes for weight in weights),
        macs,
        tuple(dict.fromkeys(uncounted)),
    )


def _macs(model, around):
    total: int | None = 0
    uncounted: list = []
    for layer, args, kwargs, outputs in graph.graph_calls(model):
        if not isinstance(layer, keras.layers.Layer):
            continue
        path = f"{around}{layer.name}"
        if graph.runs_as_graph(layer):
            macs, inside = _macs(layer, f"{path}/")
            uncounted += inside
        else:
            shapes = _shapes(layer, args, kwargs)
            macs, inside = _of_call(layer, path, shapes, tuple(outputs[0].shape))
            uncounted += inside
        total = None if total is None or macs is None else total + macs
    return total, uncounted


_OF_OUTPUT = ["Conv1D", "Conv2D", "Conv3D", "DepthwiseConv1D", "DepthwiseConv2D"]
_OF_INPUT = ["Conv1DTranspose", "Conv2DTranspose", "Conv3DTranspose"]
_SEPARABLE = ["SeparableConv1D", "SeparableConv2D"]


def _shapes(layer, args, kwargs):
    """`{argument: shape}` of the tensors that a layer is called on, the batch included."""
    bound = inspect.signature(layer.call).bind(*args, **kwargs).arguments
    tensors = {name: keras.tree.flatten(value) for name, value in bound.items()}
    return {
        name: tuple(items[0].shape)
        for name, items in tensors.items()
        if items and isinstance(items[0], keras.KerasTensor)
    }


def _of_call(layer, path, shapes, out_shape):
    """Multiplications of one call, `None` if unknown, and paths of layers that are not counted."""
    shape = next(iter(shapes.values()))
    if _is(layer, ["TimeDistributed"]):
        step = shape[:1] + shape[2:]
        out_step = out_shape[:1] + out_shape[2:]
        inner, inside = _of_layer(layer.layer, path, step, out_step)
        return _times(inner, shape[1]), inside
    if _is(layer, ["Bidirectional"]):
        found = [
            _of_layer(inner, path, shape, out_shape)
            for inner in (layer.forward_layer, layer.backward_layer)
        ]
        macs = [item[0] for item in found]
        return None if None in macs else sum(macs), [name for item in found for name in item[1]]
    if _is(layer, ["LSTM", "GRU", "SimpleRNN"]):
        weights = [layer.cell.kernel, layer.cell.recurrent_kernel]
        return _times(sum(int(np.prod(w.shape)) for w in weights), shape[1]), []
    if _is(layer, ["MultiHeadAttention", "GroupQueryAttention"]):
        return _of_attention(layer, shapes), []
    if _is(layer, ["EinsumDense"]):
        return _of_einsum(layer, shape), []
    return _of_matrices(layer, path, shape, out_shape)


def _of_layer(layer, path, shape, out_shape):
    """The same for a layer, or a model, that another one holds."""
    path = f"{path}/{layer.name}"
    if graph.is_graph(layer):
        return _macs(layer, f"{path}/") if graph.runs_as_graph(layer) else (0, [path])
    return _of_call(layer, path, {"inputs": shape}, out_shape)


def _times(macs, number):
    return None if macs is None or number is None else macs * number


def _of_attention(layer, shapes):
    """Projections of each place, a product of places with places, and the mean that it weighs."""
    parts = graph.attention_parts(layer)
    query, value = shapes["query"], shapes["value"]
    places = {name: shapes.get(name, value) for name in ("query", "key", "value")}
    places["gate"] = places["output"] = query
    if any(None in shape[1:-1] for shape in places.values()):
        return None
    projected = sum(
        _product(places[name][1:-1]) * int(np.prod(part.kernel.shape))
        for name, part in parts.items()
    )
    axes = getattr(layer, "attention_axes", None) or (1,)
    pairs = _product(query[1:-1]) * _product([value[axis] for axis in axes])
    heads, value_dim = parts["output"].kernel.shape[:2]
    key_dim = parts["query"].kernel.shape[2]
    return projected + pairs * int(heads) * int(key_dim + value_dim)


def _of_einsum(layer, shape):
    """One for each combination of the letters' values."""
    equation: str = layer.equation.replace(" ", "")
    inputs, kernel = equation.split("->")[0].split(",")
    before, _, behind = inputs.partition("...")
    dots = [str(number) for number in range(len(shape) - len(before) - len(behind))]
    names = [*before, *dots, *behind]
    sizes = dict(zip(names, shape, strict=True))
    sizes.update(zip(kernel.replace(".", ""), layer.kernel.shape, strict=True))
    return _product([size for name, size in sizes.items() if name != names[0]])


def _of_matrices(layer, path, shape, out_shape):
    if _is(layer, _SEPARABLE):
        places = _places(layer, out_shape)
        weights = [layer.depthwise_kernel, layer.pointwise_kernel]
    elif _is(layer, _OF_OUTPUT):
        places, weights = _places(layer, out_shape), [layer.kernel]
    elif _is(layer, _OF_INPUT):
        places, weights = _places(layer, shape), [layer.kernel]
    elif _is(layer, ["Dense"]):
        places, weights = _product(shape[1:-1]), [layer.kernel]
    else:
        # Numbers for each channel, as in a normalization, are no matrix products.
        wide = [w for w in layer.trainable_weights if len(w.shape) > 1]
        looked_up = _is(layer, ["Embedding", "PReLU"])
        return 0, [path] if wide and not looked_up else []
    return _times(sum(int(np.prod(w.shape)) for w in weights), places), []


def _is(layer, names):
    return any(isinstance(layer, getattr(keras.layers, name)) for name in names)


def _places(layer, shape):
    first = layer.data_format == "channels_first"
    return _product(shape[2:] if first else shape[1:-1])


def _product(sizes):
    return None if None in sizes else int(np.prod(sizes))
