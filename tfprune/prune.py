"""Wrapping: `prune_low_magnitude`."""

import keras

from tfprune import _keras, schedules
from tfprune._base import validation as check
from tfprune._channels.coupling import (
    find_couplings,
    is_coupled,
    warn_of_layers_that_stay,
    warn_of_whole_groups,
)
from tfprune._keras.checks import check_built, nothing_left, nothing_to_prune
from tfprune._layers import registry
from tfprune._updates.mask_update import MaskUpdate
from tfprune._wrapping.mask_set import check_fits, find_prunable, method_at
from tfprune._wrapping.methods import Method, Rule, resolve
from tfprune._wrapping.tfmot_arguments import pattern_of
from tfprune._wrapping.wrapper import PrunedModel, PruneLowMagnitude, check_wrappable, mask_owners


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
            over all weights), a `Scope`, or a `Distribution` that shares the sparsity out.
        criterion: A criterion or the name of one; the magnitude by default.
        rules: List of `Rule`s that give layers a method of their own or exempt them.

    Returns:
        The wrapped layer, list or model.

    Raises:
        ValueError: If nothing can be pruned, the model is not built or wrapped already, a pattern
            does not fit a weight, a rule matches nothing, or the weights cannot have the
            schedule's sparsity under the distribution.
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
            plan.check_known(layer)
        plan.check_used(to_prune)
        return [plan.wrapped_alone(layer) if plan.prunes(layer) else layer for layer in to_prune]
    if isinstance(to_prune, keras.Model):
        pruned = _prune_model(to_prune, plan)
        _check_budgets(pruned)
        return pruned
    check_wrappable(to_prune)
    plan.check_known(to_prune)
    if not plan.prunes(to_prune):
        raise ValueError(plan.why_nothing(to_prune))
    plan.check_used([to_prune])
    return plan.wrapped_alone(to_prune)


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
    names = {
        cls.__name__: cls
        for cls in (*schedules.built_in().values(), PruneLowMagnitude, PrunedModel)
    }
    return keras.saving.custom_object_scope(names)


