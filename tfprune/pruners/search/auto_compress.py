"""AutoCompress: rounds of annealing, ADMM, purification and physical shrinking."""

import pathlib

import keras
import numpy as np

from tfprune import _keras
from tfprune._base import validation as check
from tfprune._base.files import finished_at_once
from tfprune._keras.checks import check_followable
from tfprune._reports.cost import model_cost
from tfprune._updates.mask_update import MaskUpdate
from tfprune._wrapping.strip import strip_pruning
from tfprune.pruners.admm.callback import ADMM
from tfprune.pruners.records import RecordStore
from tfprune.pruners.search.annealing import SimulatedAnnealing
from tfprune.structural.allocation import check_budget
from tfprune.structural.optimizer_state import shrink_compiled


class AutoCompress:
    """Makes a model smaller in rounds: annealing finds shares, ADMM leads there, filters go.

    Each round takes an equal factor off the budget. `SimulatedAnnealing` finds which groups of
    filters give how much; `train` trains with the `ADMM` callback, which pulls the weights there
    and prunes them; filters that are left nearly empty go too (purification); the model is made
    physically smaller, and its optimizer goes on with what it remembers.

    The project's benchmarks do not measure AutoCompress yet, so no gain over gradual pruning is
    claimed: start with `PolynomialDecay`, and see the guide "Which layers give how much".

    Args:
        model: A built and compiled Sequential or Functional model without wrappers. It is copied
            and never changed.
        budget: `{"macs": ...}` or `{"parameters": ...}`, one of them: what the result has at most,
            as a fraction of what the model has.
        admm_steps: Optimizer steps of each round's training after which the masks are made.
        rounds: Number of rounds.
        rho: Strength of ADMM's pull; see `ADMM`.
        purify: Filters whose weights are smaller than this part of their group's (root of the mean
            square) go, whatever the shares say; 0 for none.
        criterion: As in `SimulatedAnnealing`, likewise the arguments that follow.
        rules: List of `Rule`s that exempt layers.
        evaluations: Evaluations of each round's search.
        start: Where a search starts.
        perturbation: How far a proposal moves.
        data: Data for criteria and for BatchNormalization.
        batches: Number of batches of `data` to use.
        batch_size: Size of the batches that arrays are cut into.
        recalibrate: Whether BatchNormalization is recalibrated before a candidate is judged.
        metric: Name of the metric that candidates are judged by.
        mode: "min" or "max", where the metric's name does not tell.
        least: The least share of each group that is kept.
        seed: Seed of the random proposals.

    Raises:
        ValueError: If an argument is out of range, or the model is not compiled or cannot be
            pruned so.
        TypeError: If an argument is of the wrong kind.

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
    >>> small = search.run(evaluate, train, verbose=0)
    >>> tfprune.model_cost(small).macs <= 0.5 * tfprune.model_cost(model).macs
    True

    Reference:

    - [Liu et al., 2020: AutoCompress](https://arxiv.org/abs/1907.03141)
    """

    def __init__(
        self,
        model,
        budget,
        admm_steps,
        *,
        criterion=None,
        rules=None,
        rounds=3,
        rho=1e-2,
        purify=0.05,
        evaluations=60,
        start=None,
        perturbation=0.5,
        data=None,
        batches=8,
        batch_size=64,
        recalibrate=None,
        metric="loss",
        mode=None,
        least=0.25,
        seed=0,
    ):
        annealing = {
            "criterion": criterion,
            "rules": rules,
            "evaluations": evaluations,
            "start": start,
            "perturbation": perturbation,
            "data": data,
            "batches": batches,
            "batch_size": batch_size,
            "recalibrate": recalibrate,
            "metric": metric,
            "mode": mode,
            "least": least,
            "seed": seed,
        }
        check_followable(model)
        check_budget(budget)
        ((self._name, self._share), *others) = budget.items()
        if others or self._name not in ("macs", "parameters") or not self._share < 1:
            raise ValueError(
                check.message(
                    "`budget` of macs or of parameters, one share",
                    f"budget={budget!r}",
                    'Use for instance {"macs": 0.3}.',
                )
            )
        if not getattr(model, "compiled", False):
            raise ValueError(
                check.message(
                    "a compiled model, whose optimizer goes on from round to round",
                    f"'{model.name}', which is not compiled",
                    'Call model.compile(optimizer, loss, metrics=["accuracy"]).',
                )
            )
        mend = "Give the optimizer steps of a round's training."
        self._steps = check.integer("admm_steps", admm_steps, 1, mend)
        self._rounds = check.integer("rounds", rounds, 1, "Use for instance 3.")
        self._rho = check.positive("rho", rho, "Use for instance 0.01.")
        self._purify = check.sparsity("purify", purify)
        self._annealing = annealing
        self._seed = seed
        self._compiled = model
        self._plain = strip_pruning(model)
        dense = model_cost(self._plain)
        self._dense = getattr(dense, self._name)
        # What cannot be done is to be known before the first round.
        SimulatedAnnealing(model, budget, **annealing)
        self._config = {
            "search": "AutoCompress",
            "budget": budget,
            "weights": _keras.fingerprint(self._plain.weights),
            "data": _keras.fingerprint(data),
            "options": [self._steps, self._rounds, self._rho, self._purify],
            "annealing": {k: repr(v) for k, v in annealing.items() if k != "data"},
        }

    def run(self, evaluate, train, path=None, verbose=1):
        """Runs all rounds that are not done yet.

        Args:
            evaluate: See `Search.run`.
            train: Function of `(model, callback)` that trains a wrapped, compiled model for at
                least `admm_steps` optimizer steps, with `callback` among the callbacks of `fit`.
                What it trains beyond these steps is with masks.
            path: A folder in which to keep what is done; a run that was killed goes on from there
                with the same result. `None` for memory alone.
            verbose: 1 shows a progress bar for each search.

        Returns:
            The smaller model: plain, and compiled with the optimizer that trained it.

        Raises:
            ValueError, TypeError: As `Search.run`; if training ends before the masks are made.
        """
        if not callable(train):
            mend = "Give a function of (model, callback) that trains the model."
            raise TypeError(check.message("`train` to be a function", f"{train=}", mend))
        RecordStore(path, self._config, "rounds")
        folder = None if path is None else pathlib.Path(path)
        model = strip_pruning(self._plain)
        _keras.compile_like(model, self._compiled)
        for number in range(1, self._rounds + 1):
            done = None if folder is None else folder / f"round_{number:02}.keras"
            if done is not None and done.exists():
                model = keras.saving.load_model(done)
                continue
            model = self._round(model, number, evaluate, train, folder, verbose)
            if done is not None:
                with finished_at_once(done) as unfinished:
                    model.save(unfinished)
        return model

    def _round(self, model, number, evaluate, train, folder, verbose):
        target = self._dense * self._share ** (number / self._rounds)
        if getattr(model_cost(model), self._name) <= target:
            return model
        search = SimulatedAnnealing(model, {self._name: int(target)}, **self._annealing)
        own = None if folder is None else folder / f"annealing_{number:02}"
        found = search.run(evaluate, own, verbose=verbose)
        admm = ADMM(
            found.sparsity,
            self._steps,
            pattern="filter",
            scope=found.to_distribution(),
            rules=self._annealing.get("rules"),
            rho=self._rho,
            every=max(1, self._steps // 10),
        )
        wrapped = admm.prune(model)
        _keras.compile_like(wrapped, model)
        _copy_optimizer(model, wrapped)
        if self._seed is not None:
            keras.utils.set_random_seed(self._seed + number)
            # Keras's files hold no random states, so each round begins with states of its own.
            for place, generator in enumerate(_keras.seed_generators(wrapped)):
                dtype = keras.backend.standardize_dtype(generator.state.dtype)
                generator.state.assign(np.array([self._seed + number, place], dtype))
        train(wrapped, admm)
        update = MaskUpdate(wrapped)
        if not any(weight.zeros for weight in update.weights):
            raise ValueError(
                check.message(
                    f"`train` to train for {self._steps} optimizer steps with its callback",
                    "a model without masks after it",
                    "Add the callback to those of model.fit, train for longer, or lower "
                    "admm_steps.",
                )
            )
        for group in update.groups:
            group.set_mask(self._purified(group))
        return shrink_compiled(wrapped)[0]

    def _purified(self, group):
        """Which channels of a group stay: the kept ones but those that are nearly empty."""
        kept = ~group.pruned
        sizes = np.sqrt(group.request({}).squares())
        empty = kept & (sizes < self._purify * np.sqrt(np.mean(sizes[kept] ** 2)))
        empty[list(group.coupling.fixed)] = False
        for units in group.coupling.sets:
            alive = units[kept[units]]
            empty[alive[np.argmax(sizes[alive])]] = False
        return kept & ~empty


def _copy_optimizer(model, other):
    """Lets the optimizer of a wrapped copy remember what that of the model does."""
    optimizer = other.optimizer
    if not optimizer.built:
        optimizer.build(other.trainable_variables)
    for one, two in zip(model.trainable_variables, other.trainable_variables, strict=True):
        pairs = zip(_keras.slots(model.optimizer, one), _keras.slots(optimizer, two), strict=True)
        for source, target in pairs:
            target.assign(_keras.on_host(source))
    singles = [_keras.single_optimizers(m.optimizer) for m in (model, other)]
    for source, target in zip(*singles, strict=True):
        target.iterations.assign(keras.ops.convert_to_numpy(source.iterations))
