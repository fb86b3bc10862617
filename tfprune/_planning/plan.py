"""The plan of a layer or model: each weight with its method, or the reason why it has none."""

from dataclasses import dataclass, replace
from typing import Any

from tfprune import _keras
from tfprune._base import validation as check
from tfprune._keras.checks import nothing_left, nothing_to_prune
from tfprune._layers import registry
from tfprune._planning.choices import chains_of, path_of
from tfprune._wrapping.mask_set import Prunable, check_fits, find_prunable, method_at

NEVER_RAN = "never ran"


@dataclass(frozen=True)
class PlannedWeight:
    """A weight that could be pruned.

    Attributes:
        path: Path of its layer in what is pruned.
        item: The `Prunable`: layer, entry, place.
        method: The `Method` by which it is pruned; `None` if it is not.
        reason: Why it is not pruned; `None` if it is.
    """

    path: str
    item: Prunable
    method: Any
    reason: str | None


class Unit:
    """A layer that is wrapped, or a model that is masked, as a whole.

    Args:
        layer: The layer.
        around: The chain of layers around it; `None` for a whole model.
        choices: The `Choices`.

    Attributes:
        default: The `Method` of the layer itself.
        overrides: `{place: Method or None}` of layers inside that differ from those around them.
        weights: List of `PlannedWeight`s, one for each weight that could be pruned.
        left_out: Places of layers whose filters all stay.
        followers: `(place, index)` of weights that are masked with filters; `None` where filters
            are pruned layer by layer.
    """

    def __init__(self, layer, around, choices):
        self.layer, self.around = layer, around
        self._chains = chains_of(layer, around)
        self._places = _keras.places(layer)
        self.left_out: list = []
        self.followers: list | None = None
        # Of a layer that holds layers, the policy decides as a whole; not so of a model.
        self._is_model = around is None or _keras.keeps_class(layer)
        self._refused = not _keras.keeps_class(layer) and not choices.allows(layer)
        methods = {id(inner): self._method_of(inner, choices) for inner in _keras.flatten(layer)}
        self.default = choices.method_of(self._chains[id(layer)]) or choices.method
        self.overrides = self._overrides(methods)
        self.weights = [
            self._planned(item, choices)
            for item in find_prunable(layer, self.default, self.overrides)
        ]

    def _method_of(self, inner, choices):
        if self._is_model and inner is not self.layer and not choices.allows(inner):
            return None
        return choices.method_of(self._chains[id(inner)])

    def _overrides(self, methods):
        overrides: dict = {}
        inside = _keras.flatten(self.layer)
        for inner in sorted(inside, key=lambda inner: self._places[id(inner)].count("/")):
            place = self._places[id(inner)]
            if methods[id(inner)] != method_at(place, self.default, overrides):
                overrides[place] = methods[id(inner)]
        return overrides

    def _planned(self, item, choices):
        chain = self._chains[id(item.layer)]
        path = chain[-1][0] if chain else item.layer.name
        reason = self._reason(item, chain, choices)
        return PlannedWeight(path, item, None if reason else item.method, reason)

    def _reason(self, item, chain, choices):
        if self._refused:
            return f"exempt by {type(choices.policy).__name__}"
        if item.method is None:
            rule = choices.exempting_rule(chain)
            if rule is None:
                return f"exempt by {type(choices.policy).__name__}"
            return f"exempt by Rule({_as_text(rule.match)})"
        if self.layer.built and not item.layer.built:
            return NEVER_RAN
        return choices.exempt_by_default(self.layer, chain, item.entry)

    @property
    def path(self):
        """Path of the layer in what is pruned."""
        return path_of(self.around or (), self.layer)

    @property
    def masked(self):
        """List of the `PlannedWeight`s that are pruned."""
        return [weight for weight in self.weights if weight.method is not None]

    @property
    def prunes(self):
        """Whether anything inside is pruned, as far as can be known."""
        return bool(self.masked or (not self._refused and self._grows()))

    def _grows(self):
        """Whether layers that show their weights only when built may have some to prune."""
        return any(
            registry.unknown_until_built(inner)
            and method_at(self._places[id(inner)], self.default, self.overrides) is not None
            for inner in _keras.flatten(self.layer)
        )

    def leave_out(self, left_out, reasons):
        """Takes out layers whose filters all stay.

        Args:
            left_out: Places of the layers.
            reasons: `{path of a layer: why its filters stay}`.
        """
        self.left_out = left_out
        places = set(left_out)
        self.weights = [
            replace(
                weight,
                method=None,
                reason=f"its filters stay: {reasons.get(weight.path)}",
            )
            if weight.method is not None and self._places[id(weight.item.layer)] in places
            else weight
            for weight in self.weights
        ]

    def place_of(self, layer):
        """Returns the place of a layer inside."""
        return self._places[id(layer)]

    def arguments(self):
        """Returns what a wrapper takes: default method, overrides, followers, masked weights."""
        keys = [weight.item.key for weight in self.masked] if self.layer.built else None
        overrides = {**self.overrides, **dict.fromkeys(self.left_out)}
        return self.default, overrides, self.followers, keys

    def check(self):
        """Raises unless the methods fit the weights, as far as these exist."""
        inside = "" if self.around is None else f"{self.path}/"
        for weight in self.masked:
            item = weight.item
            if _keras.is_quantized(item.layer):
                raise ValueError(
                    check.message(
                        f"weights of {inside}{item.path} that are not quantized",
                        f"'{item.layer.name}', quantized to {item.layer.quantization_mode}",
                        "Prune the model before you quantize it.",
                    )
                )
            check_fits(item.method, item.layer, item.entry, f"{inside}{item.path}")

    def check_known(self):
        """Raises if only `build`, not run yet, can tell whether there is something to prune."""
        growing = [
            inner
            for inner in _keras.flatten(self.layer)
            if registry.own_prunable_weights(inner) is None and _keras.builds_by_itself(inner)
        ]
        if growing and not self.weights and not self._refused:
            raise ValueError(
                check.message(
                    "a layer that shows what can be pruned in it",
                    f"'{self.layer.name}', a {type(self.layer).__name__} that makes its weights in "
                    "build(), which has not run",
                    "Call the layer on data once, or wrap the built model that it is part of; or "
                    f"tell with tfprune.register_prunable({type(growing[0]).__name__}, [...]) "
                    "which weights it has to prune, an empty list if none.",
                )
            )

    def check_countable(self):
        """Raises if rules vary inside a layer that has not made all the layers inside it yet."""
        growing = [
            inner
            for inner in _keras.flatten(self.layer)
            if registry.unknown_until_built(inner) and not isinstance(inner, registry.PrunableLayer)
        ]
        if growing and self.overrides:
            raise ValueError(
                check.message(
                    "a built layer where rules vary the method inside it",
                    f"'{self.layer.name}', in which '{growing[0].name}' has no weights yet",
                    "Call the layer on data once, or wrap the built model that it is part of.",
                )
            )


