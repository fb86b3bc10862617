"""Finds the sparsity at which a shrunk model is fast enough in the runtime where it ships."""

import warnings

import numpy as np

from tfprune._base import validation as check
from tfprune.structural.targets import OutOfReach

# Parts of the range of sparsities that are measured first, and then between two of these.
_FIRST = (0.15, 0.3, 0.45, 0.6, 0.8, 1.0)
_BETWEEN = (0.25, 0.5, 0.75)
_RUNS, _FINAL_RUNS = 20, 60
# Candidates have to be this much faster than the target, since the final measurement varies.
_MARGIN = 0.97


class LatencyTarget:
    """A search for the least pruned model that meets a latency.

    Latency need not fall with the widths: a runtime may be slower at an odd number of channels. So
    candidates over the whole range are measured as they ship, all in turn, then some between the
    last that is too slow and the first that is fast enough. The chosen one is measured once more.

    Args:
        target: Largest latency, as a fraction of the model's own.
        meter: `RuntimeMeter`, entered.
        dense: The plain model.
        runtime: Name of the runtime, for messages.
    """

    def __init__(self, target, meter, dense, runtime):
        self._target, self._meter, self._dense = target, meter, dense
        self._runtime = runtime
        self._plans: dict = {}

    def search(self, make_plan, low, high):
        """Finds the plan.

        Args:
            make_plan: Function from a sparsity to a `ShrinkPlan`.
            low: Lowest sparsity to try.
            high: Highest sparsity to try.

        Returns:
            The `ShrinkPlan`, with the final measurement in `measured`.

        Raises:
            OutOfReach: If no candidate is fast enough.
        """
        tried = [low + part * (high - low) for part in _FIRST]
        shares = self._shares(make_plan, [low, *tried] if low else tried)
        fast = self._fast(shares)
        if not fast:
            raise OutOfReach(self._out_of_reach(shares))
        slower = [s for s in shares if s < fast[0]] or [low]
        start = max(slower)
        between = [start + part * (fast[0] - start) for part in _BETWEEN]
        shares = {**shares, **self._shares(make_plan, between)}
        return self._settled(self._fast(shares))

    def _fast(self, shares):
        return sorted(s for s, share in shares.items() if share <= _MARGIN * self._target)

    def _shares(self, make_plan, sparsities):
        """Returns `{sparsity: latency as a share of the model's}`, of candidates not equal."""
        new = {}
        for sparsity in sparsities:
            plan = make_plan(sparsity)
            if all(_widths(plan) != _widths(known) for known in self._plans.values()):
                self._plans[sparsity] = new[sparsity] = plan
        if not new:
            return {}
        models = {None: self._dense, **{s: plan.apply() for s, plan in new.items()}}
        found = self._meter.measure(models, _RUNS)
        # Other work on the machine disturbs the lower quartile least; the final one is the median.
        dense = found.pop(None).low
        return {sparsity: latency.low / dense for sparsity, latency in found.items()}

    def _settled(self, fast):
        """Returns the first of some plans that is fast enough when it is measured once more."""
        for sparsity in fast:
            plan = self._plans[sparsity]
            found = self._meter.measure({None: self._dense, sparsity: plan.apply()}, _FINAL_RUNS)
            plan.measured = {"before": found[None], "after": found[sparsity]}
            share = found[sparsity].median / found[None].median
            if share <= self._target:
                return plan
        warnings.warn(
            check.message(
                f"a latency of at most {self._target:g} of the model's in {self._runtime}",
                f"{share:.3g} in the final measurement, {found[sparsity]} against {found[None]}",
                "Measure on an idle machine, or lower the target a little.",
            ),
            stacklevel=4,
        )
        return plan

    def _out_of_reach(self, shares):
        best = min(shares, key=shares.__getitem__)
        plan = self._plans[best]
        macs = plan.after.macs / plan.before.macs if plan.before.macs else float("nan")
        least = np.ceil(100 * shares[best] / _MARGIN) / 100
        mend = f"Raise it to {least:.2g} or more"
        if least >= 1:
            mend = "Set a target in macs or parameters instead: fewer channels save no time here"
        if self._runtime == "keras":
            mend += (
                ", or measure where the model ships: runtime='litert' or 'onnx'. In Keras, small "
                "models spend their time on its overhead"
            )
        return check.message(
            "a latency that can be reached by removing channels",
            f"a target of {self._target:g} of the model's, while the fastest candidate takes "
            f"{shares[best]:.3g}, with {macs:.1%} of the MACs",
            f"{mend}.",
        )


def _widths(plan):
    return [(group.layers, len(group.removed)) for group in plan.groups]
