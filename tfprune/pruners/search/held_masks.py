"""Lets the user train a candidate, and checks the model afterwards."""

import numpy as np

from tfprune import _keras
from tfprune._base import validation as check
from tfprune._wrapping.wrapper import mask_owners
from tfprune.callbacks.pruning_callback import OwnLoop, PruningCallback
from tfprune.callbacks.pruning_training import PruningTraining, TrainingPart


class _Held(TrainingPart):
    """Masks that a search has chosen."""

    follows_schedule = False


class SameWeights:
    """The weights of a model before it is trained.

    Args:
        model: The model.
    """

    def __init__(self, model):
        self._variables = list(model.weights)
        self._shapes = [tuple(variable.shape) for variable in self._variables]

    def trained(self, train, model, callback):
        """Calls the user's `train`; raises ValueError if it changes which weights there are."""
        try:
            train(model, callback)
        except Exception:
            # If the weights changed, that is the reason why training failed.
            self.check(model)
            raise
        self.check(model)

    def check(self, model):
        """Raises ValueError unless the model has the same weights, in the same shapes."""
        now = list(model.weights)
        if len(now) != len(self._variables) or any(
            one is not other or tuple(one.shape) != shape
            for one, other, shape in zip(now, self._variables, self._shapes, strict=True)
        ):
            raise ValueError(
                check.message(
                    "`train` to keep the model's layers and shapes",
                    "a model with other weights after it",
                    "Build nothing into the model, and quantize it afterwards.",
                )
            )


class HeldMasks(OwnLoop, PruningCallback):
    """Keeps the masks of a candidate through training, and checks afterwards that it did.

    Args:
        model: The wrapped model.
    """

    def __init__(self, model):
        super().__init__(PruningTraining(_Held()), model)
        self._owners = mask_owners(model)
        self._steps = self._counted()
        self._masks = [np.array(_keras.host_array(w.mask)) for w in self._weights()]

    def _weights(self):
        return [weight for owner in self._owners for weight in owner.pruned_weights]

    def _counted(self):
        return max(owner.pruning_step for owner in self._owners)

    def check(self):
        """Raises ValueError unless the model was trained, and has the same masks."""
        if self._counted() == self._steps:
            raise ValueError(
                check.message(
                    "`train` to use the callback that it is given",
                    "a training in which it counted no step",
                    "Add it to the callbacks of model.fit, or call callback.step() after each "
                    "optimizer step.",
                )
            )
        for weight, mask in zip(self._weights(), self._masks, strict=True):
            if not np.array_equal(_keras.host_array(weight.mask), mask):
                raise ValueError(
                    check.message(
                        "`train` to keep the masks",
                        f"another mask of {weight.name} after it",
                        "Leave out callbacks that update masks or restore earlier epochs.",
                    )
                )
            weight.project()
