"""The only file that touches Keras internals; tests/test_keras_graph.py would notice a change."""

import functools
import tempfile

import keras
import numpy as np
from keras import ops
from keras.src import backend as keras_backend
from keras.src.applications.convnext import LayerScale as LayerScale
from keras.src.applications.inception_resnet_v2 import CustomScaleLayer as CustomScaleLayer
from keras.src.backend.common import global_state
from keras.src.backend.common.stateless_scope import in_stateless_scope
from keras.src.layers.rnn.conv_lstm import ConvLSTMCell as ConvLSTMCell
from keras.src.models.functional import Functional
from keras.src.trainers.data_adapters import get_data_adapter

from tfprune import _validation as check

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

    A chain is a tuple of `(path, layer)` from the outermost layer to the one meant. `around` is
    the chain of `layer` itself, if it lies inside something.
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
    # On PyTorch a layer is a Module, which keeps the layers inside it apart.
    attributes = {**vars(holder), **getattr(holder, "_modules", {})}
    for name in sorted(attributes, key=lambda name: name.startswith("_")):
        # TensorFlow's own book-keeping lists them a second time.
        if name not in ("_layers", "_modules") and not name.startswith("_self_"):
            for place, child in _layers_in(attributes[name], name):
                named.setdefault(id(child), place)
    return [(named.get(id(child), f"#{n}"), child) for n, child in enumerate(children(holder))]


def _layers_in(value, place):
    if isinstance(value, keras.layers.Layer):
        yield place, value
    elif isinstance(value, (list, tuple)):
        for position, item in enumerate(value):
            yield from _layers_in(item, f"{place}.{position}")
    elif isinstance(value, dict):
        for key, item in value.items():
            yield from _layers_in(item, f"{place}.{str(key).replace('/', '|')}")


def is_graph(model):
    """Whether a model is a Sequential or a Functional one, so that its layers can be replaced."""
    return isinstance(model, (keras.Sequential, Functional))


def own_loop(model):
    """Returns the names of the training methods that a model's class writes itself."""
    base = keras.Sequential if isinstance(model, keras.Sequential) else keras.Model
    return [
        name
        for name in _LOOP_METHODS
        if getattr(type(model), name, None) is not getattr(base, name, None)
    ]


def clone_graph(model, make, omit=()):
    """Clones a Sequential or Functional model with its weights, nested ones too.

    Args:
        model: The model, built; it is not changed.
        make: Function from a layer of the model to `(source, target, stand_in)`: the layer to
            stand in its place in the clone, and where in it the weights of `source` go to.
        omit: `id`s of variables that have no place in the clone.

    Returns:
        A new model with the same weights, uncompiled.
    """
    copies = []

    def clone_function(layer):
        if not isinstance(layer, keras.layers.Layer):
            return type(layer).from_config(layer.get_config())
        source, target, stand_in = make(layer)
        copies.append((source, target))
        return stand_in

    def clone(model):
        return keras.models.clone_model(model, clone_function=clone_function, recursive=True)

    new = _cloned(model, clone)
    for source, target in copies:
        copy_weights(source, target, omit)
    return new


