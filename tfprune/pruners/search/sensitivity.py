"""An allocation from the loss of each layer alone: few evaluations, no search."""

from dataclasses import dataclass

from tfprune._base import validation as check
from tfprune.pruners.search.base import described
from tfprune.pruners.search.candidate_search import SEARCHES, CandidateSearch
from tfprune.structural.allocation import levels, tolerated


@SEARCHES.part("sensitivity")
@described
@dataclass(kw_only=True, eq=False, repr=False)
class SensitivitySearch(CandidateSearch):
    """Prunes every layer up to the same loss, measured with this layer alone pruned.

    Each layer (each group of filters) is pruned alone to a few levels and evaluated. The losses are
    made to rise with the pruned share. Bisection then finds one threshold of loss: every layer is
    pruned as far as the threshold allows, and together they meet the budget.

    Of the searches, start with this one: it needs the fewest evaluations. In the guide's
    measurements ("Search: how much each layer loses"), it gained at most one point over uniform
    shares, and mostly none.

    Args:
        {model}
        {budget}
        {pattern}
        {methods}
        levels: Number of levels to which each layer is pruned.
        {options}
        {runtime}

    {raises}

    Example:

    >>> model = keras.Sequential([
    ...     keras.Input((8,)), keras.layers.Dense(16, activation="relu", name="first"),
    ...     keras.layers.Dense(16, activation="relu", name="second"), keras.layers.Dense(1)])
    >>> model.compile("sgd", "mse")
    >>> x = np.random.default_rng(0).normal(size=(64, 8))
    >>> search = tfprune.pruners.SensitivitySearch(model, {"macs": 0.5}, levels=4)
    >>> found = search.run(
    ...     lambda model: model.evaluate(x, x[:, :1], verbose=0, return_dict=True), verbose=0)
    >>> len(found.trials)   # the dense model, four levels of two layers, the one that was found
    10
    """

    levels: int = 8

    def __post_init__(self):
        self.levels = check.integer("levels", self.levels, 1, "Use for instance 8.")
        super().__post_init__()

    def _search(self, session):
        allocator = session.allocator
        curves = levels(allocator, self.levels)
        session.expect(2 + sum(len(numbers) - 1 for numbers in curves))
        if allocator.load(allocator.now) <= 1:
            return list(allocator.now)
        measured = []
        for i, numbers in enumerate(curves):
            curve = []
            for number in numbers:
                zeros = list(allocator.now)
                zeros[i] = number
                trial = session.judge(zeros, f"{session.name_of(i)} alone")
                curve.append((number, trial.badness))
            measured.append(curve)
        zeros = tolerated(allocator, measured)
        session.judge(zeros, "all together")
        if session.trains:
            session.train(zeros)
        return zeros
