"""Calls the user's `evaluate`, and takes the number that counts."""

import math

import numpy as np
from keras import ops

from tfprune import _keras
from tfprune._base import validation as check


class Judge:
    """Calls the user's `evaluate` and checks what comes back.

    Args:
        evaluate: Function from a model to a dictionary of numbers, or to one number.
        objective: The `Objective`.

    Attributes:
        evaluate: As given.

    Raises:
        TypeError: If `evaluate` is no function.
    """

    def __init__(self, evaluate, objective):
        if not callable(evaluate):
            mend = "Give a function of the model: it returns model.evaluate(..., return_dict=True)."
            raise TypeError(check.message("`evaluate` to be a function", f"{evaluate=}", mend))
        self.evaluate = evaluate
        self._metric, self._mode = objective.metric, objective.mode
        self._sign = 1 if objective.direction == "min" else -1

    def badness(self, metrics):
        """Returns the number that counts, negated where more is better."""
        return self._sign * metrics[self._metric]

    def __call__(self, model):
        """Returns `{name: number}` of a model.

        Raises:
            ValueError: If `evaluate` fails, changes the model, or returns NaN or no number.
        """
        before = _keras.fingerprint(model.weights)
        try:
            found = self.evaluate(model)
        except Exception as error:
            raise ValueError(
                check.message(
                    "`evaluate` to return the value of a candidate",
                    f"{type(error).__name__}: {error}"[:400],
                    "Earlier evaluations are kept. Try evaluate(model) on a copy of your "
                    "model; candidates are compiled as it is, where losses and metrics can be "
                    "copied by their configs.",
                )
            ) from error
        if _keras.fingerprint(model.weights) != before:
            raise ValueError(
                check.message(
                    "`evaluate` to leave the model unchanged",
                    "a model whose weights it changed",
                    "Train in `train`, or on a copy of the model.",
                )
            )
        metrics = self._numbers(found)
        value = metrics[self._metric]
        if not math.isfinite(value):
            raise ValueError(
                check.message(
                    f"{self._metric!r} to be a finite number",
                    f"{value}",
                    "Look for NaN in the data, or for a loss that overflows where much is pruned.",
                )
            )
        return metrics

    def _numbers(self, found):
        if isinstance(found, dict):
            try:
                numbers = {str(name): _number(value) for name, value in found.items()}
            except (TypeError, ValueError) as error:
                raise self._no_number(found) from error
            if self._metric not in numbers:
                raise ValueError(
                    check.message(
                        "`metric` to be one of " + ", ".join(map(repr, numbers)),
                        f"metric={self._metric!r}",
                        "Choose a name that `evaluate` returns.",
                    )
                )
            return numbers
        try:
            value = _number(found)
        except (TypeError, ValueError) as error:
            raise self._no_number(found) from error
        if self._mode is None:
            raise ValueError(
                check.message(
                    '`mode` to be "max" or "min" where `evaluate` returns a number without a name',
                    "mode=None",
                    "Give objective=Objective(..., mode=...), or return a dictionary such as "
                    "model.evaluate(..., return_dict=True).",
                )
            )
        return {self._metric: value}

    @staticmethod
    def _no_number(found):
        return TypeError(
            check.message(
                "`evaluate` to return a number or a dictionary of numbers",
                f"{found!r:.200}",
                "Return for instance model.evaluate(x, y, return_dict=True).",
            )
        )


def _number(value):
    if isinstance(value, (bool, str, bytes)) or value is None:
        raise TypeError
    array = np.asarray(ops.convert_to_numpy(value))
    if array.ndim or (not np.issubdtype(array.dtype, np.number) and array.dtype.kind != "V"):
        raise TypeError
    return float(array)