def rebuild_graph(model, config_of, shape_of, move, leave_out=(), inside=False):
    """Makes a Sequential or Functional model anew from changed configs, nested ones too.

    Args:
        model: The model, built; it is not changed.
        config_of: Function from a layer, or an operation that is no layer, to its new config, or
            to `None` where the config stays.
        shape_of: Function from a model, this or one inside, and the number of one of its inputs
            to the new shape of that input, the batch included; asked for models inside and for
            Sequential ones.
        move: Function that gives a new layer its weights, called with the old layer and the new.
        leave_out: `id`s of layers that the new model is to do without: what they were called on
            goes on in place of what they returned.
        inside: Whether the model is one inside another, so that `shape_of` knows its inputs.

    Returns:
        A new model, uncompiled.
    """
    clones: dict = {}

    def clone_function(layer):
        if id(layer) in leave_out:
            return _passed_on
        if id(layer) not in clones:
            clones[id(layer)] = (layer, _anew(layer))
        return clones[id(layer)][1]

    def _anew(layer):
        if is_graph(layer):
            # One with a call of its own is more than its layers.
            own = not runs_as_graph(layer)
            return clone_layer(layer) if own else _rebuilt(layer, shape_of, clone_function)
        config = config_of(layer)
        if not isinstance(layer, keras.layers.Layer):
            return type(layer).from_config(layer.get_config() if config is None else config)
        return bare_clone(layer) if config is None else type(layer).from_config(config)

    def make(model):
        # A Sequential one has a list of layers, where nothing can be called in place of one.
        if isinstance(model, keras.Sequential):
            return _rebuilt(model, shape_of, clone_function)
        return keras.models.clone_model(model, clone_function=clone_function)

    new = _rebuilt(model, shape_of, clone_function) if inside else _cloned(model, make)
    for old, clone in clones.values():
        if isinstance(old, keras.layers.Layer) and not is_graph(old):
            move(old, clone)
            states = [generator.state for generator in seed_generators(old)]
            copy_variables(states, [g.state for g in seed_generators(clone)], old.name)
            refresh_constants(clone)
    return new


def _passed_on(inputs, *args, **kwargs):
    """Stands in a graph where a layer was left out."""
    return inputs


def _rebuilt(model, shape_of, clone_function):
    """A model that may get fewer channels than the one that it is made from."""
    numbers = iter(range(len(model.inputs)))

    def narrower(tensor):
        shape = shape_of(model, next(numbers))
        return keras.Input(batch_shape=shape, dtype=tensor.dtype, name=tensor.name)

    if isinstance(model, keras.Sequential):
        layers = [clone_function(layer) for layer in model.layers]
        layers = [layer for layer in layers if layer is not _passed_on]
        new = keras.Sequential([narrower(model.inputs[0]), *layers], name=model.name)
    else:
        inputs = keras.tree.map_structure(narrower, model.input)
        new = keras.models.clone_model(
            model, input_tensors=inputs, clone_function=clone_function, recursive=False
        )
    if not model.trainable:
        new.trainable = False
    return new


def _cloned(model, make):
    originals = [model] + [inner for inner in flatten(model)[1:] if is_graph(inner)]
    with _uncompiled(originals):
        new = make(model)
    _check_same_class(model, new)
    for old_inner, new_inner in _matching_graphs(model, new):
        _check_same_class(old_inner, new_inner)
    if not new.built:
        new.build(model.input_shape)
    if not model.trainable:
        new.trainable = False
    return new


def _matching_graphs(model, new):
    olds = [inner for inner in flatten(model)[1:] if is_graph(inner)]
    by_name = {inner.name: inner for inner in flatten(new)[1:] if is_graph(inner)}
    return [(old, by_name[old.name]) for old in olds if old.name in by_name]


def _check_same_class(model, new):
    lost = own_loop(model)
    if type(new) is not type(model) and lost:
        raise ValueError(
            check.message(
                f"a class that can be made from (inputs, outputs), so that its {lost[0]}() can "
                "be kept",
                f"model '{model.name}' of class {type(model).__name__}",
                "Let its constructor take (inputs, outputs, **kwargs), or train with a loop of "
                "your own that calls tfprune.UpdatePruningStep(model).step().",
            )
        )


class _uncompiled:
    """Lets Keras clone models without their losses, which need not be serializable."""

    def __init__(self, models):
        self._models = [model for model in models if getattr(model, "compiled", False)]

    def __enter__(self):
        for model in self._models:
            object.__setattr__(model, "compiled", False)

    def __exit__(self, *error):
        for model in self._models:
            object.__setattr__(model, "compiled", True)


