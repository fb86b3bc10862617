"""Finding the layers of a model, their places and their state."""

import keras
import numpy as np
from keras import ops
from keras.src.applications.convnext import LayerScale as LayerScale
from keras.src.applications.inception_resnet_v2 import CustomScaleLayer as CustomScaleLayer
from keras.src.layers.rnn.conv_lstm import ConvLSTMCell as ConvLSTMCell
from keras.src.models.functional import Functional
from keras.src.ops import numpy as operations

from tfprune._keras.devices import on_host, spans_processes

# What `x + r` and `x * r` are in a model's graph.
AddOperation, MultiplyOperation = operations.Add, operations.Multiply

_LOOP_METHODS = (
    "train_step",
    "test_step",
    "predict_step",
    "compute_loss",
    "stateless_compute_loss",
)


def backend():
    """Returns the name of the active Keras backend."""
    return keras.backend.backend()


def flatten(layer):
    """Returns a layer and all layers inside it, each once, in a fixed order."""
    return layer._flatten_layers()


def children(layer):
    """Returns the layers directly inside a layer."""
    return layer._flatten_layers(include_self=False, recursive=False)


def walk(layer, around=()):
    """Yields the chain of each layer inside a layer, once each, outer layers first.

    A chain is a tuple of `(path, layer)` from the outermost layer to the layer itself. `around`
    is the chain of `layer`, if another layer contains it.
    """
    seen = set()
    stack = [(tuple(around), child) for child in reversed(children(layer))]
    while stack:
        chain, child = stack.pop()
        if id(child) in seen:
            continue
        seen.add(id(child))
        path = f"{chain[-1][0]}/{child.name}" if chain else child.name
        chain = (*chain, (path, child))
        yield chain
        stack.extend((chain, below) for below in reversed(children(child)))


def places(layer):
    """Returns `{id: place}` of a layer, whose place is "", and of all layers inside it.

    A place is made of the attributes that hold the layers, "twin/others.0" for instance. Unlike
    names, places are the same in a clone; unlike positions, they stay when layers make further
    layers in `build`.
    """
    found, stack = {id(layer): ""}, [layer]
    while stack:
        holder = stack.pop()
        new = [(place, child) for place, child in _held(holder) if id(child) not in found]
        around = found[id(holder)]
        found.update({id(child): f"{around}/{place}".lstrip("/") for place, child in new})
        stack += [child for _, child in reversed(new)]
    return found


def _held(holder):
    named: dict = {}
    if is_graph(holder):
        named = {id(child): str(position) for position, child in enumerate(holder.layers)}
    for name, value in attribute_values(holder):
        for place, child in layers_in(value, name):
            named.setdefault(id(child), place)
    return [(named.get(id(child), f"#{n}"), child) for n, child in enumerate(children(holder))]


def all_attributes(holder):
    """Returns `{name: value}` of the attributes of a layer or model."""
    # On PyTorch a layer is a Module, which stores its inner layers separately.
    return {**vars(holder), **getattr(holder, "_modules", {})}


def attribute_values(holder):
    """Returns `(name, value)` of the attributes in which a layer may hold layers, public first."""
    attributes = all_attributes(holder)
    # TensorFlow's own tracking lists them a second time.
    return [
        (name, attributes[name])
        for name in sorted(attributes, key=lambda name: name.startswith("_"))
        if name not in ("_layers", "_modules") and not name.startswith("_self_")
    ]


def layers_in(value, place):
    """Yields `(place, layer)` of the layers in an attribute at a place."""
    if isinstance(value, keras.layers.Layer):
        yield place, value
    elif isinstance(value, (list, tuple)):
        for position, item in enumerate(value):
            yield from layers_in(item, f"{place}.{position}")
    elif isinstance(value, dict):
        for key, item in value.items():
            yield from layers_in(item, f"{place}.{str(key).replace('/', '|')}")


def is_graph(model):
    """Whether a model is Sequential or Functional, so that its layers can be replaced."""
    return isinstance(model, (keras.Sequential, Functional))


def plain_class(layer):
    """Returns the class that a layer or model had before it was pruned."""
    return getattr(type(layer), "_class_before_pruning", type(layer))


def own_loop(model):
    """Returns the names of the training methods that a model's class overrides."""
    base = keras.Sequential if isinstance(model, keras.Sequential) else keras.Model
    return [
        name
        for name in _LOOP_METHODS
        if getattr(plain_class(model), name, None) is not getattr(base, name, None)
    ]


def builds_by_itself(layer):
    """Whether a custom layer has a `build` that has not run yet and may create layers."""
    return (
        not layer.built
        and type(layer).build is not keras.layers.Layer.build
        and not type(layer).__module__.startswith("keras.")
    )


def attention_parts(layer):
    """Returns the layers inside a multi-head attention layer, by role.

    Args:
        layer: A built MultiHeadAttention or GroupQueryAttention.

    Returns:
        Dictionary with the EinsumDense layers "query", "key", "value" and "output", and with
        "gate" if the layer has one.
    """
    names = ("query", "key", "value", "gate", "output")
    found = {name: getattr(layer, f"_{name}_dense", None) for name in names}
    return {name: part for name, part in found.items() if part is not None}


def recurrent_states(layer):
    """Returns the state variables of a stateful recurrent layer; none for other layers."""
    states = getattr(layer, "states", None) if isinstance(layer, keras.layers.RNN) else None
    return keras.tree.flatten(states) if states else []


def seed_generators(layer):
    """Returns the random generators of a layer and all layers inside it."""
    found: list = []
    for inner in flatten(layer):
        for generator in getattr(inner, "_seed_generators", []):
            own = isinstance(generator, keras.random.SeedGenerator)
            if own and all(generator is not known for known in found):
                found.append(generator)
    return found


def host_array(variable):
    """Returns a variable's value as a NumPy array for reading, without a copy where possible."""
    value = variable.value
    if backend() == "tensorflow" and hasattr(value, "read_value"):
        # A plain variable's `value()` takes half the time of `read_value()`, which serves replicas.
        value = value.read_value() if hasattr(value, "values") else value.value()
        return np.asarray(value) if hasattr(value, "numpy") else ops.convert_to_numpy(variable)
    if backend() == "jax":
        return on_host(value) if spans_processes(value) else np.asarray(value)
    if backend() == "torch" and value.device.type == "cpu" and str(value.dtype) != "torch.bfloat16":
        return value.detach().numpy()
    return ops.convert_to_numpy(variable)


def first_shape(layer):
    """Returns the `input_shape` that a layer was made with, by which a Sequential model is built.

    `None` if there is none.
    """
    return getattr(layer, "_input_shape_arg", None)


def set_first_shape(layer, shape):
    """Gives a layer an `input_shape`, as its constructor's argument does."""
    layer._input_shape_arg = tuple(shape)


def input_shape(model):
    """Returns the shapes that a model was built with, or `None` if they are unknown."""
    config = model.get_build_config() or {}
    inner = config.get("inner")
    return (inner if isinstance(inner, dict) else config).get("input_shape")


def runs_as_graph(model):
    """Whether a Sequential or Functional model only runs its layers."""
    base = keras.Sequential if isinstance(model, keras.Sequential) else Functional
    return is_graph(model) and plain_class(model).call is base.call
