"""The user's choices: a method, rules that vary it, and a policy."""

from dataclasses import dataclass
from typing import Any

import keras

from tfprune import _keras
from tfprune._base import validation as check
from tfprune._channels.coupling import is_coupled
from tfprune._layers import registry
from tfprune._layers.exemptions import exempt_by_default
from tfprune._wrapping.methods import Method, Rule, resolve
from tfprune.patterns import NOfM


@dataclass(frozen=True)
class Choices:
    """Combines a method, rules and a policy into a decision for each layer.

    Args:
        method: The `Method` of layers without a rule.
        rules: A `Rule`, a list of them, or `None`.
        policy: A `PruningPolicy`, or `None`.

    Raises:
        TypeError: If an argument has the wrong type.
    """

    method: Method | None
    rules: Any = None
    policy: Any = None

    def __post_init__(self):
        object.__setattr__(self, "rules", _checked_rules(self.rules))
        _check_policy(self.policy)

    def method_of(self, chain):
        """Returns the method of a layer under the rules, or `None` if one exempts it."""
        return resolve(self.rules, chain, self.method)

    def exempting_rule(self, chain):
        """Returns the rule that exempts a layer, or `None`."""
        found = None
        for rule in self.rules:
            if any(rule.matches(path, layer) for path, layer in chain):
                found = None if rule.prune else rule
        return found

    def allows(self, layer):
        """Whether the policy lets a layer be pruned."""
        return self.policy is None or self.policy.allow_pruning(layer)

    def is_named(self, chain):
        """Whether a rule is meant for a layer itself."""
        return bool(chain) and any(rule.names(*chain[-1]) for rule in self.rules)

    def exempt_by_default(self, unit, chain, item):
        """Returns why a weight is exempt without a rule; `None` if it is not."""
        if self.is_named(chain):
            return None
        layers = [layer for _, layer in chain]
        around = layers if unit in layers else [unit, *layers]
        return exempt_by_default(around, item.entry, item.method.pattern)

    def may_match_later(self, model):
        """Whether rules may be meant for layers that an unbuilt model makes in its `build`."""
        own = type(model).build not in (keras.Model.build, keras.Sequential.build)
        inside = (layer for layer in _keras.flatten(model) if layer is not model or own)
        return bool(self.rules) and any(
            registry.unknown_until_built(layer) or _keras.builds_by_itself(layer)
            for layer in inside
        )

    def need_weights(self, model, chains):
        """Whether an unbuilt model needs its weights before it can be planned.

        Filters and policies follow the graph, and N:M leaves out layers that it does not fit.
        """
        methods = [self.method, *(self.method_of(chain) for chain in chains)]
        return (
            self.policy is not None
            or self.may_match_later(model)
            or any(m and (is_coupled(m) or isinstance(m.pattern, NOfM)) for m in methods)
        )

    def check_used(self, chains):
        """Raises if a rule matches no layer.

        Args:
            chains: List of `(path, layer)` chains from `_keras.walk`.
        """
        for rule in self.rules:
            if not any(rule.matches(*chain[-1]) for chain in chains):
                names = ", ".join(sorted({chain[-1][0] for chain in chains})[:20])
                raise ValueError(
                    check.message(
                        "each rule to match a layer",
                        f"Rule(match={rule.match!r}), which matches none",
                        f"The layers are: {names}.",
                    )
                )

    def check_can_act(self, chains):
        """Raises if a rule names prunable layers, none of which is built."""
        for rule in self.rules:
            named = [layer for chain in chains for _, layer in chain[-1:] if rule.names(*chain[-1])]
            known = [layer for layer in named if registry.own_prunable_weights(layer)]
            if known and not any(layer.built for layer in known):
                raise ValueError(
                    check.message(
                        f"a layer that ran, for Rule(match={rule.match!r})",
                        f"'{known[0].name}', which never ran and has no weights",
                        "Call the model on data that reaches the layer first.",
                    )
                )


def path_of(around, layer):
    """Returns the path of a layer inside the layers of a chain; `around` may be empty."""
    return f"{around[-1][0]}/{layer.name}" if around else layer.name


def chains_of(layer, around=()):
    """Returns `{id: chain}` of a layer and all layers inside it; see `_keras.walk`.

    Args:
        layer: The layer.
        around: The chain around it; `None` for a whole model, whose name paths omit.
    """
    own = () if around is None else (*around, (path_of(around, layer), layer))
    return {id(layer): own, **{id(chain[-1][1]): chain for chain in _keras.walk(layer, own)}}


def _checked_rules(rules):
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
    if policy is not None and not hasattr(policy, "allow_pruning"):
        raise TypeError(
            check.message(
                "`pruning_policy` to be a tfprune.PruningPolicy",
                f"pruning_policy={policy!r}",
                "Use for instance tfprune.PruneForLatencyOnXNNPack().",
            )
        )
