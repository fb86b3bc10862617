"""Schedules in epochs, which training turns into schedules in steps."""

from dataclasses import dataclass, field
from functools import cached_property

import keras

from tfprune._base import validation as check
from tfprune._base.frozen import Frozen
from tfprune.schedules.base import PruningSchedule

_MANY = 10_000


@keras.saving.register_keras_serializable(package="tfprune")
@dataclass(frozen=True)
class EpochSchedule(Frozen, PruningSchedule):
    """A schedule in epochs; `fit` turns it into one in steps when it begins.

    `from_epochs` returns one if `steps_per_epoch` is not given. The schedule itself never
    changes: the wrappers hold the number of steps that `fit` found and save it with the pruning
    step, so that resumed training uses the same number.

    Args:
        schedule: Registered name of the class that counts in steps, "tfprune>Cosine" for instance.
        arguments: Its arguments, without the steps.
        begin_epoch: Epoch in which pruning begins; may be a fraction.
        end_epoch: Epoch at whose start the final sparsity is reached, or `None`.

    Raises:
        ValueError, TypeError: For arguments that the class rejects.

    Example:

    >>> schedule = tfprune.PolynomialDecay.from_epochs(0.0, 0.9, end_epoch=4)
    >>> schedule.target_sparsity
    0.9
    >>> schedule.resolve(100).end_step
    400
    """

    schedule: str
    arguments: dict = field(default_factory=dict, hash=False)
    begin_epoch: float = 0
    end_epoch: float | None = None

    def __post_init__(self):
        # Resolving with long epochs rejects a wrong argument here instead of when `fit` begins.
        config = self.resolve(_MANY).get_config()
        arguments = {name: config[name] for name in self.arguments}
        object.__setattr__(self, "arguments", arguments)

    def resolve(self, steps_per_epoch):
        """Returns the schedule in steps.

        Args:
            steps_per_epoch: Optimizer steps in one epoch, above 0; a fraction where gradients are
                accumulated over batches that do not divide the epoch.

        Returns:
            A schedule of the class named by `schedule`.
        """
        mend = "Give len(dataset), or ceil(samples / batch_size)."
        check.positive("steps_per_epoch", steps_per_epoch, mend)
        cls = keras.saving.get_registered_object(self.schedule)
        if cls is None:
            raise ValueError(
                check.message(
                    "a schedule class that is registered with Keras",
                    f"schedule={self.schedule!r}",
                    "Import the module that registers it.",
                )
            )
        return cls.in_steps(self.arguments, steps_per_epoch, self.begin_epoch, self.end_epoch)

    @cached_property
    def target_sparsity(self):
        """The highest sparsity that the schedule reaches, as a `float`."""
        return self.resolve(_MANY).target_sparsity

    def __call__(self, step):
        raise ValueError(
            check.message(
                "a schedule in steps, or `fit` with data of known length",
                f"{self!r}, whose epochs have no length yet",
                "Give steps_per_epoch=... to from_epochs().",
            )
        )
