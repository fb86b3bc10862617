"""The base class of searches: their arguments, and a run that can be resumed."""

from dataclasses import KW_ONLY, dataclass, fields
from typing import Any, TypeVar

import keras

from tfprune import _keras, criteria, patterns
from tfprune._base import validation as check
from tfprune._keras.checks import check_followable
from tfprune._reports.runtime_meter import RuntimeMeter
from tfprune._updates.recalibration import learning_norms
from tfprune._wrapping.methods import Rule
from tfprune._wrapping.strip import strip_pruning
from tfprune.pruners.records import RecordStore
from tfprune.pruners.search import objective as objectives
from tfprune.pruners.search.judging import Judge
from tfprune.structural.allocation import Allocator, Budget, check_budget
from tfprune.structural.candidates import Candidates
from tfprune.structural.costs import Costs
from tfprune.structural.latency_table import LatencyTable
from tfprune.structural.targets import check_runtime

_Class = TypeVar("_Class", bound=type)
_TEXTS = {
    "{model}": """
        model: A built Sequential or Functional model without wrappers. It is copied and never
            changed. Candidates are compiled like it, if losses and metrics can be copied by
            their configs.
""",
    "{budget}": """
        budget: `{"macs" | "parameters" | "sparsity" | "latency": number}`, one or more: the highest
            costs of the result, as fractions of those of the model. MACs and parameters may be
            whole numbers. Sparsity is that of units: filters, or single weights. Latency goes with
            filters alone: candidates go by a table that is fitted to a few widths, measured on this
            machine, and the model that was found is measured itself.
""",
    "{pattern}": """
        pattern: A pattern or the name of one: "filter" searches over groups of filters that can
            be removed, all others over layers. N:M has one sparsity, so there is nothing to search.
""",
    "{methods}": """
        criterion: A criterion or the name of one, for which units go; the magnitude by default.
        rules: List of `Rule`s that exempt layers or give them another criterion.
""",
    "{options}": """
        data: Training inputs, or what `fit` takes, for the statistics of BatchNormalization and
            for criteria on gradients or activations.
        objective: An `Objective`, which says what makes a candidate better than another; or the
            name of a metric; the loss by default.
        least: The smallest share that every layer or group keeps, of the number that the same
            density everywhere would leave it.
        seed: For all that is random, so that a resumed run is the same run. Candidates that are
            drawn without a seed (`None`) cannot be kept in a folder.
""",
    "{runtime}": """
        runtime: Where a budget of latency is measured, for one example: "keras", or as a file on
            one thread in "litert", "onnx" or "saved_model".
""",
    "{raises}": """
    Raises:
        ValueError: If an argument is out of range, the model cannot be pruned so, or the budget
            cannot be reached; the message says what can be.
        TypeError: If an argument is of the wrong kind.
""",
}


def described(cls: _Class) -> _Class:
    """Completes the docstring of a search with what all searches share."""
    lines = []
    for line in (cls.__doc__ or "").splitlines():
        text = _TEXTS.get(line.strip())
        lines.append(line if text is None else text[1:-1])
    cls.__doc__ = "\n".join(lines)
    return cls


