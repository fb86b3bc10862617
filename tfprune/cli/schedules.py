"""Schedules by the names that they have on the command line."""

import inspect
import re

from tfprune import _validation as check
from tfprune import schedules


def by_name():
    """`{name: class}` of all schedules, `polynomial_decay` for `PolynomialDecay`."""
    found = {
        name: member
        for name, member in vars(schedules).items()
        if inspect.isclass(member)
        and issubclass(member, schedules.PruningSchedule)
        and not name.startswith("_")
        and member not in (schedules.PruningSchedule, schedules.AdoptedSchedule)
    }
    return {re.sub(r"(?<=[a-z])(?=[A-Z])", "_", n).lower(): member for n, member in found.items()}


def sparsities(schedule, initial, final):
    """The arguments of a schedule that are sparsities."""
    if schedule is schedules.ConstantSparsity:
        if initial:
            raise ValueError(
                check.message(
                    "no initial sparsity for constant_sparsity, which has one sparsity",
                    f"--initial-sparsity {initial}",
                    "Leave it out, or choose another schedule.",
                )
            )
        return (final,)
    return initial, final
