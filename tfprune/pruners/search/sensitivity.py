"""An allocation from the loss of each layer alone: few evaluations, no search."""

from tfprune._base import validation as check
from tfprune.pruners.search.base import described
from tfprune.pruners.search.candidate_search import CandidateSearch
from tfprune.structural.allocation import levels, tolerated


@described
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
        runtime="keras",
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
            runtime=runtime,
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
