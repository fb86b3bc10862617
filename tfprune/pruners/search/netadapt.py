"""NetAdapt: one small step of the budget after the other, each taken where it hurts least."""

import math
from dataclasses import dataclass

import numpy as np

from tfprune._base import validation as check
from tfprune.pruners.search.base import described
from tfprune.pruners.search.candidate_search import SEARCHES, CandidateSearch

# The authors' first step, as a fraction of the unpruned model.
_FIRST = 0.025
# Where `steps` is None, the last step is at least this fraction of the first.
_LAST = 0.1


@SEARCHES.part("netadapt")
@described
@dataclass(kw_only=True, eq=False, repr=False)
class NetAdapt(CandidateSearch):
    """Approaches the budget in steps, each time pruning the layer where it hurts least.

    In each step, every layer (every group of filters) is a candidate: it loses as many units as the
    step needs, a number computed again each time. The best candidate by `evaluate` is kept.
    With `train`, the search trains the chosen model after each step, without resetting its
    optimizer, and scores the units again. Candidates are judged without training, because the same
    training steps gain more when they all go to the chosen model.

    In the guide's measurements ("Search: how much each layer loses"), NetAdapt gained nothing over
    uniform shares, which cost no evaluation.

    Args:
        {model}
        {budget}
        {pattern}
        {methods}
        steps: Number of steps to the budget. `None` makes the first step 2.5 % of the model, and
            stops adding steps when `decay` has made the last one a tenth of the first.
        decay: Size of each step as a fraction of the previous one, in (0, 1].
        candidates: Number of layers to try in each step: the least sensitive ones at their last
            trial. `None` tries all.
        train_candidates: Whether `train` trains every candidate before its evaluation, as in the
            paper, and not only the chosen one. This multiplies the training time by their number.
        {options}
        {runtime}

    {raises}

    Example:

    >>> model = keras.Sequential([
    ...     keras.Input((8,)), keras.layers.Dense(16, activation="relu", name="first"),
    ...     keras.layers.Dense(16, activation="relu", name="second"), keras.layers.Dense(1)])
    >>> model.compile("sgd", "mse")
    >>> x = np.random.default_rng(0).normal(size=(64, 8))
    >>> search = tfprune.pruners.NetAdapt(model, {"macs": 0.5}, steps=3)
    >>> found = search.run(
    ...     lambda model: model.evaluate(x, x[:, :1], verbose=0, return_dict=True), verbose=0)
    >>> found.costs["macs"] <= 0.5 * found.dense["macs"]
    True
    >>> small = found.model   # plain, and compiled as the model was: train it

    Reference:

    - [Yang et al., 2018: NetAdapt](https://arxiv.org/abs/1804.03230)
    """

    steps: int | None = None
    decay: float = 0.96
    candidates: int | None = None
    train_candidates: bool = False

    def __post_init__(self):
        mend = "Give a whole number, or None."
        if self.steps is not None:
            self.steps = check.integer("steps", self.steps, 1, mend)
        self.decay = check.positive("decay", self.decay, "Use for instance 0.96.")
        if self.decay > 1:
            received = f"decay={self.decay}"
            raise ValueError(
                check.message("`decay` to be at most 1", received, "Use for instance 0.96.")
            )
        if self.candidates is not None:
            self.candidates = check.integer("candidates", self.candidates, 1, mend)
        self.train_candidates = bool(self.train_candidates)
        super().__post_init__()

    def _check_train(self, train):
        if self.train_candidates and train is None:
            raise ValueError(
                check.message(
                    "`train` for train_candidates=True",
                    "train=None",
                    "Give run(evaluate, train=...), or leave train_candidates out.",
                )
            )

    def _search(self, session):
        zeros = list(session.allocator.now)
        loads = loads_of(session.allocator.load(zeros), self.steps, self.decay)
        session.expect(len(loads) * (self.candidates or len(zeros)))
        worth: dict = {}
        for step, load in enumerate(loads, 1):
            # Where no layer alone can give the whole step, several give a part of it each.
            while session.allocator.load(zeros) > load:
                chosen, winner = self._best(session, zeros, load, step, worth)
                zeros = list(chosen.zeros)
                if session.trains:
                    session.keep(chosen) if winner else session.train(zeros)
        return zeros

    def _best(self, session, zeros, load, step, worth):
        """Returns the best `Trial` of a step, and whether it is already trained."""
        options = self._candidates_of(session.allocator, zeros, load)
        if self.candidates is not None and len(worth) >= len(options):
            known = sorted(options, key=lambda i: (worth.get(i, np.inf), i))
            options = {i: options[i] for i in known[: self.candidates]}
        trials = {}
        for i, changed in options.items():
            what = f"step {step}: {session.name_of(i)}"
            judge = session.judge_trained if self.train_candidates else session.judge
            trials[i] = judge(changed, what)
            worth[i] = trials[i].badness
        best = min(trials, key=lambda i: (trials[i].badness, i))
        return trials[best], self.train_candidates

    @staticmethod
    def _candidates_of(allocator, zeros, load):
        """Returns `{competitor: zeros}` for those that can make the whole step, else for all."""
        whole, part = {}, {}
        for i, most in enumerate(allocator.most):
            changed = list(zeros)
            changed[i] = most
            if most <= zeros[i]:
                continue
            if allocator.load(changed) > load:
                part[i] = changed
                continue
            low, high = zeros[i], most
            while high - low > allocator.step(i):
                changed[i] = allocator.bounded_one(i, (low + high) // 2)
                if changed[i] <= low:
                    changed[i] = min(high, low + allocator.step(i))
                if allocator.load(changed) <= load:
                    if changed[i] == high:
                        break
                    high = changed[i]
                else:
                    low = changed[i]
            changed[i] = high
            whole[i] = changed
        if not whole and not part:
            raise ValueError(
                check.message(
                    "a layer that can lose more units",
                    f"none, at {allocator.load(zeros):.3g} times the budget",
                    "Lower `least`, or raise the budget.",
                )
            )
        return whole or part


def loads_of(start, steps, decay):
    """Returns the cost to reach after each step, as a multiple of the budget; the last is 1.

    Args:
        start: Cost of the model, as a multiple of the budget.
        steps: Number of steps, or `None`.
        decay: Size of each step as a fraction of the one before.
    """
    missing = start - 1
    if missing <= 0:
        return []
    if steps is None:
        steps, longest = 1, math.inf if decay == 1 else math.log(_LAST) / math.log(decay)
        while _first(missing, steps, decay) > _FIRST * start and steps < longest:
            steps += 1
    sizes = [_first(missing, steps, decay) * decay**i for i in range(steps)]
    return [*(start - sum(sizes[:i]) for i in range(1, steps)), 1.0]


def _first(missing, steps, decay):
    return missing / sum(decay**i for i in range(steps))
