"""The same sparsity throughout."""

from dataclasses import dataclass, field

from keras import ops

from tfprune._base import validation as check
from tfprune.schedules.base import SCHEDULES
from tfprune.schedules.frozen import FrozenSchedule


@SCHEDULES.part()
@dataclass(frozen=True)
class ConstantSparsity(FrozenSchedule):
    """The same sparsity from `begin_step` on.

    Args:
        target_sparsity: Fraction of zeros, in [0, 1).
        begin_step: Step of the first mask update.
        end_step: Step of the last mask update; -1 for no end.
        frequency: Steps between two mask updates.

    Raises:
        ValueError, TypeError: For a value out of its range.

    Example:

    >>> due, sparsity = tfprune.ConstantSparsity(0.5, begin_step=0)(0)
    >>> bool(due), float(sparsity)
    (True, 0.5)
    """

    # `field()` keeps the base class's property of this name from becoming the default.
    target_sparsity: float = field()
    begin_step: int = field()
    end_step: int = -1
    frequency: int = 100

    def __post_init__(self):
        self._freeze("target_sparsity", check.sparsity("target_sparsity", self.target_sparsity))
        self._check_steps()
        self._validate_step(self.begin_step, self.end_step, self.frequency, True)

    @classmethod
    def one_shot(cls, target_sparsity, step=0):
        """Prunes once, at `step`, and keeps the masks from then on."""
        return cls(target_sparsity, begin_step=step, end_step=step, frequency=1)

    def __call__(self, step):
        step = ops.convert_to_tensor(step)
        due = self._should_prune_in_step(step, self.begin_step, self.end_step, self.frequency)
        target = ops.convert_to_tensor(self.target_sparsity, dtype="float32")
        return due, ops.broadcast_to(target, ops.shape(step))