class _Plan:
    """What happens to each layer: its method, or why it is left as it is."""

    def __init__(self, method, rules, policy):
        self.method = method
        self.rules = rules
        self.policy = policy
        self.coupled: dict = {}

    def prunes(self, layer, around=()):
        """Whether anything inside a layer is to be pruned."""
        if not self._allows(layer):
            return False
        default, overrides = self.methods(layer, around)
        if any(method is not None for *_, method in find_prunable(layer, default, overrides)):
            return True
        places = _keras.places(layer)
        return any(
            registry.unknown_until_built(inner)
            and method_at(places[id(inner)], default, overrides) is not None
            for inner in _keras.flatten(layer)
        )

    def wrapped(self, layer, clone, around=()):
        """Returns the wrapper of a layer's clone."""
        default, overrides = self.methods(layer, around)
        left_out, followers = self.coupled.get(id(layer), ((), None))
        return PruneLowMagnitude(
            clone,
            default.schedule,
            pattern=default.pattern,
            criterion=default.criterion,
            scope=default.scope,
            overrides={**overrides, **dict.fromkeys(left_out)},
            followers=followers,
        )

    def wrapped_alone(self, layer):
        """Returns the wrapper of a copy of a layer that is in no model, built if the layer is."""
        self.check_methods(layer, ())
        self._check_countable(layer)
        wrapper = self.wrapped(layer, _keras.clone_layer(layer))
        if layer.built:
            wrapper.build()
        return wrapper

    def check_known(self, layer):
        """Raises if only `build`, not run yet, can tell whether there is something to prune."""
        growing = [
            inner
            for inner in _keras.flatten(layer)
            if registry.own_prunable_weights(inner) is None and _keras.builds_by_itself(inner)
        ]
        if growing and not find_prunable(layer, self.method, {}) and self._allows(layer):
            raise ValueError(
                check.message(
                    "a layer that shows what can be pruned in it",
                    f"'{layer.name}', a {type(layer).__name__} that makes its weights in build(), "
                    "which has not run",
                    "Call the layer on data once, or wrap the built model that it is part of; or "
                    f"tell with tfprune.register_prunable({type(growing[0]).__name__}, [...]) "
                    "which weights it has to prune, an empty list if none.",
                )
            )

    def why_nothing(self, layer):
        """The message for a layer or model in which nothing is to be pruned."""
        inside = _keras.flatten(layer)
        if any(registry.own_prunable_weights(inner) for inner in inside) or any(
            registry.unknown_until_built(inner) for inner in inside
        ):
            return nothing_left(layer)
        return nothing_to_prune(layer)

    def _allows(self, layer):
        return self.policy is None or self.policy.allow_pruning(layer)

    def _check_countable(self, layer):
        """Raises if rules vary inside a layer that has not made all the layers inside it yet."""
        growing = [
            inner
            for inner in _keras.flatten(layer)
            if registry.unknown_until_built(inner) and not isinstance(inner, registry.PrunableLayer)
        ]
        if growing and self.methods(layer, ())[1]:
            raise ValueError(
                check.message(
                    "a built layer where rules vary the method inside it",
                    f"'{layer.name}', in which '{growing[0].name}' has no weights yet",
                    "Call the layer on data once, or wrap the built model that it is part of.",
                )
            )

    def methods(self, layer, around):
        """The method of a layer itself, and those of layers inside it that differ."""
        own = (*around, (_path(around, layer), layer))
        chains = {id(layer): own, **{id(c[-1][1]): c for c in _keras.walk(layer, own)}}
        default = resolve(self.rules, own, self.method) or self.method

        def method_of(inner):
            return resolve(self.rules, chains[id(inner)], self.method)

        return default, _overrides(layer, method_of, default)

    def check_methods(self, layer, around):
        """Raises unless the methods fit in themselves, and the weights where they exist."""
        default, overrides = self.methods(layer, around)
        path = _path(around, layer)
        for below, owner, entry, method in find_prunable(layer, default, overrides):
            if method is not None:
                check_fits(method, owner, entry, f"{path}/{below}")

    def check_used(self, layers):
        """Raises if a rule matches none of these layers and none inside them."""
        chains = [((layer.name, layer),) for layer in layers]
        chains += [c for layer in layers for c in _keras.walk(layer, ((layer.name, layer),))]
        _check_rules_used(self.rules, chains)


def _check_budgets(pruned):
    """Raises if the weights can never have the sparsity that their schedule aims at."""
    update = MaskUpdate(pruned)
    warn_of_whole_groups(update.groups)
    update.check((weight.method.schedule.target_sparsity, weight) for weight in update.weights)


def _overrides(layer, method_of, default):
    """The methods of layers inside a layer, by place, where they differ from those around them."""
    overrides: dict = {}
    places = _keras.places(layer)
    for inner in sorted(_keras.flatten(layer), key=lambda inner: places[id(inner)].count("/")):
        place = places[id(inner)]
        if method_of(inner) != method_at(place, default, overrides):
            overrides[place] = method_of(inner)
    return overrides


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


def _prune_model(model, plan):
    check_built(model)
    check_wrappable(model)
    if plan.policy is not None:
        plan.policy.ensure_model_supports_pruning(model)
    chains = list(_keras.walk(model))
    _check_rules_used(plan.rules, chains or [((model.name, model),)])
    if not _keras.is_graph(model):
        return _prune_subclassed(model, plan)
    units = {id(layer): (layer, around) for layer, around in _units(model)}
    chosen = {}
    for layer, around in _units(model):
        if plan.prunes(layer, around):
            plan.check_methods(layer, around)
            chosen[id(layer)] = layer
    if not chosen:
        raise ValueError(plan.why_nothing(model))
    _couple_filters(model, plan, chosen, units)

    def make(layer):
        clone = _keras.bare_clone(layer)
        if id(layer) in chosen:
            return layer, clone, plan.wrapped(layer, clone, units[id(layer)][1])
        return layer, clone, clone

    pruned = _keras.clone_graph(model, make)
    for owner in mask_owners(pruned):
        for weight in owner.pruned_weights:
            weight.remember_initial()
    return pruned


