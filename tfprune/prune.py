"""Wrapping and stripping."""

import os

import keras

from tfprune import _keras_graph as graph
from tfprune import _validation as check
from tfprune import registry, schedules
from tfprune.mask_set import find_prunable, nothing_to_prune
from tfprune.methods import Method, Rule, resolve
from tfprune.wrapper import (
    MaskOwner,
    PrunedModel,
    PruneLowMagnitude,
    check_wrappable,
    mask_owners,
    not_keras,
    pattern_of,
)


def prune_low_magnitude(
    to_prune,
    pruning_schedule=None,
    block_size=(1, 1),
    block_pooling_type="AVG",
    pruning_policy=None,
    sparsity_m_by_n=None,
    *,
    pattern=None,
    scope=None,
    criterion=None,
    rules=None,
):
    """Wraps a layer, a list of layers or a model so that training prunes it.

    The result is a copy with the same weights; what was passed in is not changed. A model comes
    back uncompiled. Layers without anything to prune are left as they are;
    `tfprune.sparsity_report(model)` lists them with the reason.

    Args:
        to_prune: A `keras.layers.Layer`, a list of them, or a built `keras.Model`: Sequential,
            Functional (nested, shared layers, several inputs and outputs) or subclassed.
        pruning_schedule: A `PruningSchedule`; by default `ConstantSparsity(0.5, begin_step=0)`.
        block_size: `(height, width)` of blocks that are pruned as one unit.
        block_pooling_type: "AVG" or "MAX" of the magnitudes in a block.
        pruning_policy: A `PruningPolicy` that says which layers to prune and checks the model.
        sparsity_m_by_n: `(zeros, group)`: (2, 4) means 2 zeros in every 4 weights.
        pattern: A pattern or the name of one, instead of `block_size` and `sparsity_m_by_n`.
        scope: "local" (each weight gets the same sparsity; the default), "global" (one threshold
            over all weights) or a `Scope`.
        criterion: A criterion or the name of one; the magnitude by default.
        rules: List of `Rule`s that give layers a method of their own or exempt them.

    Returns:
        The wrapped layer, list or model.

    Raises:
        ValueError: If nothing can be pruned, the model is not built or wrapped already, a pattern
            does not fit a weight, or a rule matches nothing.
        TypeError: If an argument is of the wrong kind, a tf_keras model for instance.

    Example:

    >>> model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(4)])
    >>> pruned = tfprune.prune_low_magnitude(
    ...     model, tfprune.PolynomialDecay(0.0, 0.9, begin_step=0, end_step=100))
    >>> pruned.layers[0].name == model.layers[0].name
    True
    """
    if pruning_schedule is None:
        pruning_schedule = schedules.ConstantSparsity(0.5, begin_step=0)
    pattern = pattern_of(block_size, block_pooling_type, sparsity_m_by_n, pattern)
    method = Method.of(pruning_schedule, pattern, criterion, scope)
    plan = _Plan(method, _check_rules(rules), _check_policy(pruning_policy))
    if isinstance(to_prune, (list, tuple)):
        for layer in to_prune:
            check_wrappable(layer)
        plan.check_used(to_prune)
        return [plan.wrapped_alone(layer) if plan.prunes(layer) else layer for layer in to_prune]
    if isinstance(to_prune, keras.Model):
        return _prune_model(to_prune, plan)
    check_wrappable(to_prune)
    if not plan.prunes(to_prune):
        raise ValueError(nothing_to_prune(to_prune))
    plan.check_used([to_prune])
    return plan.wrapped_alone(to_prune)


def strip_pruning(model):
    """Takes the wrappers off: same weights, exactly sparse, no trace of tfprune.

    Args:
        model: A wrapped layer or a model with wrapped layers. It is not changed and can be
            trained on.

    Returns:
        A plain copy; a model without wrappers is copied too. A model comes back uncompiled.

    Raises:
        TypeError: If it is no Keras 3 layer or model.
        ValueError: If the model is not built.

    Example:

    >>> model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(4)])
    >>> pruned = tfprune.prune_low_magnitude(model)
    >>> type(tfprune.strip_pruning(pruned).layers[0]).__name__
    'Dense'
    """
    if not isinstance(model, keras.layers.Layer):
        raise TypeError(not_keras(model, "model"))
    if isinstance(model, (keras.Model, MaskOwner)):
        _check_built(model)
    for owner in mask_owners(model):
        for weight in owner.pruned_weights:
            weight.check_in_place()
            weight.project()
    if isinstance(model, MaskOwner):
        model = model.inner
    if graph.is_graph(model):
        return graph.clone_graph(model, _without_wrapper, _mask_ids(model))
    if mask_owners(model):
        return _strip_subclassed(model)
    return graph.clone_layer(model)


def _mask_ids(model):
    return {id(w.mask) for owner in mask_owners(model) for w in owner.pruned_weights}


def _without_wrapper(layer):
    source = layer.inner if isinstance(layer, MaskOwner) else layer
    clone = _bare_without_wrappers(source)
    return source, clone, clone


