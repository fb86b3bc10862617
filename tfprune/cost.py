"""Parameters, multiplications and bytes of a model."""

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
            tensors = keras.tree.flatten((args, kwargs))
            given = next(item for item in tensors if isinstance(item, keras.KerasTensor))
            macs = _of_call(layer, tuple(given.shape), tuple(outputs[0].shape))
            if macs == _UNCOUNTED:
                uncounted.append(path)
                macs = 0
        total = None if total is None or macs is None else total + macs
    return total, uncounted


_UNCOUNTED = -1
_OF_OUTPUT = ["Conv1D", "Conv2D", "Conv3D", "DepthwiseConv1D", "DepthwiseConv2D"]
_OF_INPUT = ["Conv1DTranspose", "Conv2DTranspose", "Conv3DTranspose"]
_SEPARABLE = ["SeparableConv1D", "SeparableConv2D"]


def _of_call(layer, shape, out_shape):
    if _is(layer, _SEPARABLE):
        places = _places(layer, out_shape)
        weights = [layer.depthwise_kernel, layer.pointwise_kernel]
    elif _is(layer, _OF_OUTPUT):
        places, weights = _places(layer, out_shape), [layer.kernel]
    elif _is(layer, _OF_INPUT):
        places, weights = _places(layer, shape), [layer.kernel]
    elif _is(layer, ["Dense", "EinsumDense"]) and len(layer.kernel.shape) == 2:
        places, weights = _product(shape[1:-1]), [layer.kernel]
    else:
        # Numbers for each channel, as in a normalization, are no matrix products.
        wide = [w for w in layer.trainable_weights if len(w.shape) > 1]
        looked_up = _is(layer, ["Embedding", "PReLU"])
        return _UNCOUNTED if wide and not looked_up else 0
    return None if places is None else places * sum(int(np.prod(w.shape)) for w in weights)


def _is(layer, names):
    return any(isinstance(layer, getattr(keras.layers, name)) for name in names)


def _places(layer, shape):
    first = layer.data_format == "channels_first"
    return _product(shape[2:] if first else shape[1:-1])


def _product(sizes):
    return None if None in sizes else int(np.prod(sizes))
