"""Distributes pruned units over the competitors so that the model meets a budget."""

import copy
import math
import numbers

import numpy as np

from tfprune._base import validation as check

_MEND = 'Use for instance budget={"macs": 0.5}, half of the present MACs.'
KNOWN = ("sparsity", "parameters", "macs", "latency")


class Budget:
    """The largest costs that a candidate may have.

    Args:
        targets: `{"sparsity" | "parameters" | "macs" | "latency": number}`, one or more.
        dense: `{name: cost}` of the unpruned model; `None` for an unknown cost.

    Raises:
        TypeError, ValueError: If `targets` is not a valid budget.
    """

    def __init__(self, targets, dense):
        check_budget(targets)
        self.targets = dict(targets)
        self._limits = {}
        for name, value in targets.items():
            if name != "sparsity" and dense.get(name) is None:
                raise ValueError(
                    check.message(
                        f"a model whose {name} can be counted",
                        "one with inputs of unknown lengths, or layers that are not counted",
                        "Give its keras.Input a full shape, or use another budget; "
                        "tfprune.model_cost(model) names the layers.",
                    )
                )
            if name == "sparsity":
                self._limits[name] = 1 - value
            else:
                self._limits[name] = value * dense[name] if value < 1 else value

    def load(self, costs):
        """Returns the largest ratio of a cost to its budget; at most 1 meets the budget."""
        return max(
            (1 - costs[name] if name == "sparsity" else costs[name]) / limit
            for name, limit in self._limits.items()
        )

    def __str__(self):
        return ", ".join(f"{name} {value:g}" for name, value in self.targets.items())


def check_budget(targets):
    """Raises TypeError or ValueError if `targets` is not a valid budget."""
    if not isinstance(targets, dict):
        raise TypeError(check.message("`budget` to be a dictionary", f"budget={targets!r}", _MEND))
    if not targets or any(name not in KNOWN for name in targets):
        expected = "`budget` for one or more of " + ", ".join(map(repr, KNOWN))
        raise ValueError(check.message(expected, f"budget={targets!r}", _MEND))
    for name, value in targets.items():
        if not isinstance(value, numbers.Real) or isinstance(value, bool):
            raise TypeError(check.message(f"{name} to be a number", f"{value!r}", _MEND))
        value = float(value)
        if name == "sparsity":
            check.sparsity("sparsity", value)
        # A model has more than 100 of them, so a number up to there is a percentage.
        whole = name in ("parameters", "macs") and value > 100 and value.is_integer()
        if not (0 < value < 1 or whole):
            expected = f"{name} as a fraction, between 0 and 1"
            if name in ("parameters", "macs"):
                expected += ", or a whole number above 100"
            mend = f"Did you mean {value / 100:g}?" if 1 < value <= 100 else _MEND
            raise ValueError(check.message(expected, f"{value!r}", mend))


