"""Copies of layers and models, with their weights."""

import functools
import tempfile

import keras
from keras.src.saving.serialization_lib import SafeModeScope

from tfprune._base import validation as check
from tfprune._keras.devices import on_host
from tfprune._keras.layers import (
    all_attributes,
    children,
    flatten,
    is_graph,
    own_loop,
    plain_class,
    runs_as_graph,
    seed_generators,
)
from tfprune._keras.own_class import keeps_class


def _in_memory(function):
    """Lambda layers of a live model are copied: only those of a file could bring foreign code."""

    @functools.wraps(function)
    def copying(*args, **kwargs):
        with SafeModeScope(False):
            return function(*args, **kwargs)

    return copying


@_in_memory
def clone_graph(model, make, omit=()):
    """Clones a Sequential or Functional model with its weights, nested ones too.

    Args:
        model: The model, built; it is not changed.
        make: Function from a layer of the model to `(source, target, stand_in)`: `stand_in`
            replaces the layer in the clone, and the weights of `source` are copied to `target`
            inside it; `source` is `None` if `stand_in` has them already. A model that keeps its
            class is one layer.
        omit: `id`s of variables that the clone does not have.

    Returns:
        A new model with the same weights, uncompiled.
    """
    copies = []
    stand_ins: dict = {}

    def clone_function(layer):
        if not isinstance(layer, keras.layers.Layer):
            return type(layer).from_config(layer.get_config())
        # A layer or model may be in several of the graphs.
        if id(layer) not in stand_ins:
            stand_ins[id(layer)] = stand_in_of(layer)
        return stand_ins[id(layer)]

    def stand_in_of(layer):
        if is_graph(layer) and not keeps_class(layer):
            return clone(layer)
        source, target, stand_in = make(layer)
        if source is not None:
            copies.append((source, target))
        return stand_in

    def clone(model):
        model = _without_losses(model)
        return keras.models.clone_model(model, clone_function=clone_function, recursive=False)

    new = _cloned(model, clone)
    if _shared(model, omit) and not _shared(new):
        raise _no_copy(model, "with weights that layers share, which copies of the layers do not")
    for source, target in copies:
        copy_weights(source, target, omit)
    return new


def _shared(model, omit=()):
    """Whether layers directly inside a model, nested graphs included, share weights."""
    seen: dict = {}
    for layer in flatten(model):
        if is_graph(layer):
            for child in children(layer):
                if not is_graph(child):
                    for variable in child.weights:
                        seen.setdefault(id(variable), set()).add(id(child))
    return any(len(holders) > 1 for key, holders in seen.items() if key not in omit)


@_in_memory
def rebuild_graph(
    model, config_of, shape_of, move, leave_out=(), inside=False, by_own_class=lambda layer: None
):
    """Rebuilds a Sequential or Functional model, nested ones included, from changed configs.

    Args:
        model: The model, built; it is not changed.
        config_of: Function from a layer or another operation to its new config, or to `None` to
            keep its config.
        shape_of: Function from a model, this or one inside, and the number of one of its inputs
            to the new shape of that input, the batch included; called for nested models and for
            Sequential ones.
        move: Function that gives a new layer its weights, called with the old layer and the new.
        leave_out: `id`s of layers to bypass: the inputs of such a layer take the place of its
            outputs.
        inside: Whether the model is nested in another, so that `shape_of` knows its inputs.
        by_own_class: Function from a layer or nested model to its finished new form, or to `None`
            to rebuild it from its config.

    Returns:
        A new model, uncompiled.
    """
    clones: dict = {}
    finished = set()

    def clone_function(layer):
        if id(layer) in leave_out:
            return _passed_on
        if id(layer) not in clones:
            clones[id(layer)] = (layer, _anew(layer))
        return clones[id(layer)][1]

    def _anew(layer):
        made = by_own_class(layer) if isinstance(layer, keras.layers.Layer) else None
        if made is not None:
            finished.add(id(layer))
            return made
        if is_graph(layer):
            # A model with its own `call` computes more than its layers do.
            own = not runs_as_graph(layer)
            return clone_layer(layer) if own else _rebuilt(layer, shape_of, clone_function)
        config = config_of(layer)
        if not isinstance(layer, keras.layers.Layer):
            return type(layer).from_config(layer.get_config() if config is None else config)
        return bare_clone(layer) if config is None else type(layer).from_config(config)

    def make(model):
        # A Sequential model is a list of layers, so a bypassed layer has to be left out of it.
        if isinstance(model, keras.Sequential):
            return _rebuilt(model, shape_of, clone_function)
        return keras.models.clone_model(_without_losses(model), clone_function=clone_function)

    new = _rebuilt(model, shape_of, clone_function) if inside else _cloned(model, make)
    for old, clone in clones.values():
        moves = isinstance(old, keras.layers.Layer) and not is_graph(old)
        if moves and id(old) not in finished:
            move(old, clone)
            states = [generator.state for generator in seed_generators(old)]
            copy_variables(states, [g.state for g in seed_generators(clone)], old.name)
            refresh_constants(clone)
    return new


def _passed_on(inputs, *args, **kwargs):
    """Takes the place of a layer that was left out of a graph."""
    return inputs


def _rebuilt(model, shape_of, clone_function):
    """Rebuilds a model that may have fewer channels than the original."""
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
            _without_losses(model),
            input_tensors=inputs,
            clone_function=clone_function,
            recursive=False,
        )
    if not model.trainable:
        new.trainable = False
    return new


def _cloned(model, make):
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


def _without_losses(model):
    """A stand-in with the same layers, which Keras clones without losses and metrics.

    Those need not be serializable. The model itself is not touched: another thread may use it.
    """
    if not getattr(model, "compiled", False):
        return model
    stand_in = object.__new__(type(model))
    vars(stand_in).update(vars(model))
    vars(stand_in)["compiled"] = False
    return stand_in


