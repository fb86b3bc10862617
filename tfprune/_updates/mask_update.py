"""The mask update: from scores to new masks, all of them or none."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from tfprune import _keras
from tfprune._channels.coupling import Couplings, PrunedGroup
from tfprune._updates.choice import Choice
from tfprune._updates.exchanging import exchanged_on_device, exchanged_on_host
from tfprune._updates.placement import exchanges_on_device, place_of
from tfprune._wrapping.in_place import owner_of
from tfprune._wrapping.wrapper import MaskWrapper, mask_owners, plain_path
from tfprune.masks import Bits, DeviceMask


@dataclass(frozen=True)
class Competition:
    """Competitors that share a scope and a sparsity.

    Attributes:
        scope: The `Scope` under which they compete.
        sparsity: Fraction of pruned units, in [0, 1).
        competitors: List of `Competitor`s.
    """

    scope: Any
    sparsity: float
    competitors: list

    def requests(self, found=None, positions=None, masks_on="host"):
        """Returns one `Request` for each competitor.

        Args:
            found: Evidence from `tfprune._updates.evidence.Evidence`.
            positions: `{id(competitor): index among all competitors of the update}`.
            masks_on: Where masks are computed: "auto", "host" or "device".
        """
        place = self.place(masks_on)
        if place != "host":
            make = "device_request" if place == "device" else "pooled_request"
            return [getattr(item, make)(found) for item in self.competitors]
        return [
            item.request(found or {}, (positions or {}).get(id(item), 0))
            for item in self.competitors
        ]

    def choices(self, found, positions, masks_on):
        """Computes the masks; returns one `Choice` for each competitor. Arguments as `requests`.

        Where replicas hold copies of the weights, each of them chooses from its own, unless the
        host chooses: it reads one copy.
        """

        def choose(_=0):
            requests = self.requests(found, positions, masks_on)
            results = self.scope.masks(requests, self.sparsity)
            for request in requests:
                # Frees the arrays that were read, so that they do not add to the memory of the
                # new values.
                request.release()
            # The new masks wait here until all of them are known, one bit a weight.
            packed = [
                kept if isinstance(kept, (Bits, DeviceMask)) else Bits.of(np.asarray(kept))
                for kept, _ in results
            ]
            thresholds = [threshold for _, threshold in results]
            return list(zip(requests, packed, strict=True)), thresholds

        if self.place(masks_on) == "host":
            copies = [choose()]
        else:
            copies = _keras.in_each_replica(self.competitors[0].scored[0].variable, choose)
        masks = zip(*(masks for masks, _ in copies), strict=True)
        return [
            Choice(competitor, own, threshold)
            for competitor, own, threshold in zip(
                self.competitors, masks, copies[0][1], strict=True
            )
        ]

    def place(self, masks_on):
        """Returns where masks are computed, as `placement.place_of` does."""
        return place_of(self.scope, self.competitors, masks_on)

    @property
    def needs_nothing(self):
        """Whether the sparsity is 0 and no unit is pruned, so that no mask can change."""
        return not self.sparsity and not any(w.zeros for c in self.competitors for w in c.scored)


class MaskUpdate:
    """Updates the masks of one model, with all weights that compete with each other.

    An `aim` is a pair `(sparsity, PrunedWeight)` with the requested sparsity of a weight.

    Args:
        model: A built layer or model with wrappers.
        masks_on: Where masks are computed: "auto", "host" or "device".

    Attributes:
        owners: List of the wrappers.
        masks_on: Where masks are computed.
        weights: List of all `PrunedWeight`s.
        groups: List of the groups of coupled filters.
    """

    def __init__(self, model, masks_on="host"):
        self.masks_on = masks_on
        self.owners = mask_owners(model)
        self.weights = [weight for owner in self.owners for weight in owner.pruned_weights]
        _name_by_path(model)
        self._couplings = Couplings(model)
        self.groups = self._couplings.groups

    def competitor(self, weight):
        """Returns the competitor that represents a weight: see `Couplings.competitor`."""
        return self._couplings.competitor(weight)

    def is_alone(self, weight):
        """Whether no group of channels changes the mask of a weight."""
        return self._couplings.is_alone(weight)

    def competitions(self, aims):
        """Sorts aims into a list of `Competition`s."""
        found: list = []
        seen = set()
        for sparsity, weight in aims:
            competitor = self.competitor(weight)
            if competitor is None or id(competitor) in seen:
                continue
            seen.add(id(competitor))
            for known in found:
                same = known.competitors[0].method.same_competition(competitor.method)
                if known.sparsity == sparsity and same:
                    known.competitors.append(competitor)
                    break
            else:
                found.append(Competition(competitor.method.scope, sparsity, [competitor]))
        return found

    def apply(self, aims, evidence=None):
        """Updates masks to a new sparsity.

        All masks are computed before the first is assigned, so an error changes nothing.

        Args:
            aims: List of `(sparsity, PrunedWeight)`.
            evidence: The `Evidence` for the criteria; `None` if all criteria use only the weights.

        Returns:
            Whether any mask changed.

        Raises:
            ValueError: If a weight is not finite or evidence cannot be collected; the message
                names the layer.
        """
        computed = self._chosen(aims, evidence, self.masks_on)
        computed.reverse()
        changed = False
        while computed:
            choice = computed.pop()
            if choice.threshold is None:
                continue
            for weight in choice.competitor.scored:
                weight.threshold = choice.threshold
            if choice.changes:
                choice.assign()
                changed = True
        return changed

    def proposed(self, aims, evidence=None):
        """Returns the masks that `apply` would give, and assigns none.

        Returns:
            `{id(weight): bool array}`.
        """
        masks: dict = {}
        for choice in self._chosen(aims, evidence):
            ((request, kept),), competitor = choice.copies, choice.competitor
            if not isinstance(competitor, PrunedGroup):
                masks[id(competitor)] = request.spread(kept)
                continue
            for weight, part in competitor.parts:
                shape = tuple(weight.variable.shape)
                wide = [1] * len(shape)
                wide[part.axis] = shape[part.axis]
                stays = np.append(np.asarray(kept), True)[part.units].reshape(wide)
                masks[id(weight)] = masks.get(id(weight), np.ones(shape, bool)) & stays
        return masks

    def _chosen(self, aims, evidence, masks_on="host"):
        """Returns the `Choice`s of all that compete."""
        competitions = self.competitions(aims)
        everything = [item for known in competitions for item in known.competitors]
        needing = [
            weight
            for known in competitions
            if not known.needs_nothing
            for item in known.competitors
            for weight in item.scored
            if weight.method.criterion.needs
        ]
        as_tensors = {
            id(weight)
            for known in competitions
            if known.place(masks_on) != "host"
            for item in known.competitors
            for weight in item.scored
        }
        found = {}
        if evidence is not None and needing:
            found = evidence(needing, as_tensors=as_tensors)
        positions = {id(competitor): position for position, competitor in enumerate(everything)}
        computed: list = []
        for known in competitions:
            computed += known.choices(found, positions, masks_on)
        return computed

    def check(self, aims):
        """Raises ValueError if weights can never reach the requested sparsity."""
        for known in self.competitions(aims):
            requests = known.requests(masks_on=self.masks_on)
            known.scope.check(requests, known.sparsity)

    def expected_zeros(self, aims):
        """Returns `(pruned, expected, units)` for each competition, counted in units."""
        found = []
        for known in self.competitions(aims):
            requests = known.requests(masks_on=self.masks_on)
            found.append(
                (
                    sum(request.zeros_now for request in requests),
                    known.scope.zeros(requests, known.sparsity),
                    sum(request.units for request in requests),
                )
            )
        return found

    def exchange(self, fractions, drop, grow, evidence):
        """Drops connections of each weight and grows the same number; all weights or none.

        Args:
            fractions: List of the shares of active units to drop, one for each weight, in [0, 1).
            drop: `Criterion`: active units with the lowest scores are dropped.
            grow: `Criterion`: inactive units with the highest scores are grown, including units
                that were just dropped.
            evidence: The `Evidence` for the criteria.

        Returns:
            `[(weight, grown)]` for the weights whose mask changed: `grown` is a bool array or
            tensor, True for weights that were pruned before and are not now. A unit that is dropped
            and grown again keeps its weights.

        Raises:
            ValueError: If a weight is not finite or evidence cannot be collected; the message
                names the layer.
        """
        on_device = exchanges_on_device(self.weights, (drop, grow), self.masks_on)
        tensors = {id(weight) for weight in self.weights} if on_device else set()
        found = [
            evidence(self.weights, criterion, tensors) if criterion.needs else {}
            for criterion in (drop, grow)
        ]
        given = (self.weights, fractions, (drop, grow), found)
        if not on_device:
            computed = exchanged_on_host(*given)
            _assign_all(computed)
        else:
            first = self.weights[0].variable
            copies = _keras.in_each_replica(first, lambda _: exchanged_on_device(*given))
            _keras.in_each_replica(first, lambda number: _assign_all(copies[number]))
            computed = copies[0]
        return [(weight, grown) for weight, _, _, grown in computed]


def _assign_all(exchanged):
    for weight, mask, zeros, _ in exchanged:
        weight.set_mask(mask, zeros)


def _name_by_path(model):
    """Names weights by their paths in the model, for what tells layers apart by name."""
    for chain in _keras.walk(model):
        layer = chain[-1][1]
        wrapped = isinstance(layer, MaskWrapper)
        owner = layer if wrapped else owner_of(layer)
        # The names of a wrapper's weights begin with its own; those of a model's do not.
        around = plain_path(chain[:-1] if wrapped else chain)
        for weight in owner.pruned_weights if owner is not None else ():
            weight.name_below(around)
