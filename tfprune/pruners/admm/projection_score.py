"""The criterion by which ADMM projects weights onto a pattern."""

from dataclasses import dataclass

import keras

from tfprune.criteria.base import Criterion


@keras.saving.register_keras_serializable(package="tfprune")
@dataclass(frozen=True)
class ProjectionScore(Criterion):
    """`(weight + dual)^2`: the squared distance from the pattern that pruning a weight adds.

    The lowest scores are pruned, so the projection is the nearest point of the pattern.
    """

    elementwise = True
    needs = ("dual",)

    def __call__(self, weight, dual):
        moved = weight + dual
        return moved * moved
