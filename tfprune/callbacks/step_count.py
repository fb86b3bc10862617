"""Counting optimizer steps, in `fit` and in loops of one's own."""

from typing import Any

import keras
import numpy as np
from keras import ops

from tfprune import _keras
from tfprune._base import validation as check


def updates(before, batches, accumulation):
    """Returns the optimizer updates that `batches` make after `before` others.

    Args:
        before: Batches that the optimizer had seen.
        batches: Batches since then.
        accumulation: Batches whose gradients are accumulated for one update.
    """
    return (before + batches) // accumulation - before // accumulation


class Clock:
    """Says how many optimizer steps have passed in the running epoch, and the random states."""

    def __init__(self, model):
        self._model = model
        # The one that was counted when the clock was started: compiling again brings another.
        self._optimizer: Any = None
        self.running = False
        self.was_reset = False
        self._before, self._accumulation = 0, 1

    def start(self, optimizer):
        """Starts to count the steps of an optimizer; `None` counts nothing."""
        self._optimizer = optimizer
        self.running, self.was_reset = True, False
        known = (0, 1) if optimizer is None else _keras.batches_done(optimizer)
        self._before, self._accumulation = known

    def stop(self):
        """Stops counting."""
        self.running, self.was_reset = False, False

    def reset(self):
        """Called when the step was loaded from a file, or another clock took over."""
        self.was_reset = self.was_reset or self.running
        self.running = False

    def after(self, batches):
        """Optimizer steps since `start` if this many batches were seen; reads nothing."""
        return updates(self._before, batches, self._accumulation)

    def elapsed(self, seen=None):
        """Optimizer steps since `start`; reads one number from the device.

        Args:
            seen: Batches that Keras reported since then, where it ran until the data ended. On
                TensorFlow, the execution that finds no more data still raises the optimizer's
                counter by one, and updates nothing.
        """
        if not self.running or self._optimizer is None:
            return 0
        batches = _keras.batches_done(self._optimizer)[0] - self._before
        if seen is not None and batches == seen + 1:
            batches -= 1
        return self.after(batches)

    def seeds(self):
        """The states of the model's random generators, as plain numbers."""
        return [
            ops.convert_to_numpy(generator.state).astype("int64").tolist()
            for generator in _keras.seed_generators(self._model)
        ]


class StepCounter:
    """Counts the optimizer steps of a model's wrappers.

    Within an epoch it counts Keras's batches and reads nothing from the device; at the end of each
    epoch it takes the exact number from the optimizer.

    Args:
        model: The model that is trained.
        owners: Its wrappers, built. They hold the counts, so that files keep them.
    """

    def __init__(self, model, owners):
        self._model = model
        self._owners = owners
        self._first = self._batches = 0
        self.clock = Clock(model)

    def take_over(self):
        """Counts from now on, whoever did before; an outer fit begins again when it goes on."""
        for owner in self._owners:
            owner.mask_set.hand_over(self.clock)
            owner.attend()

    @property
    def is_in_charge(self):
        """Whether no other counter took over."""
        return all(owner.mask_set.clock is self.clock for owner in self._owners)

    @property
    def step(self):
        """Optimizer steps up to the start of the epoch, the most of all wrappers."""
        return max(owner.mask_set.step for owner in self._owners)

    def begin_epoch(self, first=0):
        """Begins to count batches, from number `first` of the epoch."""
        self._first, self._batches = first, 0
        self.take_over()
        self.clock.start(getattr(self._model, "optimizer", None))

    def measure_epoch(self, steps):
        """Tells schedules that count in epochs how many optimizer steps an epoch has.

        Args:
            steps: Batches in an epoch; `None` if Keras does not know.
        """
        waiting = [w for owner in self._owners for w in owner.pruned_weights if w.awaits_epochs]
        if not waiting:
            return
        if steps is None:
            raise ValueError(
                check.message(
                    "data of known length, for a schedule that counts in epochs",
                    f"data of unknown length, and {waiting[0].method.schedule!r}",
                    "Give steps_per_epoch=... to from_epochs(), or to fit().",
                )
            )
        optimizer = getattr(self._model, "optimizer", None)
        accumulation = 1 if optimizer is None else _keras.batches_done(optimizer)[1]
        for owner in self._owners:
            owner.mask_set.set_epoch(steps / accumulation)

    def saw(self, batch):
        """Returns the optimizer steps of the epoch, by count, after a batch."""
        self._batches = batch + 1 - self._first
        return self.clock.after(self._batches)

    def end_epoch(self, steps):
        """Takes the exact count from the optimizer.

        Args:
            steps: Batches in an epoch, as Keras knew them beforehand; `None` if it did not.
        """
        if not self.clock.running:
            return
        _keras.sync_state(self._model)
        ran_dry = _keras.backend() == "tensorflow" and (steps is None or self._batches < steps)
        self.add(self.clock.elapsed(self._batches if ran_dry else None))
        self.clock.stop()

    def add(self, steps):
        """Adds optimizer steps to the count of each wrapper."""
        for owner in self._owners:
            owner.mask_set.advance(steps)

    def restore_seeds(self):
        """Random states that a file brought along go back into the model's generators."""
        generators = _keras.seed_generators(self._model)
        for owner in self._owners:
            seeds = owner.mask_set.take_seeds()
            if seeds and len(seeds) == len(generators):
                for generator, state in zip(generators, seeds, strict=True):
                    dtype = keras.backend.standardize_dtype(generator.state.dtype)
                    generator.state.assign(np.array(state).astype(dtype))
