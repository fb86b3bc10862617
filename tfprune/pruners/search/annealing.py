"""Simulated annealing: shares of the layers, perturbed and projected onto the budget."""

from dataclasses import dataclass

import numpy as np

from tfprune import distributions
from tfprune._base import validation as check
from tfprune.pruners.search.base import described
from tfprune.pruners.search.candidate_search import SEARCHES, CandidateSearch
from tfprune.pruners.search.result import SearchResult

_STARTS = ("uniform", "erdos_renyi_kernel", "lamp")
# The first and the last temperature, in units of the candidates' spread.
_TEMPERATURES = (1.0, 0.02)
_REDRAWN = 4


@SEARCHES.part("anneal")
@described
@dataclass(kw_only=True, eq=False, repr=False)
class SimulatedAnnealing(CandidateSearch):
    """Perturbs the shares of the layers; keeps better ones, and by chance slightly worse ones.

    The search perturbs the logarithms of the layers' densities and then multiplies all densities by
    the one factor that meets the budget, so every candidate meets it. A difference between
    candidates counts in units of the spread of all candidates so far, so a temperature has the same
    meaning for every metric. Each layer keeps at least `least` of its uniform share: accuracy
    collapses if a search may empty a layer.

    In the guide's measurements ("Search: how much each layer loses"), annealing gained nothing over
    uniform shares for filters, or over LAMP for single weights, which cost no evaluation.

    Args:
        {model}
        {budget}
        {pattern}
        {methods}
        evaluations: Number of candidates drawn, including starts. Repeated candidates are evaluated
            once.
        start: A further start: a `SearchResult` of the same model, for instance from a sensitivity
            search. Uniform shares, Erdos-Renyi-Kernel and LAMP are always starts; the search
            perturbs the best one.
        perturbation: Standard deviation of the first changes to the logarithm of a density. It
            falls with the square root of the temperature.
        {options}
        {runtime}

    {raises}

    Example:

    >>> model = keras.Sequential([
    ...     keras.Input((8,)), keras.layers.Dense(16, activation="relu", name="first"),
    ...     keras.layers.Dense(16, activation="relu", name="second"), keras.layers.Dense(1)])
    >>> model.compile("sgd", "mse")
    >>> x = np.random.default_rng(0).normal(size=(64, 8))
    >>> search = tfprune.pruners.SimulatedAnnealing(
    ...     model, {"sparsity": 0.8}, pattern="unstructured", evaluations=6)
    >>> found = search.run(
    ...     lambda model: model.evaluate(x, x[:, :1], verbose=0, return_dict=True), verbose=0)
    >>> round(found.sparsity, 2), len(found.trials)
    (0.8, 6)

    Reference:

    - [Liu et al., 2020: AutoCompress](https://arxiv.org/abs/1907.03141), which uses this search
    """

    _draws = True

    evaluations: int = 60
    start: SearchResult | None = None
    perturbation: float = 0.5

    def __post_init__(self):
        mend = "Use for instance 60."
        self.evaluations = check.integer("evaluations", self.evaluations, 1, mend)
        mend = "Use for instance 0.5."
        self.perturbation = check.positive("perturbation", self.perturbation, mend)
        if self.start is not None and not isinstance(self.start, SearchResult):
            raise TypeError(
                check.message(
                    "`start` to be a SearchResult",
                    f"start={self.start!r:.200}",
                    "Pass the result of run() of another search.",
                )
            )
        super().__post_init__()
        self._start = None if self.start is None else self._shares_of(self.start)

    def _shares_of(self, start):
        names = [name for name, *_ in self._config["competitors"]]
        shares = {row.name: row.share for row in start.allocation}
        if set(names) != set(shares):
            raise ValueError(
                check.message(
                    "`start` to be of the same model and pattern",
                    f"one of the layers {sorted(shares)[:8]}",
                    f"This one has {names[:8]}.",
                )
            )
        return [shares[name] for name in names]

    def _options(self):
        return {**super()._options(), "start": self._start}

    def _search(self, session):
        allocator = session.allocator
        session.expect(self.evaluations)
        if allocator.load(allocator.now) <= 1:
            return list(allocator.now)
        starts = list(self._starts(session).items())[: self.evaluations]
        trials = [session.judge(zeros, f"from {name}") for name, zeros in starts]
        best = now = min(trials, key=lambda trial: trial.badness)
        random = np.random.default_rng(self.seed)
        turns = self.evaluations - len(session.trials)
        for turn in range(turns):
            progress = turn / max(1, turns - 1)
            temperature = _TEMPERATURES[0] * (_TEMPERATURES[1] / _TEMPERATURES[0]) ** progress
            width = self.perturbation * temperature**0.5
            trial = session.judge(self._perturbed(session, now, width, random), "annealing")
            chance = random.uniform()
            spread = float(np.std([known.badness for known in session.trials])) or 1.0
            worse = (trial.badness - now.badness) / (spread * temperature)
            if worse <= 0 or chance < np.exp(-worse):
                now = trial
            best = min(best, trial, key=lambda known: known.badness)
        zeros = list(best.zeros)
        if session.trains:
            session.train(zeros)
        return zeros

    def _perturbed(self, session, trial, width, random):
        """Draws a few times, wider each time, until a candidate is not known yet."""
        allocator = session.allocator
        density = np.log([(n - z) / n for n, z in zip(allocator.units, trial.zeros, strict=True)])
        for _ in range(_REDRAWN):
            changed = density + random.normal(scale=width, size=len(density))
            zeros = allocator.project(np.minimum(changed, 0.0))
            if not session.knows(zeros):
                break
            width *= 2
        return zeros

    def _starts(self, session):
        """Returns `{name: zeros}` of the different allocations to start from."""
        allocator = session.allocator
        found: dict = {}
        if self._start is not None:
            given = [round(s * n) for s, n in zip(self._start, allocator.units, strict=True)]
            given = allocator.bounded(given)
            density = [(n - z) / n for n, z in zip(allocator.units, given, strict=True)]
            met = allocator.load(given) <= 1
            found["start"] = given if met else allocator.project(np.log(density))
        for name in _STARTS:
            found[name] = self._by_distribution(session, distributions.get(name))
        unique: dict = {}
        for name, zeros in found.items():
            unique.setdefault(tuple(zeros), name)
        return {name: list(zeros) for zeros, name in unique.items()}

    @staticmethod
    def _by_distribution(session, distribution):
        """Returns a distribution's zeros at the lowest sparsity that meets the budget."""
        allocator, requests = session.allocator, session.candidates.requests

        def at(sparsity):
            try:
                return allocator.bounded(distribution.zeros(requests, sparsity))
            except ValueError:
                # No layer has more to give.
                return allocator.most

        low, high = 0.0, 0.9999
        for _ in range(20):
            middle = (low + high) / 2
            low, high = (low, middle) if allocator.load(at(middle)) <= 1 else (middle, high)
        zeros = at(high)
        density = np.log([(n - z) / n for n, z in zip(allocator.units, zeros, strict=True)])
        return allocator.project(density)
