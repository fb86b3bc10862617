"""The only file that touches Keras internals; tests/test_keras_graph.py would notice a change."""

import tempfile

import keras
import numpy as np
from keras import ops
from keras.src.backend.common.stateless_scope import in_stateless_scope
from keras.src.layers.rnn.conv_lstm import ConvLSTMCell as ConvLSTMCell
from keras.src.models.functional import Functional

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

    originals = [model] + [inner for inner in flatten(model)[1:] if is_graph(inner)]
    with _uncompiled(originals):
        new = keras.models.clone_model(model, clone_function=clone_function, recursive=True)
    _check_same_class(model, new)
    for old_inner, new_inner in _matching_graphs(model, new):
        _check_same_class(old_inner, new_inner)
    if not new.built:
        new.build(model.input_shape)
    for source, target in copies:
        copy_weights(source, target, omit)
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


def is_training(layer):
    """Whether a layer's `call` runs in training mode now."""
    context = layer._get_call_context()
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
