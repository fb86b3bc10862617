"""One run of a search: evaluates candidates, trains, and keeps records to resume from."""

from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from keras import ops

from tfprune import _keras
from tfprune._base import validation as check
from tfprune._base.progress import progress
from tfprune.pruners.records import RecordStore
from tfprune.pruners.search.held_masks import HeldMasks, SameWeights


@dataclass(frozen=True)
class Trial:
    """One candidate that was evaluated.

    Attributes:
        number: Its number, from 0.
        what: Step of the search, as text.
        zeros: Pruned units of each layer or group.
        costs: `{"sparsity", "parameters", "macs"}`, counted, not measured.
        metrics: `{name: number}` from `evaluate`.
        badness: The objective's metric, negated if more is better.
    """

    number: int
    what: str
    zeros: tuple
    costs: dict
    metrics: dict
    badness: float


class Session:
    """Evaluates and trains candidates for a search, and keeps a record of each.

    A search depends on its seed and on the candidates' metrics alone. So it is resumed by running
    it again: an evaluation or a training with a record is not repeated.

    Args:
        candidates: `Candidates`.
        make_allocator: Function from candidates to their `Allocator`.
        judge: `Judge`.
        store: `RecordStore`.
        train: The user's function, or `None`.
        recalibration: `Recalibration`, or `None`.
        seed: For trainings.
        verbose: 1 shows a progress bar.

    Attributes:
        allocator: The `Allocator`.
        trials: List of `Trial`s.
        trained: How often the model was trained.
    """

    def __init__(
        self, candidates, make_allocator, judge, store, train, recalibration, seed, verbose
    ):
        self.candidates = candidates
        self._make_allocator = make_allocator
        self.allocator = make_allocator(candidates)
        self._judge = judge
        self._store: RecordStore = store
        self._train = train
        self._recalibration = recalibration
        self._seed = seed
        self._verbose = verbose
        self._shown = ExitStack()
        self._done: Any = None
        self._known: dict = {}
        self.trials: list = []
        self.trained = 0

    @property
    def dense(self):
        """`{name: cost}` of the model without any unit pruned."""
        return self.allocator.dense

    @property
    def trains(self):
        """Whether there is a function that trains."""
        return self._train is not None

    def expect(self, evaluations):
        """Sets the largest number of evaluations, for the progress bar."""
        self._done = self._shown.enter_context(progress(evaluations, "evaluations", self._verbose))

    def finished(self):
        """Ends the progress bar."""
        self._done = None
        self._shown.close()

    def name_of(self, number):
        """Returns the name of a competitor in messages."""
        return self.candidates.requests[number].name.rpartition("/")[0]

    def knows(self, zeros):
        """Whether a candidate was evaluated since the last training."""
        return tuple(zeros) in self._known

    def model_with(self, zeros):
        """Returns the wrapped model as this candidate, ready to be judged or trained."""
        model = self.candidates.with_zeros(zeros)
        if self._recalibration is not None:
            self._recalibration()
        return model

    def judge(self, zeros, what):
        """Evaluates a candidate, or reads its record; a known candidate costs nothing.

        Args:
            zeros: Pruned units of each competitor.
            what: Step of the search, as text.

        Returns:
            A `Trial`.
        """
        zeros = tuple(int(number) for number in zeros)
        if zeros in self._known:
            return self._known[zeros]
        number = len(self.trials)
        name = f"trial_{number:05}"
        if name in self._store:
            data = self._store.data(name)
            with self._store.reading(name):
                found = tuple(data["zeros"])
            if found != zeros:
                raise ValueError(
                    check.message(
                        f"`path` to hold the evaluations of this run, {list(zeros)} as number "
                        f"{number}",
                        f"{data['zeros']}, of a run with other values of candidates",
                        "Choose another folder.",
                    )
                )
        else:
            metrics = self._judge(self.model_with(zeros))
            data = {"zeros": list(zeros), "metrics": metrics, "what": what}
            self._store.save(name, {}, data)
        return self._noted(number, zeros, what, data)

    def _noted(self, number, zeros, what, data):
        with self._store.reading(f"trial_{number:05}"):
            metrics = data["metrics"]
            badness = self._judge.badness(metrics)
        trial = Trial(number, what, zeros, self.allocator.costs(zeros), metrics, badness)
        self._known[zeros] = trial
        self.trials.append(trial)
        if self._done is not None:
            best = min(known.badness for known in self.trials)
            self._done(f"best {abs(best):.4g}")
        return trial

    def train(self, zeros):
        """Trains a candidate, or reads the record of it; then scores the units again."""
        name = f"trained_{self.trained:05}"
        model = self.model_with(zeros)
        if name in self._store:
            self._take(model, name)
        else:
            self._store.save(name, self._trained(model, self.trained))
        self._go_on()

    def judge_trained(self, zeros, what):
        """Trains and evaluates a candidate; the model is then set back."""
        number = len(self.trials)
        name = f"trial_{number:05}"
        if name not in self._store:
            before = _arrays(self.candidates.model)
            model = self.model_with(zeros)
            arrays = self._trained(model, number)
            data = {"zeros": list(zeros), "metrics": self._judge(model), "what": what}
            self._store.save(name, arrays, data)
            _restore(model, before)
        return self._noted(number, tuple(zeros), what, self._store.data(name))

    def keep(self, trial):
        """Goes on with the trained weights of a candidate that `judge_trained` evaluated."""
        self._take(self.candidates.model, f"trial_{trial.number:05}")
        self._go_on()

    def _take(self, model, name):
        arrays = self._store.arrays(name)
        with self._store.reading(name):
            _restore(model, arrays)

    def _trained(self, model, number):
        if self._seed is not None:
            keras.utils.set_random_seed(self._seed + number)
        held = HeldMasks(model)
        optimizer = getattr(model, "optimizer", None)
        SameWeights(model).trained(self._train, model, held)
        held.check()
        # An optimizer that `train` made is made again in each training.
        same = getattr(model, "optimizer", None) is optimizer
        return _arrays(model, with_optimizer=same)

    def _go_on(self):
        self.trained += 1
        self._known = {}
        self.candidates.score()
        self.allocator = self._make_allocator(self.candidates)


def _arrays(model, with_optimizer=True):
    optimizer = getattr(model, "optimizer", None) if with_optimizer else None
    states = [] if optimizer is None or not optimizer.built else optimizer.variables
    return {
        "variables": [np.array(_keras.host_array(v)) for v in model.weights],
        "seeds": [np.array(ops.convert_to_numpy(g.state)) for g in _keras.seed_generators(model)],
        "optimizer": [np.array(_keras.on_host(v)) for v in states],
    }


def _restore(model, arrays):
    for variable, value in zip(model.weights, arrays["variables"], strict=True):
        variable.assign(value)
    for generator, value in zip(_keras.seed_generators(model), arrays["seeds"], strict=True):
        generator.state.assign(value)
    optimizer = getattr(model, "optimizer", None)
    if optimizer is not None and arrays["optimizer"]:
        if not optimizer.built:
            optimizer.build(model.trainable_variables)
        for variable, value in zip(optimizer.variables, arrays["optimizer"], strict=True):
            variable.assign(value)
