"""The overall sparsity at which a shrunk model meets a target in MACs, parameters or latency."""

import numbers

import numpy as np

from tfprune import _keras
from tfprune._base import validation as check
from tfprune._updates.evidence import Evidence
from tfprune._updates.mask_update import MaskUpdate
from tfprune.patterns.slices import Filter
from tfprune.prune import prune_low_magnitude
from tfprune.schedules.constant import ConstantSparsity

_MEND = 'Use for instance targets={"macs": 0.5}, half of what the model has now.'
_KNOWN = ("macs", "parameters", "latency")
_RUNS = 20
# Nearer than this to a target, no channel more would be found that can stay.
_CLOSE = 0.005
# Any scope can have as little; what is tried comes later.
_ANY = ConstantSparsity.one_shot(0.001)


def check_targets(targets):
    """Returns `targets`, or raises if they are none."""
    if not isinstance(targets, dict):
        raise TypeError(check.message("`targets` to be a dictionary", f"{targets!r}", _MEND))
    if not targets or any(name not in _KNOWN for name in targets):
        expected = "`targets` for one or more of " + ", ".join(map(repr, _KNOWN))
        raise ValueError(check.message(expected, f"targets={targets!r}", _MEND))
    for name, value in targets.items():
        number = isinstance(value, numbers.Real) and not isinstance(value, bool)
        if not number:
            raise TypeError(check.message(f"{name} to be a number", f"{value!r}", _MEND))
        whole = name != "latency" and value > 1 and float(value).is_integer()
        if not (0 < value < 1 or whole):
            expected = f"{name} as a fraction of the model's own, between 0 and 1"
            if name != "latency":
                expected += ", or a whole number above 1"
            raise ValueError(check.message(expected, f"{value!r}", _MEND))
    return targets


class Candidates:
    """Copies of a model with ever other filters silent.

    Args:
        compiled: The user's model, whose loss is taken.
        model: The same without wrappers: a built Sequential or Functional model.
        round_to: Keep a multiple of so many channels.
        criterion: See `tfprune.prune_low_magnitude`, likewise `scope` and `rules`.
        evidence: Arguments of `Evidence`.
    """

    def __init__(self, compiled, model, round_to, criterion, scope, rules, evidence):
        self._pruned = prune_low_magnitude(
            model,
            _ANY,
            pattern=Filter(round_to=round_to),
            criterion=criterion,
            scope=scope,
            rules=rules,
        )
        update = MaskUpdate(self._pruned)
        self._weights = update.weights
        self._dense = [np.array(_keras.host_array(weight.variable)) for weight in self._weights]
        self._competitions = update.competitions((0.5, weight) for weight in self._weights)
        self._check_rules()
        scored = [w for known in self._competitions for c in known.competitors for w in c.scored]
        collect = Evidence(self._pruned, compiled=compiled, **evidence)
        collect.check(scored)
        found = collect([weight for weight in scored if weight.method.criterion.needs])
        self._requests = [
            [item.request(found, number) for number, item in enumerate(known.competitors)]
            for known in self._competitions
        ]
        # Scores are those of the dense model, whatever is silent in the meantime.
        for weight in (w for requests in self._requests for r in requests for w in r.requests):
            weight.weight = np.array(weight.weight)
            weight.evidence = {name: np.array(value) for name, value in weight.evidence.items()}

    def _check_rules(self):
        """Raises if rules ask for what a search over one sparsity cannot give."""
        for weight in (w for w in self._weights if not w.follows):
            received = None
            if weight.method.schedule != _ANY:
                received = f"a schedule of its own for {weight.name}"
            elif not weight.coupled:
                received = f"the pattern {weight.method.pattern!r} for {weight.name}"
            if received:
                raise ValueError(
                    check.message(
                        "rules that leave schedule and pattern to the search for targets",
                        received,
                        "Leave them out of the rule; tfprune.Rule(..., prune=False) exempts a "
                        "layer.",
                    )
                )

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
            for known, requests in zip(self._competitions, self._requests, strict=True):
                known.scope.check(requests, sparsity)
        except ValueError:
            return False
        return True

    def at(self, sparsity):
        """Returns the wrapped model with its filters pruned to this sparsity; one for all."""
        results = [
            known.scope.masks(requests, sparsity)
            for known, requests in zip(self._competitions, self._requests, strict=True)
        ]
        for weight, values in zip(self._weights, self._dense, strict=True):
            weight.variable.assign(values)
        for known, masks in zip(self._competitions, results, strict=True):
            for competitor, (kept, _) in zip(known.competitors, masks, strict=True):
                competitor.set_mask(kept)
        return self._pruned


def search(candidates, targets, make_plan, batch_size=1):
    """Finds the lowest sparsity at which all targets are met.

    Args:
        candidates: `Candidates`.
        targets: `{"macs", "parameters" or "latency": fraction or number}`.
        make_plan: Function from a model to its `ShrinkPlan`.
        batch_size: For latency.

    Returns:
        The `ShrinkPlan`.
    """

    def tried(sparsity):
        plan = make_plan(candidates.at(sparsity))
        plan.sparsity = sparsity
        return plan, share(plan, targets, batch_size)

    low, (_, low_share) = 0.0, tried(0.0)
    high = candidates.highest
    best, best_share = tried(high)
    if best_share > 1:
        reached = _shares(best, targets, batch_size).items()
        raise ValueError(
            check.message(
                "targets that can be reached by removing channels",
                f"targets={targets!r}, where one channel of each group still makes "
                + ", ".join(f"{name} {value:.3g} times its target" for name, value in reached),
                "Raise the targets, or free more layers: plan_shrink(model) says what stays.",
            )
        )
    for _ in range(12):
        if best_share > 1 - _CLOSE or high - low < 1e-3:
            break
        # What a model costs falls about with the square of its widths.
        roots = [value**0.5 for value in (low_share, 1.0, best_share)]
        part = (roots[0] - roots[1]) / (roots[0] - roots[2])
        middle = low + (high - low) * min(max(part, 0.1), 0.9)
        plan, found = tried(middle)
        if found <= 1:
            best, best_share, high = plan, found, middle
        else:
            low, low_share = middle, found
    return best


def share(plan, targets, batch_size=1):
    """What a plan has of the target that it is farthest from, in parts of it; 1 meets it."""
    return max(_shares(plan, targets, batch_size).values())


def _shares(plan, targets, batch_size):
    """What the plan has of each, in parts of its target."""
    shares = {}
    for name, target in targets.items():
        if name == "latency":
            found = plan.latency(batch_size, _RUNS)
            before, after = found["before"].median, found["after"].median
        else:
            before, after = getattr(plan.before, name), getattr(plan.after, name)
            if before is None:
                raise ValueError(
                    check.message(
                        "a model whose multiplications can be counted",
                        "one with open lengths of its inputs",
                        "Give its keras.Input a full shape, or use another target.",
                    )
                )
        shares[name] = after / (target * before if target < 1 else target)
    return shares
