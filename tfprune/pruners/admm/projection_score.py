"""The criterion by which ADMM projects weights onto a pattern."""

from dataclasses import dataclass

import keras

from tfprune.criteria.base import Criterion


@keras.saving.register_keras_serializable(package="tfprune")
@dataclass(frozen=True)
class ProjectionScore(Criterion):
    """`(weight + dual)^2`: what a unit adds to the distance from the pattern if it goes.

    Units with the lowest go, so the projection is the nearest point of the pattern.
    """

    elementwise = True
    needs = ("dual",)

    def __call__(self, weight, dual):
        moved = weight + dual
        return moved * moved
