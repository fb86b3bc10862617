"""The plan of a layer or model: the method of each weight, or the reason not to prune it."""

import warnings
from dataclasses import dataclass, replace
from typing import Any

from tfprune import _keras, patterns
from tfprune._base import validation as check
from tfprune._keras.checks import nothing_left, nothing_to_prune
from tfprune._layers import registry
from tfprune._planning.choices import chains_of, path_of
from tfprune._wrapping.prunable import Prunable, check_fits, find_prunable, method_at

NEVER_RAN = "never ran"
UNFIT = "does not fit"


@dataclass(frozen=True)
class PlannedWeight:
    """A prunable weight, and the decision about it.

    Attributes:
        path: Path of its layer in the layer or model to prune.
        item: The `Prunable`: layer, entry, place.
        method: The `Method` to prune it by; `None` if it is not pruned.
        reason: Why it is not pruned; `None` if it is.
    """

    path: str
    item: Prunable
    method: Any
    reason: str | None


class Unit:
    """A layer to wrap, or a model to mask, as a whole.

    Args:
        layer: The layer.
        around: The chain of layers around it; `None` for a whole model.
        choices: The `Choices`.
        asked_for: Whether the layer was passed in on its own.

    Attributes:
        default: The `Method` of the layer itself.
        overrides: `{place: Method or None}` of layers inside that differ from those around them.
        weights: List of `PlannedWeight`s, one for each prunable weight.
        left_out: Places of layers that keep all filters.
        followers: `(place, index)` of weights that are masked with filters; `None` if filters are
            pruned layer by layer.
    """

    def __init__(self, layer, around, choices, asked_for=False):
        self.layer, self.around = layer, around
        self._asked_for = asked_for
        self._chains = chains_of(layer, around)
        self._places = _keras.places(layer)
        self.left_out: list = []
        self.followers: list | None = None
        # The policy decides about a layer that holds layers as a whole, but not about a model.
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
        if self._asked_for and item.layer is self.layer:
            return None
        return choices.exempt_by_default(self.layer, chain, item) or _unfit(item, chain, choices)

    @property
    def path(self):
        """Path of the layer in the layer or model to prune."""
        return path_of(self.around or (), self.layer)

    @property
    def masked(self):
        """The list of `PlannedWeight`s that are pruned."""
        return [weight for weight in self.weights if weight.method is not None]

    @property
    def prunes(self):
        """Whether any weight inside is pruned, as far as the plan can tell."""
        return bool(self.masked or (not self._refused and self._grows()))

    def _grows(self):
        """Whether unbuilt layers with unknown weights may have some to prune."""
        return any(
            registry.unknown_until_built(inner)
            and method_at(self._places[id(inner)], self.default, self.overrides) is not None
            for inner in _keras.flatten(self.layer)
        )

    def leave_out(self, left_out, reasons):
        """Leaves out layers that keep all filters.

        Args:
            left_out: Places of the layers.
            reasons: `{path of a layer: why it keeps its filters}`.
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
        """Returns the place of an inner layer."""
        return self._places[id(layer)]

    def arguments(self):
        """Returns a wrapper's arguments: default method, overrides, followers, masked weights."""
        keys = [weight.item.key for weight in self.masked] if self.layer.built else None
        overrides = {**self.overrides, **dict.fromkeys(self.left_out)}
        return self.default, overrides, self.followers, keys

    def check(self):
        """Raises unless the methods fit the weights that exist already."""
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
        """Raises if only a future `build` can show whether the layer has prunable weights."""
        growing = [
            inner
            for inner in _keras.flatten(self.layer)
            if registry.own_prunable_weights(inner) is None and _keras.builds_by_itself(inner)
        ]
        if growing and not self.weights and not self._refused:
            raise ValueError(
                check.message(
                    "a layer with known prunable weights",
                    f"'{self.layer.name}', a {type(self.layer).__name__} that makes its weights in "
                    "build(), which has not run",
                    "Call the layer on data once, or wrap the built model that it is part of; or "
                    f"call tfprune.register_prunable({type(growing[0]).__name__}, [...]) with its "
                    "prunable weights, or with an empty list if it has none.",
                )
            )

    def check_countable(self):
        """Raises if rules vary inside a layer that has not created all of its inner layers yet."""
        growing = [
            inner
            for inner in _keras.flatten(self.layer)
            if registry.unknown_until_built(inner) and not registry.lists_own_weights(inner)
        ]
        if growing and self.overrides:
            raise ValueError(
                check.message(
                    "a built layer where rules vary the method inside it",
                    f"'{self.layer.name}', in which '{growing[0].name}' has no weights yet",
                    "Call the layer on data once, or wrap the built model that it is part of.",
                )
            )


