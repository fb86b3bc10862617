"""The callback of one round of a lottery ticket."""

import numpy as np

from tfprune import _keras
from tfprune._base import validation as check
from tfprune._wrapping.strip import strip_pruning
from tfprune._wrapping.wrapper import mask_owners
from tfprune.callbacks import UpdatePruningStep


class RoundStep(UpdatePruningStep):
    """Keeps the masks of a round, and takes the weights that later rounds begin with.

    Args:
        model: The wrapped model of the round.
        rewind: `(unit, number)`: when to take the weights, or `None`.
        update: Further arguments of `UpdatePruningStep`.
    """

    def __init__(self, model, rewind, update):
        self.taken = None
        self._rewind = rewind
        self._model_of_round = model
        self._epochs = 0
        super().__init__(model, **update)

    def set_model(self, model):
        optimizer = getattr(model, "optimizer", None)
        if optimizer is not None and self._steps() == 0 and _keras.batches_done(optimizer)[0]:
            raise ValueError(
                check.message(
                    "an optimizer that has not trained yet, in each round",
                    f"one that has seen {_keras.batches_done(optimizer)[0]} batches",
                    "Make a new optimizer inside the function that trains, and compile the model "
                    "with it.",
                )
            )
        super().set_model(model)

    def _steps(self):
        return max(owner.pruning_step for owner in mask_owners(self._model_of_round))

    def on_train_batch_end(self, batch, logs=None):
        super().on_train_batch_end(batch, logs)
        if self._awaits("step"):
            self._sync()
            self._take(self._steps())

    def on_epoch_end(self, epoch, logs=None):
        super().on_epoch_end(epoch, logs)
        self._epochs += 1
        if self._awaits("epoch"):
            self._take(self._epochs)

    def step(self, sync=None):
        updated = super().step(sync)
        if self._awaits("step"):
            if sync is not None and self._steps() == self._rewind[1]:
                sync()
            self._take(self._steps())
        return updated

    def _awaits(self, unit):
        return self.taken is None and self._rewind is not None and self._rewind[0] == unit

    def _take(self, done):
        unit, number = self._rewind
        if done == number:
            self.taken = plain_values(self._model_of_round)
        elif done > number:
            raise ValueError(
                check.message(
                    f"training to stop at {unit} {number}, to which weights are rewound",
                    f"{unit} {done} after the one before",
                    "With steps_per_execution, rewind to a multiple of it.",
                )
            )

    def check_used(self):
        """Raises if training did without the callback, or ended before the weights were taken."""
        if self._steps() == 0:
            raise ValueError(
                check.message(
                    "`train` to use the callback that it is given",
                    "a training in which it counted no step",
                    "Add it to the callbacks of model.fit, or call callback.step() after each "
                    "optimizer step.",
                )
            )
        if self._rewind is not None and self.taken is None:
            unit, number = self._rewind
            done = self._steps() if unit == "step" else self._epochs
            raise ValueError(
                check.message(
                    f"training to reach {unit} {number}, to which weights are rewound",
                    f"{done} {unit}s of training in round 0",
                    "Train for longer, or rewind to an earlier one.",
                )
            )

    def prune(self, sparsity):
        """Gives the trained model the masks of the next round."""
        self._update([(sparsity, weight) for weight in pruned_weights(self._model_of_round)])


def pruned_weights(model):
    """Returns all `PrunedWeight`s of a wrapped model."""
    return [weight for owner in mask_owners(model) for weight in owner.pruned_weights]


def plain_values(model):
    """Returns copies of the weights that a wrapped model has without its masks."""
    return [np.array(value) for value in strip_pruning(model).get_weights()]