def bare_clone(layer):
    """Clones a layer, or a subclassed model, without its weights."""
    try:
        clone = type(layer).from_config(layer.get_config())
    except (NotImplementedError, TypeError) as error:
        raise ValueError(
            check.message(
                f"'{layer.name}' to be a layer that can be copied",
                f"{type(layer).__name__}, whose get_config() or from_config() fails: {error}",
                f"Implement {type(layer).__name__}.get_config() so that it returns the "
                "constructor's arguments.",
            )
        ) from error
    _copy_assets(layer, clone)
    return clone


def _copy_assets(source, target):
    """Copies what Keras saves beside the weights: the vocabularies of lookup layers."""
    pairs = [
        (old, new)
        for old, new in zip(flatten(source), flatten(target), strict=False)
        if hasattr(old, "save_assets") and type(old) is type(new)
    ]
    for old, new in pairs:
        if isinstance(old, (keras.layers.StringLookup, keras.layers.IntegerLookup)):
            store: dict = {}
            old.save_own_variables(store)
            new.load_own_variables(store)
    for old, new in pairs:
        with tempfile.TemporaryDirectory() as folder:
            old.save_assets(folder)
            new.load_assets(folder)


def builds_by_itself(layer):
    """Whether a layer that is not Keras's own has a `build`, not run yet, that may make layers."""
    return (
        not layer.built
        and type(layer).build is not keras.layers.Layer.build
        and not type(layer).__module__.startswith("keras.")
    )


def build_from_config(layer, config):
    """Builds a layer, or a subclassed model, from the build config of its like."""
    layer.build_from_config(config or {})
    if layer.weights:
        # A model without a build() of its own was only run; building it again would forget the
        # shape that it was run with.
        layer.built = True


def clone_layer(layer):
    """Clones a layer, or a subclassed model, with its weights if it is built."""
    clone = bare_clone(layer)
    if layer.built:
        if not clone.built:
            build_from_config(clone, layer.get_build_config())
        copy_weights(layer, clone)
    return clone


def copy_weights(source, target, omit=()):
    """Copies all weights and random states from a layer to its clone, all but those in `omit`."""
    kept = [variable for variable in _state(source) if id(variable) not in omit]
    copy_variables(kept, _state(target), source.name)
    refresh_constants(target)


def refresh_constants(layer):
    """Tells layers that compute with constants made of their weights that these have changed."""
    for inner in flatten(layer):
        if isinstance(inner, keras.layers.Normalization):
            inner.finalize_state()


def copy_variables(sources, targets, name):
    """Copies values, through the host so that no buffer is shared."""
    if [tuple(v.shape) for v in sources] != [tuple(v.shape) for v in targets]:
        raise ValueError(
            check.message(
                f"the same weights in '{name}' and its copy",
                f"{len(sources)} variables in the one, {len(targets)} in the other, or of other "
                "shapes",
                "See that get_config() of the layer holds all that decides on its weights, and "
                "that build() creates them.",
            )
        )
    for source, target in zip(sources, targets, strict=True):
        target.assign(ops.convert_to_numpy(source))


def _state(layer):
    return list(layer.weights) + [generator.state for generator in seed_generators(layer)]


def replace_inside(model, replacement):
    """Replaces layers that an unbuilt model or layer holds in attributes or lists.

    Args:
        model: The unbuilt model.
        replacement: Function from a layer to the one that takes its place, or to itself.
    """
    for holder in flatten(model):
        order, places = list(children(holder)), {}
        # On PyTorch a layer is a Module, which keeps the layers inside it apart.
        attributes = {**vars(holder), **getattr(holder, "_modules", {})}
        for name, value in attributes.items():
            if name.startswith("_"):
                continue
            if isinstance(value, keras.layers.Layer):
                items, remake = [value], lambda new: new[0]
            elif isinstance(value, (list, tuple)):
                items, remake = list(value), type(value) if isinstance(value, tuple) else list
            else:
                continue
            new = [replacement(v) if isinstance(v, keras.layers.Layer) else v for v in items]
            changed = [(old, item) for old, item in zip(items, new, strict=True) if old is not item]
            for old, item in changed:
                holder._tracker.untrack(old)
                places[id(item)] = old
            if changed:
                setattr(holder, name, remake(new))
        if places:
            # The order of layers is the order of their weights: each takes the place of the old.
            at = {id(layer): place for place, layer in enumerate(order)}
            holder._layers.sort(key=lambda layer: at[id(places.get(id(layer), layer))])


