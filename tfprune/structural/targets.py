"""Finds the sparsity at which a shrunk model meets targets in MACs, parameters or latency."""

import numbers

from tfprune._base import validation as check

_MEND = 'Use for instance targets={"macs": 0.5}, half of the present MACs.'
_KNOWN = ("macs", "parameters", "latency")
_RUNS = 20
# Within this distance of a target, further steps would not keep another channel.
_CLOSE = 0.005


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
                f"targets={targets!r}, while a model with one channel per group still has "
                + ", ".join(f"{name} {value:.3g} times its target" for name, value in reached),
                "Raise the targets, or exempt fewer layers: plan_shrink(model) lists the channels "
                "that are kept.",
            )
        )
    for _ in range(12):
        if best_share > 1 - _CLOSE or high - low < 1e-3:
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
    return best


def share(plan, targets, batch_size=1):
    """Returns the largest ratio of a cost to its target; at most 1 meets all targets."""
    return max(_shares(plan, targets, batch_size).values())


def _shares(plan, targets, batch_size):
    """Returns the ratio of each cost to its target."""
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
                        "one whose inputs have unknown lengths",
                        "Give its keras.Input a full shape, or use another target.",
                    )
                )
        shares[name] = after / (target * before if target < 1 else target)
    return shares
