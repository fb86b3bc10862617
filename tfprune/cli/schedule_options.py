"""Sparsities for schedules, from options of the command line."""

from tfprune import schedules
from tfprune._base import validation as check


def sparsities(schedule, initial, final):
    """Returns the sparsities that a schedule takes as its first arguments."""
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