def _couple_filters(model, plan, chosen, units):
    """Finds out which filters stand or fall together, and what is masked with them.

    Layers whose channels all stay leave `chosen`; others that hold a bias, a scale or an offset
    of such a channel come in.
    """
    if not _keras.runs_as_graph(model):
        return
    inside = {id(layer): unit for unit in units.values() for layer in _keras.flatten(unit[0])}
    methods: dict = {}
    candidates = set()
    for unit in chosen.values():
        default, overrides = plan.methods(unit, units[id(unit)][1])
        for _, layer, entry, method in find_prunable(unit, default, overrides):
            if method is not None:
                methods.setdefault(id(layer), []).append((entry.get(layer), is_coupled(method)))
                if is_coupled(method):
                    candidates.add(id(entry.get(layer)))
    if not candidates:
        return
    couplings, stay = find_couplings(model, candidates)
    taking_part = {id(part.variable) for found in couplings for part in found.scored}
    if not couplings and all(coupled for pairs in methods.values() for _, coupled in pairs):
        raise ValueError(
            check.message(
                "filters that can be removed",
                f"model '{model.name}', where all stay: "
                + "; ".join(f"{', '.join(paths)}: {reason}" for reason, paths in stay.items()),
                "tfprune.Filter(coupled=False) prunes each layer's filters by themselves.",
            )
        )
    warn_of_layers_that_stay(stay)
    followers: dict = {}
    for part in (part for found in couplings for part in found.others):
        unit, _ = inside[id(part.layer)]
        index = next(i for i, v in enumerate(part.layer.weights) if v is part.variable)
        place = (_keras.places(unit)[id(part.layer)], index)
        followers.setdefault(id(unit), {})[place] = unit
    for key, places in followers.items():
        chosen[key] = next(iter(places.values()))
    for key, unit in list(chosen.items()):
        places = _keras.places(unit)
        left_out = [
            places[id(layer)]
            for layer in _keras.flatten(unit)
            if id(layer) in methods
            and all(coupled for _, coupled in methods[id(layer)])
            and not any(id(variable) in taking_part for variable, _ in methods[id(layer)])
        ]
        plan.coupled[key] = (left_out, list(followers.get(key, {})))
        stays = [id(layer) in methods for layer in _keras.flatten(unit)].count(True) > len(left_out)
        if not stays and key not in followers:
            del chosen[key]


def _units(model, around=()):
    """Yields `(layer, chain around it)` for the layers that are wrapped, or left, as a whole."""
    for layer in _keras.children(model):
        if _keras.is_graph(layer):
            yield from _units(layer, (*around, (_path(around, layer), layer)))
        else:
            yield layer, around


def _prune_subclassed(model, plan):
    chains = {id(chain[-1][1]): chain for chain in _keras.walk(model)}

    def method_of(layer):
        if plan.policy is not None and not plan.policy.allow_pruning(layer):
            return None
        return resolve(plan.rules, chains.get(id(layer), ()), plan.method)

    overrides = _overrides(model, method_of, plan.method)
    if all(method is None for *_, method in find_prunable(model, plan.method, overrides)):
        raise ValueError(plan.why_nothing(model))
    for path, layer, entry, method in find_prunable(model, plan.method, overrides):
        if method is not None:
            check_fits(method, layer, entry, path)
    method = plan.method
    pruned = PrunedModel(
        _keras.clone_layer(model),
        method.schedule,
        pattern=method.pattern,
        criterion=method.criterion,
        scope=method.scope,
        overrides=overrides,
    )
    pruned.build()
    return pruned
