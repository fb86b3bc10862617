"""Schedules: step -> (should_prune, sparsity).

A schedule is a pure function of the number of optimizer steps completed since pruning began. It
is evaluated at step 0 before the first batch, and then at every step. All schedules take one step
or a vector of steps, so `schedule(np.arange(1000))` is the whole curve.
"""

from tfprune._base import validation as check
from tfprune.schedules.adopted import AdoptedSchedule
from tfprune.schedules.adopted import is_tfmot_schedule as _is_tfmot_schedule
from tfprune.schedules.base import (
    SCHEDULES,
    PruningSchedule,
    deserialize,
    serialize,
    shortest,
)
from tfprune.schedules.base import flat_config as _flat_config
from tfprune.schedules.epochs import EpochSchedule
from tfprune.schedules.frozen import FrozenSchedule
from tfprune.schedules.ramps import Ramp

# isort: split
# Written by .ci/generate, from here
from tfprune.schedules.constant import ConstantSparsity
from tfprune.schedules.ramps import (
    Cosine,
    DenseSparseDense,
    Exponential,
    Iterative,
    OneCycle,
    PolynomialDecay,
)

__all__ = [
    "SCHEDULES",
    "AdoptedSchedule",
    "ConstantSparsity",
    "Cosine",
    "DenseSparseDense",
    "EpochSchedule",
    "Exponential",
    "FrozenSchedule",
    "Iterative",
    "OneCycle",
    "PolynomialDecay",
    "PruningSchedule",
    "Ramp",
    "built_in",
    "deserialize",
    "get",
    "serialize",
    "shortest",
]
# to here.


def built_in():
    """Returns the built-in schedule classes, by name."""
    return SCHEDULES.by_name()


def get(schedule, **arguments):
    """Returns a schedule that tfprune can use.

    Args:
        schedule: A `PruningSchedule`, the config that `serialize` returns, the name of a built-in
            schedule, or a schedule of tensorflow_model_optimization: its two built-in ones become
            their namesakes here, and a custom subclass is used unchanged.
        **arguments: The constructor's arguments, if `schedule` is a name.

    Raises:
        TypeError: If it is none of these.
        ValueError: For an unknown name, or if an argument that the schedule needs is missing.

    Example:

    >>> tfprune.schedules.get("cosine", initial_sparsity=0, final_sparsity=0.5, begin_step=0,
    ...     end_step=10).target_sparsity
    0.5
    """
    if isinstance(schedule, str):
        check.choice("pruning_schedule", schedule, tuple(SCHEDULES.by_name()))
        try:
            return SCHEDULES.by_name()[schedule](**arguments)
        except TypeError as error:
            raise ValueError(
                check.message(
                    f"the arguments of the schedule {schedule!r}",
                    str(error),
                    f"Use tfprune.{SCHEDULES.by_name()[schedule].__name__}(...).",
                )
            ) from error
    if isinstance(schedule, dict):
        return deserialize(schedule)
    if isinstance(schedule, PruningSchedule):
        return schedule
    if _is_tfmot_schedule(schedule):
        names = {cls.__name__: cls for cls in SCHEDULES.classes()}
        if type(schedule).__module__.startswith("tensorflow_model_optimization"):
            return names[type(schedule).__name__](**_flat_config(schedule.get_config()))
        return AdoptedSchedule(schedule)
    raise TypeError(
        check.message(
            "`pruning_schedule` to be a tfprune.PruningSchedule",
            f"pruning_schedule={schedule!r}",
            "Use for instance tfprune.PolynomialDecay(0.0, 0.9, begin_step=0, end_step=1000).",
        )
    )
