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
from tfprune._layers.exemptions import exempt_by_default
from tfprune._updates.mask_update import MaskUpdate
from tfprune._wrapping.in_place import MaskedModel, prune_in_place
from tfprune._wrapping.mask_set import check_fits, find_prunable, method_at, refusal
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
    copy=True,
):
    """Wraps a layer, a list of layers or a model so that training prunes it.

    The result is a copy with the same weights; what was passed in is not changed. A model comes
    back uncompiled. One that is more than its layers, a subclassed or a KerasHub model for
    instance, keeps its class and holds the masks itself. Layers without anything to prune are left
    as they are; `tfprune.sparsity_report(model)` lists them with the reason.

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
        copy: `False` prunes the model or layer that is passed in: no second one in memory, and no
            `get_config` is needed. A model is returned as it is, with masks; a layer is put into
            its wrapper.

    Returns:
        The wrapped layer, list or model.

    Raises:
        ValueError: If nothing can be pruned, the model is not built, is wrapped or quantized
            already or cannot be copied, a pattern does not fit a weight, a rule matches nothing,
            or the weights cannot have the schedule's sparsity under the distribution.
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
        return [
            plan.wrapped_alone(layer, copy) if plan.prunes(layer) else layer for layer in to_prune
        ]
    if isinstance(to_prune, keras.Model):
        pruned = _prune_model(to_prune, plan, copy)
        _check_budgets(pruned)
        return pruned
    check_wrappable(to_prune)
    plan.check_known(to_prune)
    if not plan.prunes(to_prune):
        raise ValueError(plan.why_nothing(to_prune))
    plan.check_used([to_prune])
    return plan.wrapped_alone(to_prune, copy)


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
        for cls in (*schedules.built_in().values(), PruneLowMagnitude, PrunedModel, MaskedModel)
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
        if not _keras.keeps_class(layer) and not self._allows(layer):
            return False
        default, overrides = self.methods(layer, around)
        if self.weights(layer, around):
            return True
        places = _keras.places(layer)
        return any(
            registry.unknown_until_built(inner)
            and method_at(places[id(inner)], default, overrides) is not None
            for inner in _keras.flatten(layer)
        )

    def weights(self, layer, around=()):
        """Lists the `Prunable`s inside a layer that are to be masked."""
        default, overrides = self.methods(layer, around)
        overrides = {**overrides, **dict.fromkeys(self.coupled.get(id(layer), ((), None))[0])}
        chains = _chains(layer, around)
        return [
            item
            for item in find_prunable(layer, default, overrides)
            if item.method is not None
            and (item.layer.built or not layer.built)
            and not self._exempt(layer, chains[id(item.layer)], item.entry)
        ]

    def _exempt(self, unit, chain, entry):
        """Why a weight inside a unit is left out although no rule says so; `None` if it is not."""
        if chain and any(rule.names(*chain[-1]) for rule in self.rules):
            return None
        layers = [layer for _, layer in chain]
        return exempt_by_default(layers if unit in layers else [unit, *layers], entry)

    def wrapped(self, layer, clone, around=()):
        """Returns the wrapper of a layer's clone."""
        default, overrides = self.methods(layer, around)
        left_out, followers = self.coupled.get(id(layer), ((), None))
        weights = [item.key for item in self.weights(layer, around)] if layer.built else None
        return PruneLowMagnitude(
            clone,
            default.schedule,
            pattern=default.pattern,
            criterion=default.criterion,
            scope=default.scope,
            overrides={**overrides, **dict.fromkeys(left_out)},
            followers=followers,
            weights=weights,
        )

    def pruned_as_it_is(self, model, clone, around):
        """Gives the clone of a model that keeps its class masks of its own; returns it."""
        default, overrides = self.methods(model, around)
        left_out, followers = self.coupled.get(id(model), ((), None))
        return prune_in_place(
            clone,
            default,
            {**overrides, **dict.fromkeys(left_out)},
            followers,
            [item.key for item in self.weights(model, around)],
        )

    def wrapped_alone(self, layer, copy=True):
        """Returns the wrapper of a layer, or its copy, that is in no model; built if that is."""
        self.check_methods(layer, ())
        self._check_countable(layer)
        wrapper = self.wrapped(layer, _keras.clone_layer(layer) if copy else layer)
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
        chains = _chains(layer, around)
        default = resolve(self.rules, chains[id(layer)], self.method) or self.method

        def method_of(inner):
            # Of a layer that holds layers, the policy decides as a whole; not so of a model.
            whole = around is None or _keras.keeps_class(layer)
            if whole and inner is not layer and not self._allows(inner):
                return None
            return resolve(self.rules, chains[id(inner)], self.method)

        return default, _overrides(layer, method_of, default)

    def check_methods(self, layer, around):
        """Raises unless the methods fit in themselves, and the weights where they exist."""
        path = _path(around, layer)
        for item in self.weights(layer, around):
            self.check(item, f"{path}/{item.path}")

    @staticmethod
    def check(item, path):
        """Raises unless a weight can be pruned by its method."""
        if _keras.is_quantized(item.layer):
            raise ValueError(
                check.message(
                    f"weights of {path} that are not quantized",
                    f"'{item.layer.name}', quantized to {item.layer.quantization_mode}",
                    "Prune the model before you quantize it.",
                )
            )
        check_fits(item.method, item.layer, item.entry, path)

    def check_used(self, layers):
        """Raises if a rule matches none of these layers and none inside them."""
        chains = [((layer.name, layer),) for layer in layers]
        chains += [c for layer in layers for c in _keras.walk(layer, ((layer.name, layer),))]
        _check_rules_used(self.rules, chains)


