"""Filters of a whole model: channels that can only be removed together compete as one unit."""

import math
import warnings
from dataclasses import dataclass

import keras
import numpy as np
from keras import ops

from tfprune import _keras
from tfprune._base import validation as check
from tfprune._channels.graph import LAST_CHANNEL, OUTPUT, channel_groups, follow
from tfprune._channels.group_request import GroupRequest
from tfprune._layers import registry
from tfprune._wrapping.wrapper import MaskWrapper, mask_owners
from tfprune.masks.requests import Competitor
from tfprune.patterns.slices import Filter

_NOT_PRUNED = "is not pruned"
# In a stack of blocks, the width of the stream between them always stays.
_IN_BLOCKS = " (in a layer that runs layers)"
# Endings of reasons to keep filters that the user expects, so they cause no warning.
_EXPECTED = (OUTPUT, _NOT_PRUNED, LAST_CHANNEL, _IN_BLOCKS)
# Weights that turn zero, or lose their effect, once the weights before them are zero.
_NEED_NO_MASK = ("moving_variance",)


@dataclass(frozen=True)
class ChannelAxis:
    """One axis of a weight that holds channels of a group.

    Attributes:
        layer: The layer.
        variable: The weight.
        axis: The axis, counted from the front.
        units: Integers, one for each position: the channel of the group, or -1 for other groups.
        reads: Whether the layer reads the channels there; otherwise it makes or changes them.
    """

    layer: object
    variable: object
    axis: int
    units: np.ndarray
    reads: bool = False


@dataclass(frozen=True)
class Coupling:
    """A group of channels that can be pruned.

    Attributes:
        size: Number of channels.
        fixed: `{channel: reason}` for channels that must be kept.
        sets: List of arrays of channels; one channel of each array must be kept.
        scored: The `ChannelAxis`es whose weights are scored.
        others: The `ChannelAxis`es that are masked with them.
        cut: All `ChannelAxis`es that lose positions with removed channels, including those that
            read them.
    """

    size: int
    fixed: dict
    sets: list
    scored: list
    others: list
    cut: list

    @property
    def most_zeros(self):
        """The largest number of channels that can be removed, for any scores."""
        return self.size - len(self.fixed) - len(self.sets)


def is_coupled(method):
    """Whether a method prunes filters together with those of other layers."""
    return isinstance(method.pattern, Filter) and method.pattern.coupled


def find_couplings(model, candidates):
    """Finds the groups of channels of a model that can be pruned.

    Args:
        model: A built Sequential or Functional model, plain or wrapped.
        candidates: Set of the ids of weights that may be pruned.

    Returns:
        List of `Coupling`s, and `{reason: paths}` of the layers that keep all channels.
    """
    ledger = follow(model)
    groups, representatives = channel_groups(ledger)
    everything = {
        id(entry.get(layer))
        for layer in _keras.flatten(model)
        for entry in registry.own_prunable_weights(layer) or ()
    }
    found: list = []
    stay: dict = {}
    for group, cut in zip(groups, _axes_of_groups(ledger, representatives), strict=True):
        parts = [part for part in cut if not part.reads]
        fixed = dict(group.fixed)
        for part in parts:
            if id(part.variable) in everything and id(part.variable) not in candidates:
                reason = f"'{ledger.path(part.layer)}' {_NOT_PRUNED}"
                units = part.units[part.units >= 0].tolist()
                fixed.update({unit: reason for unit in units if unit not in fixed})
        made = {tuple(sorted(set(units.tolist()) - {-1})) for units in group.makers.values()}
        sets = [np.array(units) for units in sorted(made) if not any(u in fixed for u in units)]
        scored = [part for part in parts if id(part.variable) in candidates]
        others = [
            part
            for part in parts
            if id(part.variable) not in everything and part.variable.name not in _NEED_NO_MASK
        ]
        coupling = Coupling(group.size, fixed, sets, scored, others, cut)
        if scored and coupling.most_zeros > 0:
            found.append(coupling)
        elif scored:
            reason = next(iter(fixed.values()), LAST_CHANNEL)
            if not reason.endswith(_EXPECTED) and any(ledger.is_in_code(p.layer) for p in scored):
                reason += _IN_BLOCKS
            stay.setdefault(reason, []).extend(group.layers)
    known = {id(cut.variable) for cut in ledger.cuts.values() if not cut.reads}
    for layer in _keras.flatten(model):
        own = {id(entry.get(layer)) for entry in registry.own_prunable_weights(layer) or ()}
        if own & candidates and not own & known:
            stay.setdefault("their channels are not followed", []).append(ledger.path(layer))
    return found, stay


