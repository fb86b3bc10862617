"""Criteria: weight -> importance scores; the units with the lowest scores go first."""

from tfprune import _frozen
from tfprune.criteria.base import (
    EVIDENCE,
    FROM_ACTIVATIONS,
    FROM_DATA,
    FROM_GRADIENTS,
    Criterion,
    no_evidence,
)
from tfprune.criteria.filters import (
    FPGM,
    APoZ,
    BatchNormScale,
    L1Filter,
    L2Filter,
    MeanActivation,
)
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

_BY_NAME = {
    "magnitude": Magnitude,
    "large_final": Magnitude,
    "squared_final": SquaredMagnitude,
    "small_final": SmallFinal,
    "large_init": LargeInitial,
    "small_init": SmallInitial,
    "large_init_large_final": LargeInitialLargeFinal,
    "small_init_small_final": SmallInitialSmallFinal,
    "magnitude_increase": MagnitudeIncrease,
    "movement": Movement,
    "movmag": MovementMagnitude,
    "random": Random,
    "lamp": LayerAdaptiveMagnitude,
    "l1_filter": L1Filter,
    "l2_filter": L2Filter,
    "fpgm": FPGM,
    "batch_norm_scale": BatchNormScale,
    "apoz": APoZ,
    "mean_activation": MeanActivation,
    "gradient": GradientMagnitude,
    "gradient_momentum": GradientMomentum,
    "saliency": Saliency,
    "taylor": TaylorFirstOrder,
    "hessian_diagonal": HessianDiagonal,
}

__all__ = [
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


def built_in():
    """Returns the criteria that come with tfprune, by name; some have two names."""
    return dict(_BY_NAME)


def get(criterion):
    """Returns a criterion.

    Args:
        criterion: A `Criterion`, the name of one, its serialized form, or `None` for `Magnitude`.

    Raises:
        ValueError: For an unknown name.
        TypeError: For anything else.
    """
    return _frozen.get(criterion, "criterion", Criterion, _BY_NAME, Magnitude)