def attention_parts(layer):
    """Returns the layers inside an attention layer with heads, by what they compute.

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
    """Returns the variables in which a stateful recurrent layer remembers; none for others."""
    states = getattr(layer, "states", None) if isinstance(layer, keras.layers.RNN) else None
    return keras.tree.flatten(states) if states else []


def seed_generators(layer):
    """Returns the random generators of a layer and all layers inside it."""
    found: list = []
    for inner in flatten(layer):
        for generator in getattr(inner, "_seed_generators", []):
            if all(generator is not known for known in found):
                found.append(generator)
    return found


def host_array(variable):
    """Returns a variable's value as a NumPy array for reading, without a copy where possible."""
    value = variable.value
    if backend() == "tensorflow" and hasattr(value, "read_value"):
        value = value.read_value()
        return np.asarray(value) if hasattr(value, "numpy") else ops.convert_to_numpy(variable)
    if backend() == "jax":
        return np.asarray(value)
    if backend() == "torch" and value.device.type == "cpu" and str(value.dtype) != "torch.bfloat16":
        return value.detach().numpy()
    return ops.convert_to_numpy(variable)


def is_legacy_h5():
    """Whether a model is being written to, or read from, a file of the old HDF5 format."""
    return bool(global_state.get_global_attribute("use_legacy_config", False))


def is_tracing_without_state():
    """Whether variables cannot be written now: inside a stateless call, as in JAX's `fit`."""
    return in_stateless_scope()


def adopt_call_arguments(wrapper, layer):
    """Lets Keras treat the call arguments of a wrapper as it treats those of the layer inside."""
    for name in (
        "_call_signature",
        "call_signature_parameters",
        "_call_has_training_arg",
        "_call_has_mask_arg",
        "_call_context_args",
        "_call_has_context_arg",
    ):
        # Past Keras's tracking, which would take these for state of the wrapper.
        object.__setattr__(wrapper, name, getattr(layer, name))


def is_training():
    """Whether the `call` that runs now does so in training mode."""
    # Not layer._get_call_context(), which opens one where `call` is run by itself.
    context = global_state.get_global_attribute("current_call_ctx")
    return bool(context is not None and context.get_value("training"))


def single_optimizers(optimizer):
    """Returns the plain optimizers inside an optimizer: of loss scaling or of several."""
    inner = getattr(optimizer, "inner_optimizer", None)
    if inner is not None:
        return single_optimizers(inner)
    several = getattr(optimizer, "optimizers", None)
    if several:
        return [single for item in several for single in single_optimizers(item)]
    return [optimizer]


def batches_done(optimizer):
    """Returns `(batches, accumulation)`: batches an optimizer has seen, and batches per update."""
    first = single_optimizers(optimizer)[0]
    return int(ops.convert_to_numpy(first._iterations)), first.gradient_accumulation_steps or 1


def averages(optimizer):
    """Returns `{id(variable): its moving average}` for an optimizer that keeps averages."""
    found = {}
    for single in single_optimizers(optimizer):
        if getattr(single, "use_ema", False) and single.built:
            pairs = zip(
                single._trainable_variables, single._model_variables_moving_average, strict=True
            )
            found.update({id(v): average for v, average in pairs if average is not None})
    return found


def slots(optimizer, variable):
    """Returns what an optimizer remembers of one variable: momenta and the like, same shape."""
    found = []
    for single in single_optimizers(optimizer):
        known = getattr(single, "_trainable_variables", [])
        places = [place for place, item in enumerate(known) if item is variable]
        if not places:
            continue
        for name, kept in vars(single).items():
            if name == "_trainable_variables" or not isinstance(kept, (list, tuple)):
                continue
            if len(kept) == len(known) and kept[places[0]] is not None:
                slot = kept[places[0]]
                if isinstance(slot, keras.Variable) and slot.shape == variable.shape:
                    found.append(slot)
    return found


