"""The base class of the built-in schedules."""

import math
from dataclasses import fields
from typing import Any

import keras
import numpy as np

from tfprune._base import validation as check
from tfprune._base.frozen import Frozen
from tfprune.schedules.base import PruningSchedule, flat_config
from tfprune.schedules.epochs import EpochSchedule


class FrozenSchedule(Frozen, PruningSchedule):
    """The common base of the built-in schedules: frozen fields that double as the config."""

    begin_step: int
    end_step: int
    frequency: int

    @classmethod
    def from_config(cls, config):
        return cls(**flat_config(config))

    def _freeze(self, name, value):
        object.__setattr__(self, name, value)

    def _check_steps(self):
        mend = "Give the number of an optimizer step; `from_epochs` counts in epochs."
        self._freeze("begin_step", check.step("begin_step", self.begin_step, 0, mend))
        self._freeze("end_step", check.step("end_step", self.end_step, -1, mend))
        mend = "Give the steps between two mask updates."
        self._freeze("frequency", check.step("frequency", self.frequency, 1, mend))

    @classmethod
    def from_epochs(cls, *args, steps_per_epoch=None, begin_epoch=0, end_epoch=None, **kwargs):
        """Makes the schedule from epochs instead of steps.

        Without `steps_per_epoch`, `fit` finds the number when it begins. The wrappers save it, so
        resumed training keeps it.

        Args:
            *args: The sparsities, in the order of the constructor.
            steps_per_epoch: Optimizer steps in one epoch: batches, divided by the gradient
                accumulation steps if there are any. Required for your own training loop and for
                data of unknown length; `fit` on data of known length finds it.
            begin_epoch: Epoch in which pruning begins; may be a fraction.
            end_epoch: Epoch at whose start the final sparsity is reached; may be a fraction.
                `None` only for a schedule that needs no end.
            **kwargs: Further arguments of the constructor. Without `frequency`, the masks are
                updated every 100 steps, and at least ten times.

        Returns:
            A schedule that counts in steps; without `steps_per_epoch`, one that counts in epochs.

        Raises:
            ValueError, TypeError: For arguments out of range.

        Example:

        >>> schedule = tfprune.PolynomialDecay.from_epochs(
        ...     0.0, 0.9, steps_per_epoch=469, begin_epoch=1, end_epoch=5)
        >>> schedule.begin_step, schedule.end_step
        (469, 2345)
        """
        arguments = {**cls._named(args, kwargs), **kwargs}
        if steps_per_epoch is None:
            registered = keras.saving.get_registered_name(cls)
            return EpochSchedule(registered, arguments, begin_epoch, end_epoch)
        mend = "Give len(dataset), or ceil(samples / batch_size)."
        steps_per_epoch = check.integer("steps_per_epoch", steps_per_epoch, 1, mend)
        return cls.in_steps(arguments, steps_per_epoch, begin_epoch, end_epoch)

    @classmethod
    def _named(cls, values, others):
        """Names positional values: the constructor's arguments before the steps."""
        own: Any = cls
        names = [item.name for item in fields(own)]
        names = [name for name in names[: names.index("begin_step")] if name not in others]
        if len(values) > len(names):
            raise TypeError(
                check.message(
                    f"at most {len(names)} positional arguments: {', '.join(names)}",
                    f"{len(values)}",
                    "Pass all other arguments by name.",
                )
            )
        return dict(zip(names, values, strict=False))

    @classmethod
    def in_steps(cls, arguments, steps_per_epoch, begin_epoch, end_epoch):
        """Makes the schedule from epochs of known length; see `from_epochs`.

        Args:
            arguments: Dictionary of the constructor's arguments, without the steps.
            steps_per_epoch: Optimizer steps in one epoch; may be a fraction.
            begin_epoch: As in `from_epochs`; likewise `end_epoch`.
        """
        own: Any = cls
        open_end = any(f.name == "end_step" and f.default == -1 for f in fields(own))
        if end_epoch is None and not open_end:
            raise ValueError(
                check.message(
                    "`end_epoch` to be given",
                    "end_epoch=None",
                    f"{cls.__name__} needs an end: give end_epoch=...",
                )
            )
        begin_step = _epoch("begin_epoch", begin_epoch, steps_per_epoch)
        end_step = -1 if end_epoch is None else _epoch("end_epoch", end_epoch, steps_per_epoch)
        span = end_step - begin_step if end_step >= 0 else round(10 * steps_per_epoch)
        arguments = {"frequency": min(100, max(1, span // 10)), **arguments}
        return own(begin_step=begin_step, end_step=end_step, **arguments)


def _epoch(name, value, steps_per_epoch):
    """Returns the step at which an epoch, which may be a fraction, begins."""
    number = isinstance(value, (int, float, np.number)) and not isinstance(value, bool)
    if not (number and 0 <= value < math.inf):
        raise ValueError(
            check.message(
                f"`{name}` to be a number of epochs, 0 or more",
                f"{name}={value!r}",
                "Epochs are counted from 0; 1.5 is the middle of the second one.",
            )
        )
    return round(value * steps_per_epoch)