def _unwrapped(layer):
    if isinstance(layer, MaskOwner):
        return layer.inner
    if graph.is_graph(layer) and mask_owners(layer):
        return graph.clone_graph(layer, _without_wrapper, _mask_ids(layer))
    return layer


def _bare_without_wrappers(model):
    """Clones a layer or model without its weights, and without wrappers that it makes itself."""
    clone = graph.bare_clone(model)
    if mask_owners(clone):
        graph.replace_inside(clone, _unwrapped)
    if mask_owners(clone):
        raise ValueError(
            check.message(
                "wrapped layers in attributes or lists of the model",
                f"{type(model).__name__}, which holds them in another way",
                "Keep wrapped layers in plain attributes.",
            )
        )
    return clone


def _strip_subclassed(model):
    """Strips a model or layer whose own constructor made the wrappers."""
    clone = _bare_without_wrappers(model)
    graph.build_from_config(clone, model.get_build_config())
    masks = _mask_ids(model)
    kept = [variable for variable in model.weights if id(variable) not in masks]
    graph.copy_variables(kept, list(clone.weights), model.name)
    graph.refresh_constants(clone)
    return clone


def load_plain_weights(model, filepath):
    """Loads weights of the plain model into the wrapped one.

    The masks stay as they are and are applied to what was loaded.

    Args:
        model: A wrapped model.
        filepath: A `.weights.h5` or `.keras` file that the plain model was saved to, or the
            plain model itself.

    Raises:
        TypeError: If `model` is no Keras 3 model, or `filepath` neither a path nor such a model.
        ValueError: If the file does not fit the model; then nothing is changed.

    Example:

    >>> plain = keras.Sequential([keras.Input((8,)), keras.layers.Dense(4)])
    >>> pruned = tfprune.prune_low_magnitude(plain)
    >>> tfprune.load_plain_weights(pruned, plain)
    """
    if not isinstance(model, keras.layers.Layer):
        raise TypeError(not_keras(model, "model"))
    if isinstance(filepath, keras.Model):
        plain = filepath
    elif isinstance(filepath, (str, os.PathLike)):
        plain = strip_pruning(model)
        plain.load_weights(filepath)
    else:
        raise TypeError(not_keras(filepath, "filepath"))
    masks = _mask_ids(model)
    targets = [variable for variable in model.weights if id(variable) not in masks]
    graph.copy_variables(list(plain.weights), targets, model.name)
    graph.refresh_constants(model)
    for owner in mask_owners(model):
        for weight in owner.pruned_weights:
            weight.project()


def prune_scope():
    """Context in which wrapped models can be loaded, as in tfmot.

    tfprune registers its classes with Keras when it is imported, so `keras.saving.load_model`
    finds them without this; it is here for programs that come from tfmot.

    Returns:
        A context manager.

    Example:

    >>> with tfprune.prune_scope():
    ...     layer = keras.layers.Dense(4)
    """
    names = {cls.__name__: cls for cls in (*schedules.built_in(), PruneLowMagnitude, PrunedModel)}
    return keras.saving.custom_object_scope(names)


class _Plan:
    """What happens to each layer: its method, or why it is left as it is."""

    def __init__(self, method, rules, policy):
        self.method = method
        self.rules = rules
        self.policy = policy

    def prunes(self, layer, around=()):
        """Whether anything inside a layer is to be pruned."""
        if self.policy is not None and not self.policy.allow_pruning(layer):
            return False
        default, overrides = self._methods(layer, around)
        if any(method is not None for *_, method in find_prunable(layer, default, overrides)):
            return True
        return any(
            registry.unknown_until_built(inner) and overrides.get(position, default) is not None
            for position, inner in enumerate(graph.flatten(layer))
        )

    def wrapped(self, layer, clone, around=()):
        """Returns the wrapper of a layer's clone."""
        default, overrides = self._methods(layer, around)
        return PruneLowMagnitude(
            clone,
            default.schedule,
            pattern=default.pattern,
            criterion=default.criterion,
            scope=default.scope,
            overrides=overrides,
        )

    def wrapped_alone(self, layer):
        """Returns the wrapper of a copy of a layer that is in no model, built if the layer is."""
        self.check_patterns(layer, ())
        self._check_countable(layer)
        wrapper = self.wrapped(layer, graph.clone_layer(layer))
        if layer.built:
            wrapper.build()
        return wrapper

    def _check_countable(self, layer):
        """Raises if rules vary inside a layer that has not made all the layers inside it yet."""
        growing = [
            inner
            for inner in graph.flatten(layer)
            if registry.unknown_until_built(inner) and not isinstance(inner, registry.PrunableLayer)
        ]
        if growing and self._methods(layer, ())[1]:
            raise ValueError(
                check.message(
                    "a built layer where rules vary the method inside it",
                    f"'{layer.name}', in which '{growing[0].name}' has no weights yet",
                    "Call the layer on data once, or wrap the built model that it is part of.",
                )
            )

    def _methods(self, layer, around):
        """The method of a layer itself, and those of layers inside it that differ."""
        own = (*around, (_path(around, layer), layer))
        chains = {id(layer): own, **{id(c[-1][1]): c for c in graph.walk(layer, own)}}
        default = resolve(self.rules, own, self.method)
        overrides = {}
        for position, inner in enumerate(graph.flatten(layer)):
            method = resolve(self.rules, chains[id(inner)], self.method)
            if method != (default or self.method):
                overrides[position] = method
        return default or self.method, overrides

    def check_patterns(self, layer, around):
        """Raises unless the patterns fit the schedules, and the weights where they exist."""
        default, overrides = self._methods(layer, around)
        path = _path(around, layer)
        for below, owner, entry, method in find_prunable(layer, default, overrides):
            if method is None:
                continue
            if owner.built:
                shape = tuple(entry.get(owner).shape)
                axes = entry.axes_of(owner).resolve(len(shape))
                method.pattern.check(shape, axes, f"{path}/{below}")
            method.pattern.check_target(method.schedule.target_sparsity, f"{path}/{below}")

    def check_used(self, layers):
        """Raises if a rule matches none of these layers and none inside them."""
        chains = [((layer.name, layer),) for layer in layers]
        chains += [c for layer in layers for c in graph.walk(layer, ((layer.name, layer),))]
        _check_rules_used(self.rules, chains)


