"""Evaluation of schedules for many steps at once."""

import functools

import numpy as np

from tfprune import schedules
from tfprune.schedules.frozen import FrozenSchedule

_AHEAD = 1024
_MOST = 2**20


class Lookahead:
    """Evaluates schedules for many steps ahead at once."""

    def __init__(self):
        self._known: dict = {}

    def _window(self, schedule, step, length):
        """Returns `(schedule, first, after, due steps, sparsity)` of a range that contains `step`.

        Reuses a cached range, or evaluates one of `length` steps that begins at a multiple of it.
        """
        entry = self._known.get(id(schedule))
        if entry is None or not entry[1] <= step < entry[2]:
            first = step // length * length
            # A built-in schedule cannot change, so the next `fit` need not evaluate it again.
            fixed = length == _AHEAD and type(schedule) in schedules.built_in().values()
            due, sparsity = (_remembered if fixed else _evaluated)(schedule, first, length)
            # Keeping the schedule, too, prevents another object from getting its id.
            entry = (schedule, first, first + length, due, sparsity)
            if length == _AHEAD:
                self._known[id(schedule)] = entry
        return entry

    def latest_due(self, schedule, first, last):
        """Returns the sparsity at the latest due step in [first, last], or `None`."""
        step, length = last, _AHEAD
        while step >= first:
            _, start, _, due, sparsity = self._window(schedule, step, length)
            position = np.searchsorted(due, step, side="right") - 1
            if position >= 0:
                if due[position] < first:
                    return None
                return float(sparsity[due[position] - start])
            step = start - 1
            # Built-in schedules are not due after their end: a step of 2 ** 31 is as quick.
            if isinstance(schedule, FrozenSchedule) and 0 <= schedule.end_step < step:
                step = schedule.end_step
            # Ranges grow: a schedule that was last due long ago is soon found.
            length = min(2 * length, _MOST)
        return None

    def held(self, schedule, step):
        """Returns the sparsity that masks have at `step`: that of the latest due step, or 0."""
        value = self.latest_due(schedule, 0, step)
        return 0.0 if value is None else value


def _evaluated(schedule, first, length):
    """Returns `(due steps, sparsity at each step)` of a range."""
    due, sparsity = schedule.evaluate(np.arange(first, first + length))
    return np.flatnonzero(due) + first, sparsity


_remembered = functools.lru_cache(maxsize=64)(_evaluated)