def _chains(layer, around=()):
    """`{id: chain}` of a layer and all layers inside it; see `_keras.walk`.

    `around` is `None` for a whole model, whose name is in no path.
    """
    own = () if around is None else (*around, (_path(around, layer), layer))
    return {id(layer): own, **{id(chain[-1][1]): chain for chain in _keras.walk(layer, own)}}


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


def _check_rules_can_act(rules, chains):
    """Raises if a rule names layers that could be pruned, and none of them is built."""
    for rule in rules:
        named = [layer for chain in chains for _, layer in chain[-1:] if rule.names(*chain[-1])]
        known = [layer for layer in named if registry.own_prunable_weights(layer)]
        if known and not any(layer.built for layer in known):
            raise ValueError(
                check.message(
                    f"a layer that ran, for Rule(match={rule.match!r})",
                    f"'{known[0].name}', which never did and has no weights",
                    "Call the model on data that reaches the layer first.",
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


def _prune_model(model, plan, copy):
    check_built(model)
    check_wrappable(model)
    if plan.policy is not None:
        plan.policy.ensure_model_supports_pruning(model)
    chains = list(_keras.walk(model))
    _check_rules_used(plan.rules, chains or [((model.name, model),)])
    _check_rules_can_act(plan.rules, chains)
    if not copy or _keras.keeps_class(model):
        return _prune_as_it_is(model, plan, copy)
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
        if _keras.is_graph(layer):
            clone = _keras.clone_as_it_is(layer)
            if id(layer) in chosen:
                plan.pruned_as_it_is(layer, clone, units[id(layer)][1])
            return None, None, clone
        clone = _keras.bare_clone(layer)
        if id(layer) in chosen:
            return layer, clone, plan.wrapped(layer, clone, units[id(layer)][1])
        return layer, clone, clone

    pruned = _keras.clone_graph(model, make)
    _keras.refuse(pruned, "quantize", refusal("quantize()", model.name))
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
        for item in plan.weights(unit, units[id(unit)][1]):
            pair = (item.variable, is_coupled(item.method))
            methods.setdefault(id(item.layer), []).append(pair)
            if is_coupled(item.method):
                candidates.add(id(item.variable))
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
        if _keras.is_graph(layer) and not _keras.keeps_class(layer):
            yield from _units(layer, (*around, (_path(around, layer), layer)))
        else:
            yield layer, around


def _prune_as_it_is(model, plan, copy):
    """Prunes a model that keeps its class: a copy of it, or itself."""
    weights = plan.weights(model, None)
    if not weights:
        raise ValueError(plan.why_nothing(model))
    for item in weights:
        plan.check(item, item.path)
    _couple_filters(model, plan, {id(model): model}, {id(model): (model, None)})
    return plan.pruned_as_it_is(model, _keras.clone_as_it_is(model) if copy else model, None)
