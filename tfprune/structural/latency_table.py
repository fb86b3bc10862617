"""Estimates the latency of candidates from a few measurements."""

import numpy as np

from tfprune._channels.graph import without_wrappers
from tfprune._reports.runtime_meter import RuntimeMeter
from tfprune.structural.silent_channels import plan_removal

_SHARES = (0.0, 0.25, 0.5, 0.75, 0.9)
_RUNS = 20


class LatencyTable:
    """Latency as a function of MACs, measured on uniformly pruned models.

    The function interpolates linearly between the measurements and never decreases. It only ranks
    candidates; the search measures the resulting model itself.

    Args:
        candidates: `Candidates` of a model with groups of filters.
        round_to: Keep multiples of this many channels, as in `tfprune.Filter`.
        runtime: As in `tfprune.shrink`, likewise `threads`.
        threads: Number of threads, or `None` for as many as the runtime takes.
    """

    def __init__(self, candidates, round_to, runtime, threads):
        meter = RuntimeMeter(runtime, threads)
        models, macs = {}, []
        for share in _SHARES:
            zeros = [int(share * request.most_zeros) for request in candidates.requests]
            plan = plan_removal(without_wrappers(candidates.with_zeros(zeros)), round_to)
            models[str(share)] = plan.apply()
            macs.append(plan.after.macs)
        with meter:
            measured = meter.measure(models, _RUNS)
        pairs = sorted(zip(macs, (measured[name].median for name in models), strict=True))
        self._macs = np.array([count for count, _ in pairs], "float64")
        self._seconds = np.maximum.accumulate([seconds for _, seconds in pairs])

    def around(self, costs):
        """Returns `costs` extended by a latency."""
        return _WithLatency(costs, lambda macs: float(np.interp(macs, self._macs, self._seconds)))


class _WithLatency:
    """Costs of candidates that include a latency."""

    def __init__(self, costs, seconds):
        self._costs, self._seconds = costs, seconds
        self.dense = {**costs.dense, "latency": seconds(costs.dense["macs"])}

    def at(self, zeros):
        found = self._costs.at(zeros)
        return {**found, "latency": self._seconds(found["macs"])}