def numpy_batches(data, batch_size):
    """Returns an iterator over batches of NumPy arrays, of anything that `fit` takes.

    Args:
        data: A data set, a generator, or arrays as a tuple `(x, y, sample_weight)`, the last one
            or two left out where there are none.
        batch_size: For arrays.
    """
    return iter(_adapter(data, batch_size).get_numpy_iterator())


def number_of_batches(data, batch_size):
    """Returns how many batches there are in data that can be read again; `None` if unknown."""
    is_a_set = isinstance(data, keras.utils.PyDataset) or not hasattr(data, "__next__")
    return _adapter(data, batch_size).num_batches if is_a_set else None


def _adapter(data, batch_size):
    parts = data if isinstance(data, tuple) else (data,)
    return get_data_adapter(*parts, batch_size=batch_size)


class watched_calls:
    """Calls `seen(layer, arguments, outputs)` after each call of some layers.

    Args:
        layers: The layers.
        seen: A function.
    """

    def __init__(self, layers, seen):
        self._layers = layers
        self._seen = seen

    def __enter__(self):
        for layer in self._layers:
            # Past Keras's tracking; an attribute of the object hides the method of its class.
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


def input_shape(model):
    """Returns the shapes that a model was built with, or `None` where they are not known."""
    config = model.get_build_config() or {}
    inner = config.get("inner")
    return (inner if isinstance(inner, dict) else config).get("input_shape")


def symbolic_inputs(model):
    """Returns the KerasTensors of a Sequential or Functional model in the structure it takes."""
    functional = model._functional if isinstance(model, keras.Sequential) else model
    return functional._inputs_struct


def trace(model, inputs):
    """Runs a model's `call` once on placeholders, without computing anything.

    Args:
        model: A built model.
        inputs: KerasTensors in the structure that the model takes.
    """
    keras_backend.compute_output_spec(lambda x: model.call(x), inputs)


def before_training(model, action):
    """Lets `action(model)` be called whenever `fit` or `train_on_batch` is about to train."""
    if getattr(model.make_train_function, "action", None) is action:
        return
    original = model.make_train_function

    def make_train_function(force=False):
        action(model)
        return original(force)

    make_train_function.action = action  # type: ignore[attr-defined]
    model.make_train_function = make_train_function


def after_training(model, action):
    """Lets `action()` be called at the end of the running `fit`, after all callbacks.

    Keras puts its own History last, unless the user brings one.
    """
    history = getattr(model, "history", None)
    if history is None:
        return

    original = history.on_train_end

    def on_train_end(logs=None):
        vars(history).pop("on_train_end", None)
        original(logs)
        action()

    history.on_train_end = on_train_end


def on_host(tensor):
    """Returns a tensor as a NumPy array."""
    return np.asarray(ops.convert_to_numpy(tensor))


def runs_as_graph(model):
    """Whether a Sequential or Functional model runs its layers and does nothing beside."""
    base = keras.Sequential if isinstance(model, keras.Sequential) else Functional
    return is_graph(model) and type(model).call is base.call


def graph_calls(model):
    """Yields `(operation, args, kwargs, outputs)` of all calls in a model, in running order.

    Args:
        model: A built Sequential or Functional model.

    Yields:
        The layer, or operation that is no layer; what it is called on, with KerasTensors of this
        model; and the list of KerasTensors that it returns. Models inside are one call.
    """
    functional = model._functional if isinstance(model, keras.Sequential) else model
    for depth in sorted(functional._nodes_by_depth, reverse=True):
        for node in functional._nodes_by_depth[depth]:
            if not node.is_input:
                yield node.operation, node.arguments.args, node.arguments.kwargs, node.outputs
