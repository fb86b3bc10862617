"""The weights inside a layer that can be pruned, and whether a method fits them."""

from dataclasses import dataclass, replace
from typing import Any

from tfprune import _keras, scopes
from tfprune._base import validation as check
from tfprune._layers import registry
from tfprune._layers.registry import PrunableWeight
from tfprune.patterns import KernelAxes

# Configs of version 0.1 do not list the masked weights; they mean all weights prunable then.
KNOWN_TO_0_1 = "all weights that version 0.1 knew"


@dataclass(frozen=True)
class Prunable:
    """A weight that can be pruned, with its method.

    Attributes:
        key: Place of its layer and name of the weight; identical in a copy.
        path: Path of its layer and name of the weight, for messages.
        layer: The layer that owns the weight.
        entry: Its `PrunableWeight`.
        method: Its `Method`, or `None` if a rule or a policy exempts it.
        axes: Its `KernelAxes`.
    """

    key: str
    path: str
    layer: Any
    entry: PrunableWeight
    method: Any
    axes: KernelAxes

    @property
    def variable(self):
        """The weight. Its layer must be built."""
        return self.entry.get(self.layer)


def find_prunable(inner, default, overrides, chosen=None):
    """Lists the prunable weights inside a layer.

    Args:
        inner: The layer.
        default: The `Method` of weights that `overrides` does not cover.
        overrides: `{place: Method or None}`.
        chosen: As in `MaskSet`.

    Returns:
        List of `Prunable`, in the order of the layers or of `chosen`.

    Raises:
        ValueError: If one of `chosen` is missing.
    """
    paths = {id(chain[-1][1]): chain[-1][0] for chain in _keras.walk(inner)}
    places = _keras.places(inner)
    before = chosen == KNOWN_TO_0_1
    found: list = []
    known: set = set()
    for layer in _keras.flatten(inner):
        place = places[id(layer)]
        method = method_at(place, default, overrides)
        for entry in registry.own_prunable_weights(layer, before) or ():
            path = "/".join(filter(None, (paths.get(id(layer)), entry.name)))
            key = "/".join(filter(None, (place, entry.name)))
            # A layer with its own list of prunable weights may use a name twice.
            while key in known:
                key += "+"
            known.add(key)
            axes = entry.axes_of(layer)
            if before:
                axes = replace(axes, reduced=None)
            found.append(Prunable(key, path, layer, entry, method, axes))
    if chosen is None or before:
        return found
    by_key = {item.key: item for item in found}
    missing = [key for key in chosen if key not in by_key]
    if missing:
        raise ValueError(
            check.message(
                f"'{inner.name}' to have all weights that were masked",
                f"a layer without {', '.join(missing)}",
                "Build the layer in the same way as when it was wrapped.",
            )
        )
    return [by_key[key] for key in chosen]


def find_followers(inner, followers):
    """Yields `(path, layer, PrunableWeight)`."""
    paths = {id(chain[-1][1]): chain[-1][0] for chain in _keras.walk(inner)}
    places = _keras.places(inner)
    at = {places[id(layer)]: layer for layer in _keras.flatten(inner)}
    for place, index in followers:
        layer = at.get(place)
        if layer is None or not 0 <= index < len(layer.weights):
            raise ValueError(
                check.message(
                    f"weights of '{inner.name}' whose masks follow those of others",
                    f"weight {index} of {place!r}, which is not there",
                    "The config is damaged, or get_config() of a layer is incomplete.",
                )
            )
        entry = PrunableWeight(
            layer.weights[index].name, lambda owner, index=index: owner.weights[index]
        )
        yield "/".join(filter(None, (paths.get(id(layer)), entry.name))), layer, entry


def method_at(place, default, overrides):
    """Returns the method at a place, inherited from the nearest enclosing layer that has one."""
    while place not in overrides:
        if not place:
            return default
        place = place.rpartition("/")[0]
    return overrides[place]


def check_fits(method, layer, entry, path):
    """Raises ValueError if a method cannot prune a weight, as far as known before `build`.

    Args:
        method: The `Method`.
        layer: The layer that owns the weight.
        entry: The `PrunableWeight`.
        path: Name of the weight in messages.
    """
    if layer.built:
        shape = tuple(entry.get(layer).shape)
        method.pattern.check(shape, entry.axes_of(layer).resolve(len(shape)), path)
    target = method.schedule.target_sparsity
    method.pattern.check_target(target, path)
    cap = method.scope.max_sparsity if isinstance(method.scope, scopes.Global) else None
    if cap is not None and target > cap:
        raise ValueError(
            check.message(
                f"the schedule of {path} to stay at or below {cap:g}, the cap of {method.scope}",
                f"a target sparsity of {target:g}",
                "Raise max_sparsity, or lower the schedule's sparsity.",
            )
        )
