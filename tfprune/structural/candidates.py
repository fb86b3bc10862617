"""Makes candidates of a search from one copy of a model, by assigning masks."""

import numpy as np

from tfprune import _keras
from tfprune._base import validation as check
from tfprune._updates.evidence import Evidence
from tfprune._updates.mask_update import MaskUpdate
from tfprune._wrapping.mask_set import keep_masks
from tfprune.patterns.single_weights import NOfM
from tfprune.patterns.slices import Filter
from tfprune.prune import prune_low_magnitude
from tfprune.schedules.constant import ConstantSparsity
from tfprune.scopes import Local

# Every scope allows a sparsity this small; the candidates set the real ones later.
_ANY = ConstantSparsity.one_shot(0.001)


class Candidates:
    """A wrapped copy of a model that becomes one candidate after another.

    The constructor scores all units by the weights of the model; `score` scores them again. A
    candidate then gives the number of pruned units of each competitor, and the units with the
    lowest scores are pruned.

    Args:
        compiled: The user's model, which provides the loss.
        model: The same model without wrappers, built.
        pattern: The `Pattern` of all layers.
        criterion: See `tfprune.prune_low_magnitude`, likewise `scope` and `rules`.
        evidence: Arguments of `Evidence`.

    Attributes:
        model: The wrapped copy.
        competitors: List of `Competitor`s: layers' weights, or groups of filters.
        requests: The `Request` of each.

    Raises:
        ValueError: If a rule gives a layer its own schedule or pattern, or the pattern allows
            only one sparsity.
    """

    def __init__(self, compiled, model, pattern, criterion, scope, rules, evidence):
        self._pattern = pattern
        if isinstance(self._pattern, NOfM):
            raise ValueError(
                check.message(
                    "a pattern that can have any sparsity",
                    f"{self._pattern!r}",
                    "Prune to N:M with prune_low_magnitude, or choose another pattern.",
                )
            )
        self.model = prune_low_magnitude(
            model, _ANY, pattern=pattern, criterion=criterion, scope=scope, rules=rules
        )
        self.update = MaskUpdate(self.model)
        # Candidates alone set the masks.
        keep_masks(self.update.owners)
        self._weights = self.update.weights
        self._check_methods()
        self._competitions = self.update.competitions((0.5, weight) for weight in self._weights)
        self.competitors = [c for known in self._competitions for c in known.competitors]
        self._evidence = Evidence(self.model, compiled=compiled, **evidence)
        self._evidence.check(self._scored)
        self.score()

    @property
    def _scored(self):
        return [weight for competitor in self.competitors for weight in competitor.scored]

    def _check_methods(self):
        """Raises ValueError if a rule cannot be combined with a search over sparsities."""
        grouped = isinstance(self._pattern, Filter) and self._pattern.coupled
        for weight in (w for w in self._weights if not w.follows):
            method = weight.method
            received = None
            if method.schedule != _ANY:
                received = f"a different schedule for {weight.name}"
            elif method.pattern != self._pattern or (grouped and not weight.coupled):
                received = f"the pattern {method.pattern!r} for {weight.name}"
            if received:
                raise ValueError(
                    check.message(
                        "rules that leave schedule and pattern to the search for targets",
                        received,
                        "Leave them out of the rule. To exempt a layer, use "
                        "tfprune.Rule(..., prune=False).",
                    )
                )

    def score(self):
        """Scores all units by the present weights of the model."""
        self._dense = [np.array(_keras.host_array(weight.variable)) for weight in self._weights]
        found = self._evidence([weight for weight in self._scored if weight.method.criterion.needs])
        by_competition = [
            [item.request(found, number) for number, item in enumerate(known.competitors)]
            for known in self._competitions
        ]
        self.requests = [request for requests in by_competition for request in requests]
        self._by_competition = by_competition
        # Copies keep the scores independent of masks assigned later.
        for request in (part for r in self.requests for part in getattr(r, "requests", [r])):
            request.weight = np.array(request.weight)
            request.evidence = {name: np.array(value) for name, value in request.evidence.items()}
            request.mask = None if request.mask is None else np.array(request.mask)
            request.alive = np.array(request.alive)
        self._orders: list = [None] * len(self.requests)

    def loss_meter(self):
        """Returns a function: the mean loss with the present masks, on the data of the evidence."""
        return self._evidence.loss_meter()

    def order(self, number):
        """Returns the units of a competitor in pruning order, already pruned ones first.

        Of equal scores, the last is pruned first, as in `tfprune.masks.keep_masks`.
        """
        if self._orders[number] is None:
            request = self.requests[number]
            scores = request.scores(rising=True).read(slice(None), checked=True)
            scores = np.where(request.pruned, -np.inf, scores)
            self._orders[number] = len(scores) - 1 - np.argsort(scores[::-1], kind="stable")
        return self._orders[number]

    @property
    def highest(self):
        """The highest sparsity that can be tried."""
        low, high = 0.0, 0.999
        middle = high
        while high - low > 1e-4:
            low, high = (middle, high) if self._can_have(middle) else (low, middle)
            middle = (low + high) / 2
        return low

    def _can_have(self, sparsity):
        try:
            for known, requests in zip(self._competitions, self._by_competition, strict=True):
                known.scope.check(requests, sparsity)
        except ValueError:
            return False
        return True

    @property
    def is_coarse(self):
        """Whether several units go at once when the sparsity rises a little."""
        steps = (request.pattern.step(request.units) for request in self.requests)
        together = any(known.scope == Local() for known in self._competitions)
        return together or any(step > 1 for step in steps)

    def at(self, sparsity):
        """Returns the wrapped model, pruned to this sparsity under its scope."""
        return self._assigned(self._kept(sparsity))

    def zeros_at(self, sparsity):
        """Returns the numbers of pruned units at this sparsity, in the order of `competitors`."""
        return [kept.size - int(np.count_nonzero(kept)) for kept in self._kept(sparsity)]

    def shares(self, zeros):
        """Returns `{name of a competitor: share of pruned units}`."""
        rows = zip(self.requests, zeros, strict=True)
        return {request.name: number / request.units for request, number in rows}

    def _kept(self, sparsity):
        return [
            mask
            for known, requests in zip(self._competitions, self._by_competition, strict=True)
            for mask, _ in known.scope.masks(requests, sparsity)
        ]

    def with_zeros(self, zeros):
        """Returns the wrapped model with the given number of units of each competitor pruned.

        Args:
            zeros: List of whole numbers, in the order of `competitors`.
        """
        masks = []
        for number, (request, gone) in enumerate(zip(self.requests, zeros, strict=True)):
            kept = np.ones(request.units, bool)
            kept[self.order(number)[:gone]] = False
            masks.append(kept)
        return self._assigned(masks)

    def _assigned(self, masks):
        for weight, values in zip(self._weights, self._dense, strict=True):
            weight.variable.assign(values)
        for competitor, request, kept in zip(self.competitors, self.requests, masks, strict=True):
            competitor.set_mask(request.spread(kept))
        return self.model