def _as_text(match):
    """What a rule matches, as the user wrote it: names in quotes, classes by name."""
    if isinstance(match, (list, tuple)):
        return ", ".join(map(_as_text, match))
    return match.__name__ if isinstance(match, type) else repr(match)


class Plan:
    """What happens to each weight of a layer or model.

    Args:
        root: The layer or model.
        choices: The `Choices`.
        whole: Whether a model is masked as it is, instead of layer by layer.
        alone: Whether it is a layer in no model, which is wrapped as a whole.

    Attributes:
        units: List of the `Unit`s.
    """

    def __init__(self, root, choices, whole=False, alone=False):
        self.root = root
        if whole:
            pairs: list = [(root, None)]
        elif alone:
            pairs = [(root, ())]
        else:
            pairs = list(_units(root))
        self.units = list(
            {id(layer): Unit(layer, around, choices) for layer, around in pairs}.values()
        )
        self._chosen = {id(unit.layer): unit for unit in self.units if unit.prunes}

    @property
    def chosen(self):
        """List of the `Unit`s in which something is pruned or masked."""
        return list(self._chosen.values())

    def unit_of(self, layer):
        """Returns the chosen `Unit` of a layer; `None` if it is left as it is."""
        return self._chosen.get(id(layer))

    def choose(self, unit):
        """Takes in a unit whose weights are masked with those of others."""
        self._chosen[id(unit.layer)] = unit

    def leave(self, unit):
        """Leaves a unit as it is."""
        self._chosen.pop(id(unit.layer), None)

    def check(self):
        """Raises unless something is pruned and all methods fit."""
        if not self._chosen:
            raise ValueError(self.why_nothing())
        for unit in self.chosen:
            unit.check()

    def why_nothing(self):
        """The message for a layer or model in which nothing is to be pruned."""
        inside = _keras.flatten(self.root)
        if any(registry.own_prunable_weights(inner) for inner in inside) or any(
            registry.unknown_until_built(inner) for inner in inside
        ):
            return nothing_left(self.root)
        return nothing_to_prune(self.root)

    def reasons(self):
        """Returns `{path: reason}` of layers that could be pruned and are not."""
        weights = [weight for unit in self.units for weight in unit.weights]
        pruned = {weight.path for weight in weights if weight.method is not None}
        return {weight.path: weight.reason for weight in weights if weight.path not in pruned}


def _units(model, around=()):
    """Yields `(layer, chain around it)` for the layers that are wrapped, or left, as a whole."""
    for layer in _keras.children(model):
        if _keras.is_graph(layer) and not _keras.keeps_class(layer):
            yield from _units(layer, (*around, (path_of(around, layer), layer)))
        else:
            yield layer, around
