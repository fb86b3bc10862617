"""Wrapping: `prune_low_magnitude`."""

from functools import partial

import keras

from tfprune import _keras, schedules
from tfprune._base import validation as check
from tfprune._channels.coupling import warn_of_whole_groups
from tfprune._planning.choices import Choices
from tfprune._planning.filters import couple_filters
from tfprune._planning.plan import Plan
from tfprune._updates.mask_update import MaskUpdate
from tfprune._wrapping.in_place import MaskedModel, prune_in_place
from tfprune._wrapping.in_place_deferred import prune_in_place_when_built
from tfprune._wrapping.methods import Method
from tfprune._wrapping.pruned_model import PrunedModel
from tfprune._wrapping.tfmot_arguments import pattern_of
from tfprune._wrapping.wrapper import (
    PruneLowMagnitude,
    check_wrappable,
    mask_owners,
    pruned_weights,
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
    criterion=None,
    scope=None,
    rules=None,
    copy=True,
    input_shape=None,
):
    """Wraps a layer, a list of layers or a model so that training prunes it.

    Returns a copy with the same weights, and leaves the original unchanged. A copied model is
    uncompiled. A model that is more than its layers, such as a subclassed or a KerasHub model,
    keeps its class and holds the masks itself. Layers without prunable weights stay unwrapped;
    `tfprune.sparsity_report(model)` lists them with the reason.

    Args:
        to_prune: A `keras.layers.Layer`, a list of them, or a `keras.Model`: Sequential,
            Functional (nested, shared layers, several inputs and outputs) or subclassed. One that
            is not built yet is built on first use; filters, N:M, policies, and rules for layers
            that come with the weights are checked then.
        pruning_schedule: A `PruningSchedule`; by default `ConstantSparsity(0.5, begin_step=0)`.
        block_size: `(height, width)` of the blocks to prune as one unit.
        block_pooling_type: "AVG" or "MAX" of the magnitudes in a block.
        pruning_policy: A `PruningPolicy` that checks the model and selects the layers to prune.
        sparsity_m_by_n: `(zeros, group)`: (2, 4) means 2 zeros in every 4 weights.
        pattern: A pattern or the name of one, instead of `block_size` and `sparsity_m_by_n`.
        scope: "local" (each weight gets the same sparsity; the default), "global" (one threshold
            over all weights), a `Scope`, or a `Distribution` that divides the sparsity among
            the weights.
        criterion: A criterion or the name of one; the magnitude by default.
        rules: List of `Rule`s that give layers their own method or exempt them.
        copy: `False` prunes the model or layer that is passed in: no second one in memory, and no
            `get_config` is needed. The same model is returned, with masks; a layer is put into
            its wrapper.
        input_shape: For a single layer, the first one of a Sequential model: the shape of its
            inputs without the batch, as in tfmot.

    Returns:
        The wrapped layer, list or model.

    Raises:
        ValueError: If nothing can be pruned; if the model is already wrapped or quantized, or
            cannot be copied; if a pattern does not fit a weight, a rule matches nothing, or the
            distribution cannot reach the schedule's sparsity.
        TypeError: If an argument has the wrong type, for instance if the model is a tf_keras one.

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
    choices = Choices(method, rules, pruning_policy)
    if input_shape is not None:
        _check_shape(to_prune, input_shape)
    if isinstance(to_prune, keras.Model):
        if not to_prune.built:
            return _keras.build_before_training(_prune_unbuilt(to_prune, choices, copy))
        return _prune_model(to_prune, choices, copy)
    if isinstance(to_prune, (list, tuple)):
        return _prune_layers(to_prune, choices, copy)
    (plan,) = _plans([to_prune], choices)
    plan.check()
    (wrapper,) = _prune_layers([to_prune], choices, copy)
    if input_shape is not None:
        _keras.set_first_shape(wrapper, input_shape)
    return wrapper


def _check_shape(to_prune, input_shape):
    is_shape = isinstance(input_shape, (tuple, list)) and all(
        size is None or (isinstance(size, int) and size > 0) for size in input_shape
    )
    if isinstance(to_prune, (list, tuple, keras.Model)) or not is_shape:
        raise ValueError(
            check.message(
                "`input_shape` to be the shape of one layer's inputs, without the batch",
                f"input_shape={input_shape!r} for a {type(to_prune).__name__}",
                "Give a model a keras.Input of this shape instead.",
            )
        )


def prune_scope():
    """Returns a context for loading wrapped models, as in tfmot.

    Importing tfprune registers its classes with Keras, so `keras.saving.load_model` works without
    this context. It exists for programs that were written for tfmot.

    Returns:
        A context manager.

    Example:

    >>> with tfprune.prune_scope():
    ...     layer = keras.layers.Dense(4)
    """
    names = {
        cls.__name__: cls
        for cls in (*schedules.built_in().values(), PruneLowMagnitude, PrunedModel, MaskedModel)
    }
    return keras.saving.custom_object_scope(names)


def _prune_model(model, choices, copy):
    check_wrappable(model, kept=_inner_wrappers(model, copy))
    whole = not copy or _keras.keeps_class(model)
    plan = _plan_of(model, choices, whole)
    pruned = _masked_whole(plan, copy) if whole else _masked_layer_by_layer(plan)
    mask_owners(pruned)[0].remember_reasons(plan.reasons())
    _check_budgets(pruned)
    return pruned


def _plan_of(model, choices, whole):
    """Plans the pruning of a built model, and checks the plan."""
    if choices.policy is not None:
        choices.policy.ensure_model_supports_pruning(model)
    chains = list(_keras.walk(model))
    choices.check_used(chains or [((model.name, model),)])
    choices.check_can_act(chains)
    plan = Plan(model, choices, whole)
    if not plan.chosen:
        check_wrappable(model)
    plan.check()
    couple_filters(model, plan)
    return plan


def _prune_unbuilt(model, choices, copy):
    """Wraps a model that has no weights yet; it is built, and checked again, on first use."""
    check_wrappable(model)
    chains = list(_keras.walk(model))
    if not choices.may_match_later(model):
        choices.check_used(chains or [((model.name, model),)])
    later = choices.need_weights(model, chains)
    if not copy or _keras.keeps_class(model):
        own = _keras.bare_clone(model) if copy else model
        if later:
            return prune_in_place_when_built(own, choices.method, partial(_planned_whole, choices))
        default, overrides, _, _ = Plan(model, choices, whole=True).units[0].arguments()
        return prune_in_place(own, default, overrides)
    if later:
        layers = [_keras.bare_clone(layer) for layer in model.layers]
        make = partial(_prune_model, choices=choices, copy=True)
        return _keras.DeferredSequential(layers, model.name, make)
    plan = Plan(model, choices)
    if not plan.chosen:
        raise ValueError(plan.why_nothing())
    layers = []
    for layer in model.layers:
        unit = plan.unit_of(layer)
        clone = _keras.bare_clone(layer)
        layers.append(clone if unit is None else _wrapper_of(unit, clone))
        if _keras.first_shape(layer) is not None:
            _keras.set_first_shape(layers[-1], _keras.first_shape(layer))
    return keras.Sequential(layers, name=model.name)


def _planned_whole(choices, model):
    plan = _plan_of(model, choices, whole=True)
    return plan.units[0].arguments(), plan.reasons()


def _masked_whole(plan, copy):
    """Adds masks to a model that keeps its class, or to a copy of it."""
    (unit,) = plan.units
    model = _keras.clone_as_it_is(unit.layer) if copy else unit.layer
    return prune_in_place(model, *unit.arguments())


def _masked_layer_by_layer(plan):
    """Copies a model with wrappers in place of the layers that are pruned."""
    kept: list = []

    def make(layer):
        unit = plan.unit_of(layer)
        if _keras.is_graph(layer):
            clone = _keras.clone_as_it_is(layer)
            if unit is not None:
                prune_in_place(clone, *unit.arguments())
            return None, None, clone
        clone = _keras.bare_clone(layer)
        if isinstance(layer, PruneLowMagnitude):
            # One that was wrapped before keeps its wrapper, its schedule and its step.
            kept.append((layer, clone))
            return layer, clone, clone
        return layer, clone, clone if unit is None else _wrapper_of(unit, clone)

    pruned = _keras.clone_graph(plan.root, make)
    for layer, clone in kept:
        clone.mask_set.set_state(layer.mask_set.state())
    known = [weight for _, clone in kept for weight in clone.pruned_weights]
    for weight in pruned_weights(pruned):
        if not any(weight is other for other in known):
            weight.remember_initial()
    return pruned


def _inner_wrappers(model, copy):
    """Wrappers that a Sequential or Functional model, plain otherwise, was made with."""
    if not copy or not _keras.is_graph(model) or _keras.keeps_class(model):
        return []
    return [layer for layer in _keras.flatten(model) if isinstance(layer, PruneLowMagnitude)]


def _wrapper_of(unit, layer):
    """Wraps a layer, or its copy, according to its unit."""
    default, overrides, followers, weights = unit.arguments()
    return PruneLowMagnitude(
        layer,
        default.schedule,
        pattern=default.pattern,
        criterion=default.criterion,
        scope=default.scope,
        overrides=overrides,
        followers=followers,
        weights=weights,
    )


def _plans(layers, choices):
    """Plans the pruning of layers outside of a model, each wrapped as a whole."""
    for layer in layers:
        check_wrappable(layer)
    plans = [Plan(layer, choices, alone=True) for layer in layers]
    for plan in plans:
        plan.units[0].check_known()
    return plans


def _prune_layers(layers, choices, copy):
    """Wraps layers outside of a model; layers in which nothing is pruned are returned unchanged."""
    plans = _plans(layers, choices)
    chains = [((layer.name, layer),) for layer in layers]
    chains += [c for layer in layers for c in _keras.walk(layer, ((layer.name, layer),))]
    choices.check_used(chains)
    for unit in (unit for plan in plans for unit in plan.chosen):
        unit.check()
        unit.check_countable()
    return [_wrapped_alone(plan, copy) if plan.chosen else plan.root for plan in plans]


def _wrapped_alone(plan, copy):
    layer = plan.root
    wrapper = _wrapper_of(plan.units[0], _keras.clone_layer(layer) if copy else layer)
    wrapper.remember_reasons(plan.reasons())
    if _keras.first_shape(layer) is not None:
        _keras.set_first_shape(wrapper, _keras.first_shape(layer))
    if layer.built:
        wrapper.build()
    return wrapper


def _check_budgets(pruned):
    """Raises if the weights can never reach their schedule's target sparsity."""
    update = MaskUpdate(pruned)
    warn_of_whole_groups(update.groups)
    update.check((weight.method.schedule.target_sparsity, weight) for weight in update.weights)
