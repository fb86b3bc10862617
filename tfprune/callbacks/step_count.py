"""Counting optimizer steps, and asking schedules for many steps at once."""

from typing import Any

import numpy as np
from keras import ops

from tfprune import _keras

_AHEAD = 1024
_MOST = 2**20


class Clock:
    """Says how many optimizer steps have passed in the running epoch, and the random states."""

    def __init__(self, model):
        self._model = model
        # The one that was counted when the clock was started: compiling again brings another.
        self._optimizer: Any = None
        self.running = False
        self.was_reset = False
        self._batches = 0
        self._accumulation = 1

    def start(self, optimizer, batches, accumulation):
        self._optimizer = optimizer
        self.running, self.was_reset = True, False
        self._batches, self._accumulation = batches, accumulation

    def stop(self):
        self.running, self.was_reset = False, False

    def reset(self):
        """Called when the step was loaded from a file."""
        self.was_reset = self.was_reset or self.running
        self.running = False

    def elapsed(self, seen=None):
        """Optimizer steps since `start`; reads one number from the device.

        Args:
            seen: Batches that Keras reported since then, where it ran until the data ended. On
                TensorFlow, the execution that finds no more data still raises the optimizer's
                counter by one, and updates nothing.
        """
        if not self.running or self._optimizer is None:
            return 0
        batches, accumulation = _keras.batches_done(self._optimizer)
        if seen is not None and batches == self._batches + seen + 1:
            batches -= 1
        return batches // accumulation - self._batches // accumulation

    def seeds(self):
        return [
            ops.convert_to_numpy(generator.state).astype("int64").tolist()
            for generator in _keras.seed_generators(self._model)
        ]


class Lookahead:
    """Evaluates schedules for many steps ahead at once."""

    def __init__(self):
        self._known: dict = {}

    def _window(self, schedule, step, length):
        """`(schedule, first, after, due steps, sparsity)` of a range that `step` lies in.

        It is the one known from earlier; else one of `length` steps, which begins at a multiple.
        """
        entry = self._known.get(id(schedule))
        if entry is None or not entry[1] <= step < entry[2]:
            first = step // length * length
            due, sparsity = schedule.evaluate(np.arange(first, first + length))
            # The schedule is kept too, so that its id stays its own.
            entry = (schedule, first, first + length, np.flatnonzero(due) + first, sparsity)
            if length == _AHEAD:
                self._known[id(schedule)] = entry
        return entry

    def latest_due(self, schedule, first, last):
        """Sparsity at the latest due step in [first, last], or `None`."""
        step, length = last, _AHEAD
        while step >= first:
            _, start, _, due, sparsity = self._window(schedule, step, length)
            position = np.searchsorted(due, step, side="right") - 1
            if position >= 0:
                if due[position] < first:
                    return None
                return float(sparsity[due[position] - start])
            step = start - 1
            # Ranges grow: a schedule that was last due long ago is soon found.
            length = min(2 * length, _MOST)
        return None

    def held(self, schedule, step):
        """Sparsity at the latest due step up to `step`: what the masks hold then; 0 if none."""
        value = self.latest_due(schedule, 0, step)
        return 0.0 if value is None else value
