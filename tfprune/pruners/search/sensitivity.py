"""An allocation from what each layer alone loses: few evaluations, no search."""

from tfprune._base import validation as check
from tfprune.pruners.search.base import described
from tfprune.pruners.search.candidate_search import CandidateSearch
from tfprune.structural.allocation import levels, tolerated


@described
class SensitivitySearch(CandidateSearch):
    """Prunes every layer up to the same loss, which each alone is measured to cost.

    Each layer (each group of filters) alone is pruned to a few levels and evaluated. What it loses
    is taken as rising with what it gives. Then one threshold of loss is found by bisection: every
    layer gives as much as it can below it, and together they meet the budget.

    What it is worth stands in the guide "Which layers give how much": in the measurements there it
    gained nothing over the same share everywhere, at fewer
    evaluations than the other searches.

    Args:
        {model}
        {budget}
        {pattern}
        {methods}
        levels: To how many levels each layer is pruned.
        {options}

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

    def __init__(
        self,
        model,
        budget,
        *,
        pattern="filter",
        criterion=None,
        rules=None,
        levels=8,
        data=None,
        objective=None,
        least=0.25,
        seed=0,
    ):
        self._levels = check.integer("levels", levels, 1, "Use for instance 8.")
        super().__init__(
            model,
            budget,
            pattern=pattern,
            criterion=criterion,
            rules=rules,
            data=data,
            objective=objective,
            least=least,
            seed=seed,
        )

    def _options(self):
        return {"levels": self._levels}

    def _search(self, session):
        allocator = session.allocator
        curves = levels(allocator, self._levels)
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
