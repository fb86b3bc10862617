"""AutoCompress: rounds of annealing, ADMM, purification and physical shrinking."""

from dataclasses import KW_ONLY, asdict, dataclass, field
from typing import Any

import keras
import numpy as np

from tfprune import _keras
from tfprune._base import validation as check
from tfprune._base.files import written_atomically
from tfprune._reports.cost import model_cost
from tfprune._updates.mask_update import MaskUpdate
from tfprune._wrapping.strip import strip_pruning
from tfprune.pruners.admm.callback import ADMM
from tfprune.pruners.search.annealing import SimulatedAnnealing
from tfprune.pruners.search.base import Search, described
from tfprune.pruners.search.held_masks import SameWeights
from tfprune.pruners.search.result import SearchResult
from tfprune.pruners.search.session import Trial
from tfprune.pruners.search.settling import shares
from tfprune.structural.allocation import check_budget
from tfprune.structural.optimizer_state import compile_copy, shrink_compiled


@described
@dataclass(eq=False, repr=False)
class AutoCompress(Search):
    """Makes a model smaller in rounds: annealing finds shares, ADMM prunes, filters are removed.

    Each round lowers the cost by an equal factor. `SimulatedAnnealing` finds the share of each
    group of filters. `train` trains with the `ADMM` callback, which pulls the weights towards these
    shares and prunes them. Filters that are nearly empty are pruned too (purification). Then all of
    these filters are removed, and the optimizer keeps its state for the remaining weights.

    In the guide's measurements ("Search: how much each layer loses"), AutoCompress is as accurate
    as gradual pruning with `PolynomialDecay` within the spread of the seeds, and takes twice as
    long: start with `PolynomialDecay`.

    The paper also prunes columns: the weights by which all filters of a layer read one place of
    one input channel. They narrow the matrix of a convolution that is computed as one, but a layer
    of Keras with such zeros is as large and as slow as before, so only filters are removed here. An
    input channel that loses all of its places is a filter of the layer before.

    `run` needs `train`, which must train for at least `admm_steps` optimizer steps at each call;
    further steps keep the masks.

    Args:
        {model}
            It must be compiled.
        budget: `{"macs": ...}` or `{"parameters": ...}`, one of them: the highest cost of the
            result, as a fraction of that of the model.
        admm_steps: Optimizer steps of each round's training after which the masks are made.
        {methods}
        rounds: Number of rounds.
        rho: Strength of ADMM's pull; see `ADMM`.
        purify: Filters whose weights are smaller than this fraction of those of their group (root
            mean squares) are removed in any case; 0 for none.
        evaluations: Evaluations of each round's search.
        {options}

    {raises}

    Example:

    >>> model = keras.Sequential([
    ...     keras.Input((8,)), keras.layers.Dense(16, activation="relu"),
    ...     keras.layers.Dense(16, activation="relu"), keras.layers.Dense(1)])
    >>> model.compile("adam", "mse")
    >>> x = np.random.default_rng(0).normal(size=(64, 8))
    >>> def evaluate(model):
    ...     return model.evaluate(x, x[:, :1], verbose=0, return_dict=True)
    >>> def train(model, callback):
    ...     model.fit(x, x[:, :1], batch_size=16, epochs=2, verbose=0, callbacks=[callback])
    >>> search = tfprune.pruners.AutoCompress(
    ...     model, {"macs": 0.5}, admm_steps=6, rounds=2, evaluations=4)
    >>> found = search.run(evaluate, train=train, verbose=0)
    >>> tfprune.model_cost(found.model).macs <= 0.5 * tfprune.model_cost(model).macs
    True

    Reference:

    - [Liu et al., 2020: AutoCompress](https://arxiv.org/abs/1907.03141)
    """

    _draws = True

    admm_steps: int
    _: KW_ONLY
    rounds: int = 3
    rho: float = 1e-2
    purify: float = 0.05
    evaluations: int = 60
    # Filters alone go, and no candidate is timed: these are no arguments here.
    pattern: Any = field(default="filter", init=False)
    runtime: str = field(default="keras", init=False)

    def __post_init__(self):
        check_budget(self.budget)
        ((self._name, self._share), *others) = self.budget.items()
        if others or self._name not in ("macs", "parameters") or not self._share < 1:
            raise ValueError(
                check.message(
                    "`budget` of macs or of parameters, one share",
                    f"budget={self.budget!r}",
                    'Use for instance {"macs": 0.3}.',
                )
            )
        mend = "Give the optimizer steps of a round's training."
        self.admm_steps = check.integer("admm_steps", self.admm_steps, 1, mend)
        self.rounds = check.integer("rounds", self.rounds, 1, "Use for instance 3.")
        self.rho = check.positive("rho", self.rho, "Use for instance 0.01.")
        self.purify = check.sparsity("purify", self.purify)
        mend = "Use for instance 60."
        self.evaluations = check.integer("evaluations", self.evaluations, 1, mend)
        super().__post_init__()
        self._started()

    def _started(self):
        """Returns a copy of the model, compiled alike."""
        model = strip_pruning(self._plain)
        if not _keras.compile_like(model, self.model):
            raise ValueError(
                check.message(
                    "a compiled model, whose optimizer keeps its state from round to round",
                    f"'{model.name}', which is not compiled, or with a loss or metric that "
                    "cannot be copied by its config",
                    'Call model.compile(optimizer, loss, metrics=["accuracy"]).',
                )
            )
        return model

    def _check_train(self, train):
        if train is None:
            raise ValueError(
                check.message(
                    "`train`, in which ADMM pulls the weights to the shares found",
                    "train=None",
                    "Give run(evaluate, train=...): a function of (model, callback).",
                )
            )

    def _found(self, judge, store, train, verbose):
        candidates, model = self._candidates(), self._started()
        before = model_cost(model)
        kept = {request.name: request.units for request in candidates.requests}
        trials: list = []
        for number in range(1, self.rounds + 1):
            name = f"round_{number:02}"
            file = None if store.path is None else store.path / f"{name}.keras"
            if name in store:
                with store.reading(name):
                    model, data = keras.saving.load_model(file), store.data(name)
            else:
                model, data = self._round(model, number, judge, train, store.path, verbose)
                if file is not None:
                    with written_atomically(file) as unfinished:
                        model.save(unfinished)
                store.save(name, {}, data)
            with store.reading(name):
                kept.update(data["kept"])
                trials += [
                    Trial(**{**trial, "number": len(trials) + n, "zeros": tuple(trial["zeros"])})
                    for n, trial in enumerate(data["trials"])
                ]
        allocation = shares(candidates, [r.units - kept[r.name] for r in candidates.requests])
        after = model_cost(model)
        found = SearchResult(
            method=type(self).__name__,
            metric=self.objective.metric,
            budget=dict(self.budget),
            dense={"sparsity": 0.0, "parameters": before.parameters, "macs": before.macs},
            costs={"parameters": after.parameters, "macs": after.macs},
            allocation=allocation,
            trials=trials,
            model=model,
        )
        found.costs["sparsity"] = found.sparsity
        return found

    def _round(self, model, number, judge, train, path, verbose):
        """Returns the smaller model, and the round's record."""
        dense = getattr(model_cost(self._plain), self._name)
        target = int(dense * self._share ** (number / self.rounds))
        present = getattr(model_cost(model), self._name)
        if present <= target:
            return model, {"kept": {}, "trials": []}
        search = SimulatedAnnealing(
            model,
            # A share, since small whole numbers are taken for percentages.
            {self._name: (target + 0.5) / present},
            criterion=self.criterion,
            rules=self.rules,
            evaluations=self.evaluations,
            data=self.data,
            objective=self.objective,
            least=self.least,
            seed=self.seed,
        )
        own = None if path is None else path / f"annealing_{number:02}"
        found = search.run(judge.evaluate, own, verbose=verbose)
        admm = ADMM(
            found.sparsity,
            self.admm_steps,
            pattern="filter",
            scope=found.to_distribution(),
            rules=self.rules,
            rho=self.rho,
            every=max(1, self.admm_steps // 10),
        )
        wrapped = compile_copy(admm.prune(model), model)
        self._set_random_states(wrapped, number)
        SameWeights(wrapped).trained(train, wrapped, admm)
        update = MaskUpdate(wrapped)
        if not any(weight.zeros for weight in update.weights):
            raise ValueError(
                check.message(
                    f"`train` to train for {self.admm_steps} optimizer steps with its callback",
                    "a model without masks after it",
                    "Add the callback to those of model.fit, train for longer, or lower "
                    "admm_steps.",
                )
            )
        kept = {}
        for group in update.groups:
            mask = self._purified(group)
            group.set_mask(mask)
            kept[group.request({}).name] = int(np.count_nonzero(mask))
        trials = [
            {**asdict(trial), "what": f"round {number}: {trial.what}"} for trial in found.trials
        ]
        return shrink_compiled(wrapped), {"kept": kept, "trials": trials}

    def _set_random_states(self, model, number):
        """Gives each round its own random states: files of Keras hold none."""
        if self.seed is None:
            return
        keras.utils.set_random_seed(self.seed + number)
        for place, generator in enumerate(_keras.seed_generators(model)):
            dtype = keras.backend.standardize_dtype(generator.state.dtype)
            generator.state.assign(np.array([self.seed + number, place], dtype))

    def _purified(self, group):
        """Returns the channels of a group to keep: the kept ones except those nearly empty."""
        kept = ~group.pruned
        sizes = np.sqrt(group.request({}).squares())
        empty = kept & (sizes < self.purify * np.sqrt(np.mean(sizes[kept] ** 2)))
        empty[list(group.coupling.fixed)] = False
        for units in group.coupling.sets:
            alive = units[kept[units]]
            empty[alive[np.argmax(sizes[alive])]] = False
        return kept & ~empty
