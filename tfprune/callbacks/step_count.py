"""Counting optimizer steps, in `fit` and in custom loops."""

from typing import Any

import keras
import numpy as np
from keras import ops

from tfprune import _keras
from tfprune._base import validation as check


def updates(before, batches, accumulation):
    """Returns the number of optimizer updates in `batches` batches that follow `before` others.

    Args:
        before: Number of earlier batches.
        batches: Number of batches since then.
        accumulation: Number of batches whose gradients are accumulated for one update.
    """
    return (before + batches) // accumulation - before // accumulation


def steps_in(model, batches):
    """Returns the optimizer steps in an epoch of so many batches; `None` if unknown."""
    optimizer = getattr(model, "optimizer", None)
    if batches is None or optimizer is None:
        return None
    return batches / _keras.batches_done(optimizer)[1]


class Clock:
    """Reads the optimizer steps of the current epoch, and the random states."""

    def __init__(self, model):
        self._model = model
        # The optimizer at the start of the count; compiling again replaces the model's.
        self._optimizer: Any = None
        self.running = False
        self.was_reset = False
        self._before, self._accumulation = 0, 1

    @property
    def model(self):
        """The model that is trained."""
        return self._model

    def start(self, optimizer):
        """Starts counting the steps of an optimizer; `None` counts nothing."""
        self._optimizer = optimizer
        self.running, self.was_reset = True, False
        known = (0, 1) if optimizer is None else _keras.batches_done(optimizer)
        self._before, self._accumulation = known

    def stop(self):
        """Stops counting."""
        self.running, self.was_reset = False, False

    def reset(self):
        """Called if the step was loaded from a file, or another clock took over."""
        self.was_reset = self.was_reset or self.running
        self.running = False

    def after(self, batches):
        """Returns the optimizer steps in this many batches since `start`; reads no device value."""
        return updates(self._before, batches, self._accumulation)

    def elapsed(self, seen=None):
        """Returns the optimizer steps since `start`; reads one number from the device.

        Args:
            seen: Batches that Keras reported since then, if it ran until the data ended. On
                TensorFlow, the execution that finds no more data still increments the optimizer's
                counter, without an update.
        """
        if not self.running or self._optimizer is None:
            return 0
        batches = _keras.batches_done(self._optimizer)[0] - self._before
        if seen is not None and batches == seen + 1:
            batches -= 1
        return self.after(batches)

    def seeds(self):
        """Returns the states of the model's random generators as plain numbers."""
        return [
            ops.convert_to_numpy(generator.state).astype("int64").tolist()
            for generator in _keras.seed_generators(self._model)
        ]


class StepCounter:
    """Counts the optimizer steps of a model's wrappers.

    Within an epoch, it counts Keras's batches and reads nothing from the device; at the end of
    each epoch, it reads the exact number from the optimizer.

    Args:
        model: The model in training.
        owners: Its wrappers, built. They hold the counts, so that the counts are saved.
    """

    def __init__(self, model, owners):
        self._model = model
        self._owners = owners
        self._first = self._batches = 0
        self.clock = Clock(model)

    def take_over(self):
        """Takes over the count; an outer `fit` restarts its own count when it continues."""
        for owner in self._owners:
            owner.mask_set.hand_over(self.clock)
            owner.attend()

    @property
    def is_in_charge(self):
        """Whether no other counter took over."""
        return all(owner.mask_set.clock is self.clock for owner in self._owners)

    @property
    def step(self):
        """Optimizer steps up to the start of the epoch, the maximum over all wrappers."""
        return max(owner.mask_set.step for owner in self._owners)

    def begin_epoch(self, first=0):
        """Starts counting batches, from number `first` of the epoch."""
        self._first, self._batches = first, 0
        self.take_over()
        self.clock.start(getattr(self._model, "optimizer", None))

    def measure_epoch(self, steps):
        """Resolves schedules in epochs with the number of optimizer steps in an epoch.

        Args:
            steps: Batches in an epoch; `None` if Keras does not know the number.
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
        in_epoch = steps_in(self._model, steps) or steps
        for owner in self._owners:
            owner.mask_set.set_epoch(in_epoch)

    def saw(self, batch):
        """Returns the optimizer steps of the epoch after a batch, from the batch's number."""
        self._batches = batch + 1 - self._first
        return self.clock.after(self._batches)

    def end_epoch(self, steps):
        """Reads the exact count from the optimizer.

        Args:
            steps: Batches in an epoch; `None` if Keras did not know the number in advance.
        """
        if not self.clock.running:
            return
        _keras.sync_state(self._model)
        ran_dry = _keras.backend() == "tensorflow" and (steps is None or self._batches < steps)
        self.add(self.clock.elapsed(self._batches if ran_dry else None))
        self.clock.stop()
        for owner in self._owners:
            owner.mask_set.write_variable()

    def add(self, steps):
        """Adds optimizer steps to the count of each wrapper."""
        for owner in self._owners:
            owner.mask_set.advance(steps)

    def restore_seeds(self):
        """Copies random states that were loaded from a file into the model's generators."""
        generators = _keras.seed_generators(self._model)
        for owner in self._owners:
            seeds = owner.mask_set.take_seeds()
            if seeds and len(seeds) == len(generators):
                for generator, state in zip(generators, seeds, strict=True):
                    dtype = keras.backend.standardize_dtype(generator.state.dtype)
                    generator.state.assign(np.array(state).astype(dtype))
