"""Criteria: weight -> importance scores; units with the lowest scores are pruned first."""

from tfprune.criteria.base import (
    CRITERIA,
    EVIDENCE,
    FROM_ACTIVATIONS,
    FROM_DATA,
    FROM_GRADIENTS,
    Criterion,
    no_evidence,
)

# isort: split
# Written by .ci/generate, from here
from tfprune.criteria.filters import FPGM, APoZ, BatchNormScale, L1Filter, L2Filter, MeanActivation
from tfprune.criteria.gradients import (
    GradientMagnitude,
    GradientMomentum,
    HessianDiagonal,
    Saliency,
    TaylorFirstOrder,
)
from tfprune.criteria.weights import (
    LargeInitial,
    LargeInitialLargeFinal,
    LayerAdaptiveMagnitude,
    Magnitude,
    MagnitudeIncrease,
    Movement,
    MovementMagnitude,
    Random,
    SmallFinal,
    SmallInitial,
    SmallInitialSmallFinal,
    SquaredMagnitude,
)

__all__ = [
    "CRITERIA",
    "EVIDENCE",
    "FPGM",
    "FROM_ACTIVATIONS",
    "FROM_DATA",
    "FROM_GRADIENTS",
    "APoZ",
    "BatchNormScale",
    "Criterion",
    "GradientMagnitude",
    "GradientMomentum",
    "HessianDiagonal",
    "L1Filter",
    "L2Filter",
    "LargeInitial",
    "LargeInitialLargeFinal",
    "LayerAdaptiveMagnitude",
    "Magnitude",
    "MagnitudeIncrease",
    "MeanActivation",
    "Movement",
    "MovementMagnitude",
    "Random",
    "Saliency",
    "SmallFinal",
    "SmallInitial",
    "SmallInitialSmallFinal",
    "SquaredMagnitude",
    "TaylorFirstOrder",
    "built_in",
    "get",
    "no_evidence",
]
# to here.


def built_in():
    """Returns the built-in criterion classes, by name; some have two names."""
    return CRITERIA.by_name()


def get(criterion):
    """Returns a criterion.

    Args:
        criterion: A `Criterion`, the name of one, its serialized form, or `None` for `Magnitude`.

    Raises:
        ValueError: For an unknown name.
        TypeError: For anything else.
    """
    return CRITERIA.get(criterion, Criterion)
