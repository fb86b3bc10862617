"""Finds the sparsity at which a shrunk model meets targets in MACs, parameters or latency."""

import numbers

from tfprune._base import validation as check
from tfprune.structural.allocation import Budget

_MEND = 'Use for instance targets={"macs": 0.5}, half of the present MACs.'
_KNOWN = ("macs", "parameters", "latency")
# Within this distance of a target, further steps would not keep another channel.
_CLOSE = 0.005
# Sparsities that lie closer together are taken for one.
_STEP = 1e-3
# Counting is asked at most so often.
_COUNTS = 4


class OutOfReach(ValueError):
    """No removal of channels meets the targets."""


def check_targets(targets):
    """Returns `targets`, or raises if they are not valid."""
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


def check_counted(cost):
    """Raises ValueError unless all multiplications of a model are counted.

    Args:
        cost: Its `ModelCost`.
    """
    if cost.uncounted:
        paths = ", ".join(f"'{path}'" for path in cost.uncounted)
        raise ValueError(
            check.message(
                "a model whose multiplications are all counted",
                f"layers that are not: {paths}",
                "Use another target, such as parameters; or declare a class like a known one with "
                "tfprune.register_layer(MyLayer, like=...).",
            )
        )
    if cost.macs is None:
        raise ValueError(
            check.message(
                "a model whose multiplications can be counted",
                "one whose inputs have unknown lengths",
                "Give its keras.Input a full shape, or use another target.",
            )
        )


def check_runtime(runtime, targets):
    """Raises ValueError for a runtime without a target in latency, which alone depends on it."""
    if runtime != "keras" and "latency" not in (targets or {}):
        raise ValueError(
            check.message(
                "a target in latency where `runtime` is given",
                f"runtime={runtime!r}, targets={targets!r}",
                'Add "latency" to the targets, or leave `runtime` out.',
            )
        )


def search(candidates, costs, targets, make_plan):
    """Finds the lowest sparsity at which all targets are met.

    A plan takes long, because a smaller model is made for it. So the sparsity is found by counting,
    and plans are tried at others only if the count is far from the cost of the smaller model.

    Args:
        candidates: `Candidates`.
        costs: Their `Costs`.
        targets: `{"macs" or "parameters": fraction or number}`.
        make_plan: Function from a sparsity to its `ShrinkPlan`.

    Returns:
        `(sparsity, ShrinkPlan)`.
    """

    def tried(sparsity):
        plan = make_plan(sparsity)
        return plan, share(plan, targets)

    found = _by_counting(candidates, costs, targets, tried)
    if found is not None:
        return found
    low, high = 0.0, candidates.highest
    low_share, (best, best_share) = tried(low)[1], tried(high)
    if best_share > 1:
        reached = shares(best, targets).items()
        raise OutOfReach(
            check.message(
                "targets that can be reached by removing channels",
                f"targets={targets!r}, while a model with one channel per group still has "
                + ", ".join(f"{name} {value:.3g} times its target" for name, value in reached),
                "Raise the targets, or exempt fewer layers: plan_shrink(model) lists the channels "
                "that are kept.",
            )
        )
    for _ in range(12):
        if best_share > 1 - _CLOSE or high - low < _STEP:
            break
        # The cost of a model falls roughly with the square of its widths.
        roots = [value**0.5 for value in (low_share, 1.0, best_share)]
        part = (roots[0] - roots[1]) / (roots[0] - roots[2])
        middle = low + (high - low) * min(max(part, 0.1), 0.9)
        plan, found = tried(middle)
        if found <= 1:
            best, best_share, high = plan, found, middle
        else:
            low, low_share = middle, found
    return high, best


def _by_counting(candidates, costs, targets, tried):
    """Returns `(sparsity, plan)`, found by counting; `None` if that leads to no plan.

    The smaller model may cost more or less than counted. The count is then asked for as much more
    or less, until it leads to pruned channels that were tried before.
    """
    if any(not costs.dense[name] for name in targets):
        # The first plan says which layers are not counted.
        return None
    budget, limit = budget_of(costs, targets), 1.0
    best: tuple | None = None
    known: set = set()
    for _ in range(_COUNTS):
        sparsity, load = _counted(candidates, costs, budget, limit)
        zeros = None if sparsity is None else tuple(candidates.zeros_at(sparsity))
        if zeros is None or zeros in known:
            break
        known.add(zeros)
        plan, reached = tried(sparsity)
        if reached <= 1 and (best is None or sparsity < best[0]):
            best = sparsity, plan
        limit = load / reached
    return best


def _counted(candidates, costs, budget, limit):
    """Returns the lowest sparsity at which the counted load is within a limit, and this load.

    `(None, None)` if there is none.
    """

    def load(sparsity):
        return budget.load(costs.at(candidates.zeros_at(sparsity)))

    low, high = 0.0, candidates.highest
    if load(high) > limit:
        return None, None
    while high - low > _STEP:
        middle = (low + high) / 2
        low, high = (low, middle) if load(middle) <= limit else (middle, high)
    return high, load(high)


def budget_of(costs, targets):
    """Returns the `Budget` of targets in MACs and parameters."""
    parts = {name: t if t < 1 else t / costs.dense[name] for name, t in targets.items()}
    return Budget({name: part for name, part in parts.items() if part < 1}, costs.dense)


def filled(candidates, costs, targets, zeros):
    """Gives channels back, one rounding step at a time, while all targets are still met.

    Groups of one size reach the next multiple at the same sparsity, so uniform sparsity alone can
    miss a budget by one step of each. The group that has lost most gets the next step back.

    Args:
        candidates: `Candidates`.
        costs: Their `Costs`.
        targets: `{"macs" or "parameters": fraction or number}`.
        zeros: Numbers of pruned units with which the targets are met.

    Returns:
        Numbers of pruned units.
    """
    budget = budget_of(costs, targets)
    zeros = list(zeros)
    requests = candidates.requests
    waiting = set(range(len(zeros)))
    while waiting:
        number = max(waiting, key=lambda i: (zeros[i] / requests[i].units, -i))
        fewer = list(zeros)
        fewer[number] -= requests[number].pattern.step(requests[number].units)
        if fewer[number] >= requests[number].zeros_now and budget.load(costs.at(fewer)) <= 1:
            zeros = fewer
        else:
            waiting.discard(number)
    return zeros


def share(plan, targets):
    """Returns the largest ratio of a cost to its target; at most 1 meets all targets."""
    return max(shares(plan, targets).values())


def shares(plan, targets):
    """Returns the ratio of each cost in MACs and parameters to its target."""
    found = {}
    for name, target in targets.items():
        before, after = getattr(plan.before, name), getattr(plan.after, name)
        if name == "macs":
            check_counted(plan.before)
        if not before:
            raise ValueError(
                check.message(
                    f"a model with {name} to reduce",
                    f"one without any, and targets={targets!r:.80}",
                    "Use another target, or shrink another model.",
                )
            )
        found[name] = after / (target * before if target < 1 else target)
    return found
