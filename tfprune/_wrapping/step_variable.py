"""The pruning step of a wrapper as a variable, which state trees and Orbax carry."""

import numpy as np

from tfprune import _keras

# The step, and four numbers of two words each.
_WORDS = 1 + 2 * 4


class StepVariable:
    """A variable with the pruning step, and with the numbers that count epochs.

    `MaskSet` holds the true state. It writes the variable before other code reads it, not at every
    step. `changes` finds out whether other code, such as `set_state_tree`, wrote the variable.

    Args:
        owner: The wrapper, which gets the variable.
    """

    def __init__(self, owner):
        self.variable = owner.add_state("pruning_state", (_WORDS,))
        # Loops outside of Keras keep values of the variables and write them back later.
        self._written = {tuple(_encoded({}).tolist())}
        self._latest = _encoded({})

    def write(self, state):
        """Brings the variable up to date with `MaskSet.state()`."""
        values = _encoded(state)
        if np.array_equal(values, self._latest) or not _keras.is_readable(self.variable):
            return
        self._written.add(tuple(values.tolist()))
        self._latest = values
        self.variable.assign(values)

    def changes(self, earlier_too=False):
        """Returns a state for `MaskSet.set_state` if other code wrote the variable, else `None`.

        Args:
            earlier_too: Whether a value that `write` wrote earlier counts as a change.
        """
        if _keras.is_tracing_without_state() or not _keras.is_readable(self.variable):
            return None
        values = np.asarray(_keras.host_array(self.variable))
        known = np.array_equal(values, self._latest)
        if known or (not earlier_too and tuple(values.tolist()) in self._written):
            return None
        self._latest = values.copy()
        self._written.add(tuple(values.tolist()))
        return _decoded(values)


def _encoded(state):
    """int32: the step, and the bits of four float64 numbers, which are 0 while unknown."""
    epoch, start, steps = state.get("epoch") or (-1, 0, 0)
    numbers = [state.get("steps_per_epoch") or 0, epoch + 1, start, steps]
    bits = np.array(numbers, "float64").view("int32")
    return np.concatenate([np.array([state.get("step", 0)], "int32"), bits])


def _decoded(values):
    length, epoch, start, steps = values[1:].copy().view("float64").tolist()
    return {
        "step": int(values[0]),
        "seeds": None,
        "steps_per_epoch": length or None,
        "epoch": (epoch - 1, start, steps) if epoch else None,
    }