def _axes_of_groups(ledger, representatives):
    """Returns the list of `ChannelAxis`es of each group."""
    roots = ledger.roots()
    group_of, unit_of = np.full(len(roots), -1), np.full(len(roots), -1)
    for number, units in enumerate(representatives):
        group_of[units], unit_of[units] = number, np.arange(len(units))
    found: list = [[] for _ in representatives]
    for cut in ledger.cuts.values():
        labels = roots[cut.labels]
        for number in np.unique(group_of[labels]).tolist():
            if number >= 0:
                units = np.where(group_of[labels] == number, unit_of[labels], -1)
                found[number].append(
                    ChannelAxis(cut.layer, cut.variable, cut.axis, units, cut.reads)
                )
    return found


class PrunedGroup(Competitor):
    """A competitor that represents a group of channels in place of its `PrunedWeight`s.

    Args:
        coupling: The `Coupling`.
        weights: `{id(variable): PrunedWeight}`.
        places: `{id(weight): [(group, part)]}` of all groups: the weight axes whose positions are
            removed with a group's channels. This group adds its own.
    """

    def __init__(self, coupling, weights, places):
        self.coupling = coupling
        self._scored = [weights[id(part.variable)] for part in coupling.scored]
        self.parts = [
            (weights[id(part.variable)], part)
            for part in [*coupling.scored, *coupling.others]
            if id(part.variable) in weights
        ]
        self._places = places
        for weight, part in self.parts:
            places.setdefault(id(weight), []).append((self, part))
        first = self.scored[0]
        self.name, self.method = first.name, first.method
        for weight in self.scored[1:]:
            same = self.method.same_competition(weight.method)
            parts = [(w.method.pattern, w.method.criterion) for w in (first, weight)]
            if not same or parts[0] != parts[1]:
                raise ValueError(
                    check.message(
                        "one schedule, pattern, criterion and scope for filters that can only be "
                        "removed together",
                        f"different ones for {first.name} and {weight.name}",
                        "Give both layers the same tfprune.Rule, or prune each layer's filters "
                        "independently with tfprune.Filter(coupled=False).",
                    )
                )

    @property
    def scored(self):
        return self._scored

    @property
    def pruned(self):
        """Bool array: True for pruned channels."""
        alive = np.zeros(self.coupling.size + 1, bool)
        for weight, part in self.parts:
            others = tuple(i for i in range(len(weight.variable.shape)) if i != part.axis)
            alive[part.units[_keras.any_along(weight.mask, others)]] = True
        return ~alive[:-1]

    def request(self, found, position=0, criterion=None):
        requests = [
            weight.request(found, position + number, criterion)
            for number, weight in enumerate(self.scored)
        ]
        return GroupRequest(self.coupling, requests, self.pruned, self.method.pattern)

    def pooled_request(self, found):
        """Returns its `Request`, whose scores are pooled on the device."""
        requests = [weight.pooled_request(found) for weight in self.scored]
        return GroupRequest(self.coupling, requests, self.pruned, self.method.pattern)

    def shuffled(self, random):
        """Returns which channels are kept if the same number is drawn at random."""
        kinds: dict = {}
        for channel in range(self.coupling.size):
            if channel not in self.coupling.fixed:
                counts = [int((part.units == channel).sum()) for _, part in self.parts]
                kinds.setdefault(tuple(counts), []).append(channel)
        kept = ~self.pruned
        for channels in kinds.values():
            kept[channels] = random.permutation(kept[channels])
        return kept

    def set_mask(self, kept):
        """Gives all weights of the group the masks that keep these channels.

        Args:
            kept: bool array over channels; or a tensor, to expand the masks on the device.
        """
        on_device = not isinstance(kept, np.ndarray)
        kept = _keras.on_host(kept) if on_device else kept
        for weight, _ in self.parts:
            shape = tuple(weight.variable.shape)
            mask = np.ones((1,) * len(shape), bool)
            # A weight may belong to two groups: the heads of an attention layer and its outputs.
            for group, other in self._places[id(weight)]:
                stays = kept if group is self else ~group.pruned
                vector = np.append(stays, True)[other.units]
                wide = [1] * len(shape)
                wide[other.axis] = len(vector)
                mask = mask & vector.reshape(wide)
            if on_device:
                repeated = math.prod(shape) // mask.size
                zeros = (mask.size - int(np.count_nonzero(mask))) * repeated
                weight.set_mask(ops.broadcast_to(ops.convert_to_tensor(mask), shape), zeros)
            else:
                weight.set_mask(np.ascontiguousarray(np.broadcast_to(mask, shape)))