class Allocator:
    """Finds numbers of pruned units that meet a budget.

    Args:
        candidates: `Candidates`.
        costs: Their `Costs`, or any object with the same `at` method.
        budget: The `Budget`.
        least: The smallest number of units that every competitor keeps, as a share of the number
            that it would keep at a uniform density.

    Attributes:
        units: Number of units of each competitor.
        most: Largest number of units of each competitor that may be pruned.
        now: Number of units of each competitor that are already pruned.

    Raises:
        ValueError: If the budget cannot be met.
    """

    def __init__(self, candidates, costs, budget, least=0.0):
        self._costs, self._budget, self._factor = costs, budget, 1.0
        requests = candidates.requests
        self.units = [request.units for request in requests]
        self.now = [request.zeros_now for request in requests]
        self._steps = [request.pattern.step(request.units) for request in requests]
        self.most = [self._rounded_down(i, r.most_zeros) for i, r in enumerate(requests)]
        if self.load(self.most) > 1:
            raise ValueError(self._out_of_reach())
        if least:
            kept = [n - z for n, z in zip(self.units, self.uniform(), strict=True)]
            self.most = [
                max(now, min(most, self._rounded_down(i, n - max(1, math.ceil(least * k)))))
                for i, (now, most, n, k) in enumerate(
                    zip(self.now, self.most, self.units, kept, strict=True)
                )
            ]

    def _out_of_reach(self):
        costs = self._costs.at(self.most)
        reached = ", ".join(
            f"{name} {costs[name]:,.3g}"
            + (f" ({costs[name] / self._costs.dense[name]:.1%})" if name != "sparsity" else "")
            for name in self._budget.targets
        )
        return check.message(
            "a budget that can be reached by pruning all but one unit of each layer",
            f"budget={self._budget.targets!r}, while the smallest model still has {reached}",
            "Raise the budget, or exempt fewer layers.",
        )

    @property
    def dense(self):
        """`{name: cost}` of the unpruned model."""
        return self._costs.dense

    def costs(self, zeros):
        """Returns `{name: cost}` for these numbers of pruned units."""
        return self._costs.at(zeros)

    def load(self, zeros):
        """Returns the ratio of the cost to the budget; at most 1 meets the budget."""
        return self._budget.load(self._costs.at(zeros)) / self._factor

    def tightened(self, factor):
        """Returns an allocator for this fraction of the budget; `None` if it cannot be met."""
        tighter = copy.copy(self)
        tighter._factor = factor
        return tighter if tighter.load(tighter.most) <= 1 else None

    def _rounded_down(self, number, zeros):
        """Lowers a number of pruned units until a multiple of `round_to` is kept."""
        step, units = self._steps[number], self.units[number]
        kept = max(units - zeros, 0)
        return max(0, units - max(step, -(-kept // step) * step)) if step > 1 else zeros

    def step(self, number):
        """Returns how many units of a competitor are pruned together, for `round_to`."""
        return self._steps[number]

    def bounded(self, zeros):
        """Clips numbers of pruned units to the range from `now` to `most`."""
        return [self.bounded_one(i, number) for i, number in enumerate(zeros)]

    def bounded_one(self, number, zeros):
        """Clips the number of one competitor."""
        return max(self.now[number], self._rounded_down(number, min(self.most[number], int(zeros))))

    def uniform(self):
        """Returns the numbers that give every competitor the same density."""
        return self.project([0.0] * len(self.units))

    def project(self, logarithms):
        """Scales densities by a common factor until they meet the budget; returns the numbers.

        Args:
            logarithms: List of logarithms of densities.
        """

        def at(shift):
            densities = np.exp(np.minimum(0.0, np.asarray(logarithms) + shift))
            return self.bounded(
                [n - max(1, round(n * d)) for n, d in zip(self.units, densities, strict=True)]
            )

        # At the upper end all densities are 1; at the lower end each competitor keeps one unit.
        high = -float(np.min(logarithms, initial=0.0))
        low = -float(np.max(logarithms, initial=0.0)) - math.log(max(self.units) + 1) - 1
        if self.load(at(high)) <= 1:
            return at(high)
        for _ in range(60):
            middle = (low + high) / 2
            low, high = (middle, high) if self.load(at(middle)) <= 1 else (low, middle)
        return self.filled(at(low), logarithms)

    def filled(self, zeros, preferred=None):
        """Restores units while the budget has room for them, the densest competitors first.

        Args:
            zeros: Numbers of pruned units that meet the budget.
            preferred: One number for each competitor; competitors with the highest come first.
        """
        zeros = list(zeros)
        by_rank = sorted(
            range(len(zeros)), key=lambda i: -(preferred[i] if preferred is not None else 0)
        )
        for i in by_rank:
            step = self._steps[i]
            low, high = 0, (zeros[i] - self.now[i]) // step
            while low < high:
                middle = (low + high + 1) // 2
                fewer = [*zeros[:i], zeros[i] - middle * step, *zeros[i + 1 :]]
                low, high = (middle, high) if self.load(fewer) <= 1 else (low, middle - 1)
            zeros[i] -= low * step
        return zeros


def levels(allocator, number):
    """Returns a few numbers of pruned units to try for each competitor, starting from `now`."""
    found = []
    for i, (now, most) in enumerate(zip(allocator.now, allocator.most, strict=True)):
        steps = [now + (most - now) * level / number for level in range(number + 1)]
        found.append(sorted({allocator.bounded_one(i, round(step)) for step in steps}))
    return found


def tolerated(allocator, curves):
    """Prunes every competitor up to the same loss, the smallest that meets the budget.

    A curve gives the loss of the model when a single competitor is pruned. Curves are made
    monotone and interpolated linearly.

    Args:
        allocator: The `Allocator`.
        curves: One list of `(pruned units, loss)` for each competitor, in rising order, starting
            from the units that are already pruned.

    Reference:
        The rule of FastNAS in NVIDIA's Model Optimizer: one threshold of loss for all.
    """
    rising = [
        (np.array([z for z, _ in curve]), np.maximum.accumulate([loss for _, loss in curve]))
        for curve in curves
    ]

    def at(tolerance):
        return allocator.bounded([most_tolerated(*curve, tolerance) for curve in rising])

    low = min(float(losses[0]) for _, losses in rising)
    high = max(float(losses[-1]) for _, losses in rising)
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (low, middle) if allocator.load(at(middle)) <= 1 else (middle, high)
    fewer, more = np.array(at(low)), np.array(at(high))
    if allocator.load(more) > 1:
        # All curves end below the threshold: lower all densities by the same factor.
        densities = [(n - z) / n for n, z in zip(allocator.units, more, strict=True)]
        return allocator.project(np.log(densities))
    # Where a curve is flat, many units cross the threshold at once.
    low, high = 0.0, 1.0
    for _ in range(40):
        middle = (low + high) / 2
        found = allocator.bounded(fewer + middle * (more - fewer))
        low, high = (low, middle) if allocator.load(found) <= 1 else (middle, high)
    return allocator.filled(allocator.bounded(fewer + high * (more - fewer)))


def most_tolerated(amounts, losses, tolerance):
    """Returns the largest amount of pruning whose loss is within the tolerance.

    Args:
        amounts: Measured amounts, in rising order.
        losses: The loss at each, never falling. An infinite one is not interpolated to.
        tolerance: The largest loss allowed. Below all losses, the result is the first amount.
    """
    last = int(np.searchsorted(losses, tolerance, side="right")) - 1
    if last < 0 or last == len(losses) - 1 or not np.isfinite(losses[last + 1]):
        return amounts[max(last, 0)]
    share = (tolerance - losses[last]) / (losses[last + 1] - losses[last])
    return amounts[last] + share * (amounts[last + 1] - amounts[last])
