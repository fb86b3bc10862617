"""The objective by which a search compares candidates."""

from dataclasses import dataclass

import keras

from tfprune._base import validation as check
from tfprune._base.frozen import Frozen

_LOWER_IS_BETTER = ("loss", "error", "entropy", "divergence", "perplexity", "mse", "mae", "mape")
_HIGHER_IS_BETTER = ("acc", "auc", "precision", "recall", "f1", "iou", "r2", "similarity")


@keras.saving.register_keras_serializable(package="tfprune")
@dataclass(frozen=True)
class Objective(Frozen):
    """How a search measures candidates, and which of two is better.

    Args:
        metric: Name of the metric, among those that `evaluate` returns.
        mode: "max" or "min"; `None` if the name implies it, like "loss" and "accuracy".
        recalibrate: Whether BatchNormalization gets new statistics from the search's `data`
            before a candidate is evaluated; `None` means if the model has any.
        batches: Number of batches of `data` to use.
        batch_size: Size of the batches that arrays are cut into.

    Raises:
        ValueError: If an argument is out of range, or neither `mode` nor the name of the metric
            gives the direction.
        TypeError: If an argument is of the wrong kind.

    Example:

    >>> tfprune.pruners.Objective("accuracy").direction
    'max'
    """

    metric: str = "loss"
    mode: str | None = None
    recalibrate: bool | None = None
    batches: int = 8
    batch_size: int = 64

    def __post_init__(self):
        if not isinstance(self.metric, str):
            mend = 'Use for instance "accuracy".'
            raise TypeError(
                check.message("`metric` to be a name", f"metric={self.metric!r:.200}", mend)
            )
        if self.mode is not None:
            check.choice("mode", self.mode, ("max", "min"))
        if self.recalibrate is not None and not isinstance(self.recalibrate, bool):
            raise TypeError(
                check.message(
                    "`recalibrate` to be True, False or None",
                    f"recalibrate={self.recalibrate!r:.200}",
                    "Leave it out to recalibrate wherever there is a BatchNormalization.",
                )
            )
        for name in ("batches", "batch_size"):
            value = check.integer(name, getattr(self, name), 1, "Use for instance 8.")
            object.__setattr__(self, name, value)
        if self.direction is None:
            raise ValueError(
                check.message(
                    "`mode` for a metric whose name does not imply its direction",
                    f"metric={self.metric!r}, mode=None",
                    f'Give for instance Objective({self.metric!r}, mode="max").',
                )
            )

    @property
    def direction(self):
        """`mode`, or "max" or "min" by the name of the metric."""
        if self.mode is not None:
            return self.mode
        name = self.metric.lower()
        if any(part in name for part in _LOWER_IS_BETTER):
            return "min"
        return "max" if any(part in name for part in _HIGHER_IS_BETTER) else None


def get(objective):
    """Returns an `Objective`.

    Args:
        objective: An `Objective`, the name of a metric, or `None` for the loss.

    Raises:
        TypeError: For anything else.
    """
    if objective is None:
        return Objective()
    if isinstance(objective, str):
        return Objective(objective)
    if isinstance(objective, Objective):
        return objective
    raise TypeError(
        check.message(
            "`objective` to be a tfprune.pruners.Objective or the name of a metric",
            f"objective={objective!r:.200}",
            'Use for instance objective="accuracy".',
        )
    )