@_in_memory
def bare_clone(layer):
    """Clones a layer, or a subclassed model, without its weights."""
    try:
        # A model holds its own masks and is copied with them; a layer's masks are in its wrapper.
        whole = isinstance(layer, keras.Model) or getattr(layer, "is_resized", False)
        cls = type(layer) if whole else plain_class(layer)
        clone = cls.from_config(layer.get_config())
    except Exception as error:
        said = check.first_line(error)
        raise _no_copy(layer, f"whose get_config() or from_config() fails: {said}") from error
    _copy_assets(layer, clone)
    return clone


def _no_copy(layer, why):
    name = type(layer).__name__
    return ValueError(
        check.message(
            f"'{layer.name}' to be a layer that can be copied",
            f"{name}, {why}",
            "Prune it without a copy: tfprune.prune_low_magnitude(..., copy=False), and later "
            f"tfprune.strip_pruning(..., copy=False); or implement {name}.get_config() so that "
            "it returns the constructor's arguments.",
        )
    )


def _copy_assets(source, target):
    """Copies the state that Keras saves in addition to weights: vocabularies of lookup layers."""
    olds, clones = (
        [layer for layer in flatten(holder) if hasattr(layer, "save_assets")]
        for holder in (source, target)
    )
    pairs = [(old, new) for old, new in zip(olds, clones, strict=False) if type(old) is type(new)]
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
    """Builds a layer, or a subclassed model, from the build config of another of its class."""
    layer.build_from_config(config or {})
    if layer.weights:
        # A model without its own build() was built by a call; building it again would lose the
        # shape of that call.
        layer.built = True


def clone_layer(layer):
    """Clones a layer, or a subclassed model, with its weights if it is built."""
    clone = bare_clone(layer)
    if layer.built:
        if not clone.built:
            build_from_config(clone, layer.get_build_config())
        copy_weights(layer, clone)
    return clone


def clone_as_it_is(model):
    """Clones a model by its own class, with weights, tied weights, LoRA weights, frozen layers."""
    clone = bare_clone(model)
    if not clone.built:
        build_from_config(clone, model.get_build_config())
    # Other layers, as those of a preprocessor, may be created when they are first called.
    olds, clones = ([layer for layer in flatten(m) if layer.weights] for m in (model, clone))
    names = [[type(layer).__name__ for layer in found] for found in (olds, clones)]
    if names[0] != names[1]:
        raise _no_copy(model, "whose copy has other layers")
    pairs = list(zip(olds, clones, strict=True))
    for old, new in pairs:
        _copy_lora(old, new)
    sources, targets = _state(model), _state(clone)
    if [tuple(v.shape) for v in sources] != [tuple(v.shape) for v in targets]:
        raise _no_copy(model, f"whose copy has other weights: {_difference(sources, targets)}")
    copy_weights(model, clone)
    for old, new in pairs:
        if old.trainable != new.trainable:
            new.trainable = old.trainable
    for source, target in zip(sources, targets, strict=True):
        if getattr(source, "trainable", True) != getattr(target, "trainable", True):
            target.trainable = source.trainable
    return clone


def _difference(sources, targets):
    if len(sources) != len(targets):
        return f"{len(targets)} instead of {len(sources)}"
    for source, target in zip(sources, targets, strict=True):
        if tuple(source.shape) != tuple(target.shape):
            return f"{source.path} of shape {tuple(target.shape)}, not {tuple(source.shape)}"
    return "none"


def _copy_lora(old, new):
    if getattr(old, "lora_enabled", False) and not getattr(new, "lora_enabled", False):
        new.enable_lora(old.lora_rank, lora_alpha=old.lora_alpha)
    # A KerasHub backbone lists the layers that it gave LoRA weights.
    for name in ("_lora_enabled_layers", "_lora_rank"):
        if name in vars(old):
            setattr(new, name, getattr(old, name))


def copy_weights(source, target, omit=()):
    """Copies all weights and random states from a layer to its clone, except those in `omit`."""
    kept = [variable for variable in _state(source) if id(variable) not in omit]
    copy_variables(kept, _state(target), source.name)
    refresh_constants(target)


def refresh_constants(layer):
    """Refreshes layers that compute with constants derived from their weights."""
    for inner in flatten(layer):
        if isinstance(inner, keras.layers.Normalization):
            inner.finalize_state()


def copy_variables(sources, targets, name):
    """Copies values through the host, so that no buffer is shared."""
    if [tuple(v.shape) for v in sources] != [tuple(v.shape) for v in targets]:
        raise ValueError(
            check.message(
                f"the same weights in '{name}' and its copy",
                f"{len(sources)} variables in the one, {len(targets)} in the other, or of other "
                "shapes",
                "Make get_config() of the layer return every argument that determines its "
                "weights, and create them in build().",
            )
        )
    for source, target in zip(sources, targets, strict=True):
        target.assign(on_host(source))


def _state(layer):
    return list(layer.weights) + [generator.state for generator in seed_generators(layer)]


def replace_inside(model, replacement):
    """Replaces layers that an unbuilt model or layer holds in attributes or lists.

    Args:
        model: The unbuilt model.
        replacement: Function from a layer to its replacement, or to itself.
    """
    for holder in flatten(model):
        order, places = list(children(holder)), {}
        for name, value in all_attributes(holder).items():
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
            # The order of layers is the order of their weights: a replacement keeps its place.
            at = {id(layer): place for place, layer in enumerate(order)}
            holder._layers.sort(key=lambda layer: at[id(places.get(id(layer), layer))])
