"""The callback of one round of a lottery ticket."""

from typing import Any

import numpy as np

from tfprune import _keras
from tfprune._base import validation as check
from tfprune._wrapping.strip import strip_pruning
from tfprune._wrapping.wrapper import mask_owners
from tfprune.callbacks.pruning_callback import OwnLoop, PruningCallback
from tfprune.callbacks.pruning_training import PruningTraining, TrainingPart


class RewindCopy(TrainingPart):
    """Copies the weights from which later rounds start, at one step or epoch of the training.

    Args:
        model: The wrapped model of the round.
        rewind: `(unit, number)`: when to copy the weights, or `None`.

    Attributes:
        taken: The copied weights, or `None`.
    """

    def __init__(self, model, rewind):
        self.taken: Any = None
        self._model = model
        self._rewind = rewind
        self._epochs = 0

    @property
    def steps(self):
        """Number of optimizer steps in the round so far."""
        return max(owner.pruning_step for owner in mask_owners(self._model))

    def check(self, model):
        optimizer = getattr(model, "optimizer", None)
        if optimizer is not None and self.steps == 0 and _keras.batches_done(optimizer)[0]:
            raise ValueError(
                check.message(
                    "an optimizer that has not trained yet, in each round",
                    f"one that has seen {_keras.batches_done(optimizer)[0]} batches",
                    "Create a new optimizer inside the training function, and compile the model "
                    "with it.",
                )
            )

    def end_batch(self, training):
        if self._awaits("step"):
            _keras.sync_state(training.model)
            self._take(self.steps)

    def end_epoch(self, training):
        self._epochs += 1
        if self._awaits("epoch"):
            self._take(self._epochs)

    def step(self, training, sync):
        if self._awaits("step"):
            if sync is not None and self.steps == self._rewind[1]:
                sync()
            self._take(self.steps)
        return False

    def _awaits(self, unit):
        return self.taken is None and self._rewind is not None and self._rewind[0] == unit

    def _take(self, done):
        unit, number = self._rewind
        if done == number:
            self.taken = plain_values(self._model)
        elif done > number:
            raise ValueError(
                check.message(
                    f"training to stop at {unit} {number}, to which weights are rewound",
                    f"a training that skipped it and is at {unit} {done}",
                    "With steps_per_execution, rewind to a multiple of it.",
                )
            )

    def check_used(self):
        """Raises if training did not use the callback, or ended before the weights were copied."""
        if self.steps == 0:
            raise ValueError(
                check.message(
                    "`train` to use the callback that it is given",
                    "a training in which the callback counted no step",
                    "Add it to the callbacks of model.fit, or call callback.step() after each "
                    "optimizer step.",
                )
            )
        if self._rewind is not None and self.taken is None:
            unit, number = self._rewind
            done = self.steps if unit == "step" else self._epochs
            raise ValueError(
                check.message(
                    f"training to reach {unit} {number}, to which weights are rewound",
                    f"{done} {unit}s of training in round 0",
                    f"Train for longer, or rewind to an earlier {unit}.",
                )
            )


class RoundStep(OwnLoop, PruningCallback):
    """Applies the masks of a round, and copies the weights from which later rounds start.

    Args:
        model: The wrapped model of the round.
        rewind: `(unit, number)`: when to copy the weights, or `None`.
        update: Further arguments of `UpdatePruningStep`.
    """

    def __init__(self, model, rewind, update):
        self.rewinding = RewindCopy(model, rewind)
        super().__init__(PruningTraining(self.rewinding, **update), model)

    def prune(self, sparsity):
        """Updates the trained model to the masks of the next round."""
        updater = self._training.updater
        updater.apply([(sparsity, weight) for weight in updater.weights])


def plain_values(model):
    """Returns copies of the weights of a wrapped model, without its masks."""
    return [np.array(value) for value in strip_pruning(model).get_weights()]