class Couplings:
    """The competitor that represents each weight of a wrapped model.

    Args:
        model: A built layer or model with wrappers.

    Attributes:
        groups: List of the `PrunedGroup`s.
    """

    def __init__(self, model):
        weights = {
            id(weight.variable): weight
            for owner in mask_owners(model)
            if owner.coupled
            for weight in owner.pruned_weights
        }
        candidates = {key for key, weight in weights.items() if weight.coupled}
        graphs = _outermost_graphs(model) if candidates else []
        followed = {id(layer) for part in graphs for layer in _keras.flatten(part)}
        couplings = [found for part in graphs for found in find_couplings(part, candidates)[0]]
        self._places: dict = {}
        self.groups = [PrunedGroup(coupling, weights, self._places) for coupling in couplings]
        # If code calls a layer, the readers of its channels are unknown, so its weights compete
        # independently.
        self._standing: dict = {
            id(weights[key]): weights[key]
            for key in candidates
            if id(weights[key].layer) not in followed
        }
        for group in self.groups:
            self._standing.update({id(weight): group for weight in group.scored})

    def competitor(self, weight):
        """Returns the competitor that represents a `PrunedWeight`; `None` if it does not compete.

        A weight does not compete if other masks determine its own, or if all its channels are
        kept.
        """
        if weight.follows:
            return None
        return self._standing.get(id(weight)) if weight.coupled else weight

    def is_alone(self, weight):
        """Whether no group of channels changes the mask of a weight."""
        return id(weight) not in self._places


def _outermost_graphs(model):
    """Yields models with wrappers that form a graph and that no other such model calls."""
    found: dict = {}

    def look(layer, called):
        runs = _keras.runs_as_graph(layer)
        if runs and not called and mask_owners(layer):
            found.setdefault(id(layer), layer)
        through = called and isinstance(layer, (MaskWrapper, keras.layers.TimeDistributed))
        for child in _keras.children(layer):
            look(child, runs or through)

    look(model, False)
    return list(found.values())


def warn_of_layers_that_stay(stay):
    """Warns of layers that keep all filters although no rule says so.

    Args:
        stay: `{reason: paths}` from `find_couplings`.
    """
    whole = {reason: paths for reason, paths in stay.items() if not reason.endswith(_EXPECTED)}
    if whole:
        warnings.warn(
            check.message(
                "filters that can be removed",
                "layers that keep all of theirs, so the model is less sparse than requested: "
                + "; ".join(f"{', '.join(paths)}: {reason}" for reason, paths in whole.items()),
                "Exempt them with tfprune.Rule(..., prune=False), or describe a custom layer "
                "with tfprune.register_channel_rule.",
            ),
            stacklevel=6,
        )


def warn_of_whole_groups(groups):
    """Warns of groups that have too few channels to round and are not pruned."""
    whole = []
    for group in groups:
        step = group.method.pattern.step(group.coupling.size)
        if group.coupling.size <= step and group.method.schedule.target_sparsity:
            whole.append(f"'{group.scored[0].layer.name}' ({group.coupling.size})")
    if whole:
        warnings.warn(
            check.message(
                f"groups of more than {step} channels, for round_to={step}",
                "fewer in the groups of " + ", ".join(whole) + ", which are not pruned",
                "Lower round_to, or exempt them with tfprune.Rule(..., prune=False).",
            ),
            stacklevel=5,
        )