def _unfit(item, chain, choices):
    """Why a weight cannot have N:M sparsity; `None` if it can, or a rule asks for it by name."""
    pattern = item.method.pattern
    if not isinstance(pattern, patterns.NOfM) or not item.layer.built or choices.is_named(chain):
        return None
    shape = tuple(item.variable.shape)
    try:
        pattern.check(shape, item.axes.resolve(len(shape)), item.path)
    except ValueError:
        return f"{UNFIT} {pattern.zeros}:{pattern.group}"
    return None


def _as_text(match):
    """Returns a rule's match as the user wrote it: names in quotes, classes by name."""
    if isinstance(match, (list, tuple)):
        return ", ".join(map(_as_text, match))
    return match.__name__ if isinstance(match, type) else repr(match)


class Plan:
    """The decision about each weight of a layer or model.

    Args:
        root: The layer or model.
        choices: The `Choices`.
        whole: Whether a model is masked as a whole instead of layer by layer.
        alone: Whether `root` is a layer outside of a model, which is wrapped as a whole.

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
            {id(layer): Unit(layer, around, choices, alone) for layer, around in pairs}.values()
        )
        self._chosen = {id(unit.layer): unit for unit in self.units if unit.prunes}

    @property
    def chosen(self):
        """The list of `Unit`s with pruned or masked weights."""
        return list(self._chosen.values())

    def unit_of(self, layer):
        """Returns the chosen `Unit` of a layer; `None` if the layer is not wrapped."""
        return self._chosen.get(id(layer))

    def choose(self, unit):
        """Adds a unit whose weights are masked with those of other units."""
        self._chosen[id(unit.layer)] = unit

    def leave(self, unit):
        """Excludes a unit from wrapping."""
        self._chosen.pop(id(unit.layer), None)

    def check(self):
        """Raises unless at least one weight is pruned and all methods fit."""
        if not self._chosen:
            raise ValueError(self.why_nothing())
        for unit in self.chosen:
            unit.check()
        unfit = [path for path, why in self.reasons().items() if str(why).startswith(UNFIT)]
        if unfit:
            warnings.warn(
                check.message(
                    "layers whose inputs come in groups of the N:M pattern's size",
                    f"{', '.join(unfit)}, which are not pruned",
                    "sparsity_report lists them; give them another pattern with tfprune.Rule.",
                ),
                stacklevel=5,
            )

    def why_nothing(self):
        """The message for a layer or model in which nothing is to be pruned."""
        unfit = [w for unit in self.units for w in unit.weights if w.reason and UNFIT in w.reason]
        if unfit:
            item = unfit[0].item
            shape = tuple(item.variable.shape)
            item.method.pattern.check(shape, item.axes.resolve(len(shape)), unfit[0].path)
        inside = _keras.flatten(self.root)
        if any(registry.own_prunable_weights(inner) for inner in inside) or any(
            registry.unknown_until_built(inner) for inner in inside
        ):
            return nothing_left(self.root)
        return nothing_to_prune(self.root)

    def reasons(self):
        """Returns `{path: reason}` of prunable layers that are not pruned."""
        weights = [weight for unit in self.units for weight in unit.weights]
        pruned = {weight.path for weight in weights if weight.method is not None}
        return {weight.path: weight.reason for weight in weights if weight.path not in pruned}


def _units(model, around=()):
    """Yields `(layer, chain around it)` for the layers to wrap, or to skip, as a whole."""
    for layer in _keras.children(model):
        if _keras.is_graph(layer) and not _keras.keeps_class(layer):
            yield from _units(layer, (*around, (path_of(around, layer), layer)))
        elif not getattr(layer, "saves_masks", False):
            yield layer, around