@described
@dataclass(eq=False, repr=False)
class Search:
    """Base class of all searches for how much each layer loses.

    A search is a dataclass, so it takes these arguments and its own fields. Its `__post_init__`
    checks the fields before it calls this one. A folder of evaluations belongs to one set of them.

    Args:
        {model}
        {budget}
        {pattern}
        {methods}
        {runtime}
        {options}

    {raises}
    """

    # Whether candidates are drawn at random.
    _draws = False

    model: Any
    budget: dict
    _: KW_ONLY
    pattern: Any = "filter"
    criterion: Any = None
    rules: Any = None
    data: Any = None
    objective: Any = None
    runtime: str = "keras"
    least: float = 0.25
    seed: int | None = 0

    def __post_init__(self):
        check_followable(self.model)
        check_budget(self.budget)
        self.budget = dict(self.budget)
        self.pattern = patterns.get(self.pattern)
        self.criterion = criteria.get(self.criterion)
        if isinstance(self.rules, Rule):
            self.rules = [self.rules]
        if "latency" in self.budget and not self._removes_filters:
            raise ValueError(
                check.message(
                    "whole filters that can be removed, for a budget of latency",
                    f"pattern={self.pattern!r}",
                    "Zeros make a dense runtime no faster: use the pattern Filter(), or another "
                    "budget.",
                )
            )
        self.objective = objectives.get(self.objective)
        # Keras takes the threads that it has.
        threads = None if self.runtime == "keras" else 1
        self._where = {"runtime": self.runtime, "threads": threads}
        RuntimeMeter(**self._where)
        check_runtime(self.runtime, self.budget)
        self.least = check.sparsity("least", self.least)
        mend = "Give a whole number, or None to leave random states alone."
        if self.seed is not None:
            self.seed = check.integer("seed", self.seed, 0, mend)
        self._plain = strip_pruning(self.model)
        self._recalibrates = self._checked_recalibration()
        candidates = self._candidates()
        self._table = None
        if "latency" in self.budget:
            self._table = LatencyTable(candidates, self.pattern.round_to, **self._where)
        self._allocator(candidates)
        self._config = {
            "search": type(self).__name__,
            "budget": self.budget,
            "weights": _keras.fingerprint(self._plain.weights),
            "data": _keras.fingerprint(self.data),
            "competitors": self._competitors(candidates),
            "pattern": keras.saving.serialize_keras_object(self.pattern),
            "criterion": keras.saving.serialize_keras_object(self.criterion),
            "objective": self.objective.get_config(),
            "runtime": self.runtime,
            "least": self.least,
            "seed": self.seed,
        }

    def _competitors(self, candidates):
        """Returns `[name, units]` of each competitor, and its criteria where rules change these."""
        serialize = keras.saving.serialize_keras_object
        usual, found = serialize(self.criterion), []
        for request, competitor in zip(candidates.requests, candidates.competitors, strict=True):
            own = [serialize(weight.method.criterion) for weight in competitor.scored]
            changed = own if any(one != usual for one in own) else []
            found.append([request.name, request.units, *changed])
        return found

    @property
    def _removes_filters(self):
        return isinstance(self.pattern, patterns.Filter) and self.pattern.coupled

    def _checked_recalibration(self):
        there = bool(learning_norms(self._plain))
        asked = self.objective.recalibrate
        wanted = there if asked is None else asked
        if wanted and not there:
            raise ValueError(
                check.message(
                    "a BatchNormalization that is not frozen, for recalibrate=True",
                    f"'{self._plain.name}' without any",
                    "Leave `recalibrate` out.",
                )
            )
        if wanted and self.data is None:
            raise ValueError(
                check.message(
                    "`data` for the statistics of BatchNormalization, which pruning changes",
                    "data=None",
                    "Give training inputs, or objective=Objective(recalibrate=False) to judge "
                    "candidates by the old statistics.",
                )
            )
        return wanted

    def _candidates(self):
        evidence = {
            "data": self.data if set(self.criterion.needs) & set(criteria.FROM_DATA) else None,
            "batches": self.objective.batches,
            "batch_size": self.objective.batch_size,
        }
        return Candidates(
            self.model,
            self._plain,
            self.pattern,
            self.criterion,
            None,
            self.rules,
            evidence,
        )

    def _allocator(self, candidates):
        costs = Costs(self._plain, candidates)
        if self._table is not None:
            costs = self._table.around(costs)
        return Allocator(candidates, costs, Budget(self.budget, costs.dense), self.least)

    def run(self, evaluate, path=None, train=None, verbose=1):
        """Searches.

        Args:
            evaluate: Function of a model: a wrapped one, compiled as yours. It returns a
                dictionary of numbers, as `model.evaluate(..., return_dict=True)`, from which the
                objective takes its metric; or one number, whose direction is the mode of the
                objective. Use validation data: a search that sees test data overfits to them. The
                function must not change the model.
            path: A folder in which to keep each evaluation and training when it is done. A run
                that was killed continues from there with the same result. `None` keeps them in
                memory.
            train: Function of `(model, callback)` that trains the chosen model for a while.
                `callback` keeps the masks: pass it to `fit`, or call its `step()` after each
                optimizer step of your own loop. Do not compile the model again, because its
                optimizer keeps its state.
            verbose: 1 shows a progress bar with the best so far, 0 does not.

        Returns:
            A `SearchResult`.

        Raises:
            ValueError: If the folder holds another run; the message says what differs. If
                `evaluate` fails, changes the model or returns NaN, or `train` changes shapes or
                masks or does not use the callback. Earlier evaluations stay in the folder.
            TypeError: If `evaluate` or `train` is not a function, or `evaluate` returns no number.
        """
        judge = Judge(evaluate, self.objective)
        if train is not None and not callable(train):
            mend = "Give a function of (model, callback) that trains the model."
            raise TypeError(check.message("`train` to be a function", f"{train=}", mend))
        self._check_train(train)
        if path is not None and self.seed is None and self._draws:
            raise ValueError(
                check.message(
                    "a seed where `path` is given: a run that continues draws the same candidates",
                    f"seed=None, path={str(path)!r}",
                    f"Give {type(self).__name__}(..., seed=0), or leave `path` out.",
                )
            )
        config = {**self._config, **self._options(), "trains": train is not None}
        return self._found(judge, RecordStore(path, config, "evaluations"), train, verbose)

    def _check_train(self, train):
        """Raises ValueError if the search cannot do without training, or with it."""

    def _options(self):
        """Returns the search's own options as plain data: a folder is of one set of them."""
        shared = {field.name for field in fields(Search)}
        names = [field.name for field in fields(self) if field.name not in shared]
        return {name: getattr(self, name) for name in names}

    def _found(self, judge, store, train, verbose):
        """Runs, and returns a `SearchResult`."""
        raise NotImplementedError(f"{type(self).__name__} has to search.")
