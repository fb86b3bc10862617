"""Asking schedules for many steps at once."""

import numpy as np

_AHEAD = 1024
_MOST = 2**20


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