def _path(around, layer):
    return f"{around[-1][0]}/{layer.name}" if around else layer.name


def _check_rules_used(rules, chains):
    for rule in rules:
        if not any(rule.matches(*chain[-1]) for chain in chains):
            names = ", ".join(sorted({chain[-1][0] for chain in chains})[:20])
            raise ValueError(
                check.message(
                    "each rule to match a layer",
                    f"Rule(match={rule.match!r}), which matches none",
                    f"The layers are: {names}.",
                )
            )


def _check_rules(rules):
    if rules is None:
        return []
    rules = [rules] if isinstance(rules, Rule) else rules
    if not isinstance(rules, (list, tuple)) or not all(isinstance(r, Rule) for r in rules):
        raise TypeError(
            check.message(
                "`rules` to be a list of tfprune.Rule",
                f"rules={rules!r}",
                'Use for instance rules=[tfprune.Rule("conv_1", prune=False)].',
            )
        )
    return list(rules)


def _check_policy(policy):
    if policy is None or hasattr(policy, "allow_pruning"):
        return policy
    raise TypeError(
        check.message(
            "`pruning_policy` to be a tfprune.PruningPolicy",
            f"pruning_policy={policy!r}",
            "Use for instance tfprune.PruneForLatencyOnXNNPack().",
        )
    )


def _check_built(model):
    if not model.built:
        raise ValueError(
            check.message(
                "a built model",
                f"'{model.name}', which has no weights yet",
                "Give it a keras.Input, call model.build(input_shape), or call it on data once.",
            )
        )


def _prune_model(model, plan):
    _check_built(model)
    check_wrappable(model)
    if plan.policy is not None:
        plan.policy.ensure_model_supports_pruning(model)
    chains = list(graph.walk(model))
    _check_rules_used(plan.rules, chains or [((model.name, model),)])
    if not graph.is_graph(model):
        return _prune_subclassed(model, plan)
    units = {id(layer): around for layer, around in _units(model)}
    chosen = {}
    for layer, around in _units(model):
        if plan.prunes(layer, around):
            plan.check_patterns(layer, around)
            chosen[id(layer)] = layer
    if not chosen:
        raise ValueError(nothing_to_prune(model))

    def make(layer):
        clone = graph.bare_clone(layer)
        if id(layer) in chosen:
            return layer, clone, plan.wrapped(layer, clone, units[id(layer)])
        return layer, clone, clone

    return graph.clone_graph(model, make)


def _units(model, around=()):
    """Yields `(layer, chain around it)` for the layers that are wrapped, or left, as a whole."""
    for layer in graph.children(model):
        if graph.is_graph(layer):
            yield from _units(layer, (*around, (_path(around, layer), layer)))
        else:
            yield layer, around


def _prune_subclassed(model, plan):
    overrides = {}
    chains = {id(chain[-1][1]): chain for chain in graph.walk(model)}
    for position, layer in enumerate(graph.flatten(model)):
        method = resolve(plan.rules, chains.get(id(layer), ()), plan.method)
        if plan.policy is not None and not plan.policy.allow_pruning(layer):
            method = None
        if method != plan.method:
            overrides[position] = method
    for path, layer, entry, method in find_prunable(model, plan.method, overrides):
        if method is not None:
            shape = tuple(entry.get(layer).shape)
            method.pattern.check(shape, entry.axes_of(layer).resolve(len(shape)), path)
            method.pattern.check_target(method.schedule.target_sparsity, path)
    method = plan.method
    pruned = PrunedModel(
        graph.clone_layer(model),
        method.schedule,
        pattern=method.pattern,
        criterion=method.criterion,
        scope=method.scope,
        overrides=overrides,
    )
    pruned.build()
    return pruned
