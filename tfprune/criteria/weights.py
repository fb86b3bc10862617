"""Criteria on the weights alone: now, and when they were wrapped."""

from dataclasses import dataclass

import numpy as np

from tfprune._base import validation as check
from tfprune.criteria.base import CRITERIA, Criterion


@CRITERIA.part("magnitude", "large_final")
@dataclass(frozen=True)
class Magnitude(Criterion):
    """`|w|`: small weights go first. Also known as "large_final".

    Example:

    >>> tfprune.Magnitude()(np.array([-2.0, 1.0]))
    array([2., 1.])

    Reference:

    - [Han et al., 2015: Learning both Weights and Connections](https://arxiv.org/abs/1506.02626)
    """

    elementwise = True

    def __call__(self, weight):
        return np.abs(weight)


@CRITERIA.part("squared_final")
@dataclass(frozen=True)
class SquaredMagnitude(Criterion):
    """`w²`: small weights go first; pooled over units, large weights count for more.

    Example:

    >>> tfprune.criteria.SquaredMagnitude()(np.array([-2.0, 1.0]))
    array([4., 1.])
    """

    elementwise = True

    def __call__(self, weight):
        return weight * weight


@CRITERIA.part()
@dataclass(frozen=True)
class SmallFinal(Criterion):
    """`-|w|`: large weights go first. A control.

    Example:

    >>> tfprune.criteria.SmallFinal()(np.array([-2.0, 1.0]))
    array([-2., -1.])

    Reference:

    - [Zhou et al., 2019: Deconstructing Lottery Tickets](https://arxiv.org/abs/1905.01067),
      which names this and the criteria on initial weights below.
    """

    elementwise = True

    def __call__(self, weight):
        return -np.abs(weight)


@CRITERIA.part("large_init")
@dataclass(frozen=True)
class LargeInitial(Criterion):
    """`|w0|`: weights that were small when they were wrapped go first.

    Example:

    >>> tfprune.criteria.LargeInitial()(np.array([-2.0, 1.0]), np.array([0.5, -3.0]))
    array([0.5, 3. ])
    """

    elementwise = True
    needs = ("initial",)

    def __call__(self, weight, initial):
        return np.abs(initial)


@CRITERIA.part("small_init")
@dataclass(frozen=True)
class SmallInitial(Criterion):
    """`-|w0|`: weights that were large when they were wrapped go first. A control.

    Example:

    >>> tfprune.criteria.SmallInitial()(np.array([-2.0, 1.0]), np.array([0.5, -3.0]))
    array([-0.5, -3. ])
    """

    elementwise = True
    needs = ("initial",)

    def __call__(self, weight, initial):
        return -np.abs(initial)


@CRITERIA.part("large_init_large_final")
@dataclass(frozen=True)
class LargeInitialLargeFinal(Criterion):
    """`min(|w|, |w0|)`: keeps what was large and still is.

    Example:

    >>> tfprune.criteria.LargeInitialLargeFinal()(np.array([-2.0, 1.0]), np.array([0.5, -3.0]))
    array([0.5, 1. ])
    """

    elementwise = True
    needs = ("initial",)

    def __call__(self, weight, initial):
        return np.minimum(np.abs(weight), np.abs(initial))


@CRITERIA.part("small_init_small_final")
@dataclass(frozen=True)
class SmallInitialSmallFinal(Criterion):
    """`-max(|w|, |w0|)`: keeps what was small and still is. A control.

    Example:

    >>> tfprune.criteria.SmallInitialSmallFinal()(np.array([-2.0, 1.0]), np.array([0.5, -3.0]))
    array([-2., -3.])
    """

    elementwise = True
    needs = ("initial",)

    def __call__(self, weight, initial):
        return -np.maximum(np.abs(weight), np.abs(initial))


@CRITERIA.part()
@dataclass(frozen=True)
class MagnitudeIncrease(Criterion):
    """`|w| - |w0|`: weights that grew least go first.

    Example:

    >>> tfprune.criteria.MagnitudeIncrease()(np.array([-2.0, 1.0]), np.array([0.5, -3.0]))
    array([ 1.5, -2. ])
    """

    elementwise = True
    needs = ("initial",)
    needs_movement = True

    def __call__(self, weight, initial):
        return np.abs(weight) - np.abs(initial)


@CRITERIA.part()
@dataclass(frozen=True)
class Movement(Criterion):
    """`|w - w0|`: weights that moved least go first.

    Example:

    >>> tfprune.criteria.Movement()(np.array([-2.0, 1.0]), np.array([0.5, -3.0]))
    array([2.5, 4. ])
    """

    elementwise = True
    needs = ("initial",)
    needs_movement = True

    def __call__(self, weight, initial):
        return np.abs(weight - initial)


@CRITERIA.part("movmag")
@dataclass(frozen=True)
class MovementMagnitude(Criterion):
    """`|w (w - w0)|`: weights that are small or moved little go first. Also known as "movmag".

    Example:

    >>> tfprune.criteria.MovementMagnitude()(np.array([-2.0, 1.0]), np.array([0.5, -3.0]))
    array([5., 4.])
    """

    elementwise = True
    needs = ("initial",)
    needs_movement = True

    def __call__(self, weight, initial):
        return np.abs(weight * (weight - initial))


@CRITERIA.part()
@dataclass(frozen=True)
class Random(Criterion):
    """Random scores: the control for every criterion.

    They depend on the seed, and on the weight's place among those that are scored together, so
    that the same model gets the same masks on every backend, and no two layers get the same.

    Args:
        seed: Whole number from 0.

    Raises:
        ValueError, TypeError: For a seed that is none.

    Example:

    >>> mask = tfprune.compute_mask(np.ones((3, 4)), 0.5, criterion=tfprune.criteria.Random(7))
    >>> int(mask.sum())
    6
    """

    seed: int = 0

    needs = ("position",)

    def __post_init__(self):
        seed = check.integer("seed", self.seed, 0, "Give a whole number, for instance 0.")
        object.__setattr__(self, "seed", seed)

    def renewed(self, step):
        mixed = np.random.SeedSequence([self.seed, step]).generate_state(1, "uint64")
        return Random(int(mixed[0]))

    def __call__(self, weight, position):
        random = np.random.default_rng([self.seed, position])
        return random.random(weight.shape, dtype="float32")


@CRITERIA.part("lamp")
@dataclass(frozen=True)
class LayerAdaptiveMagnitude(Criterion):
    """LAMP: `w² / Σ v²` over all weights `v` of the layer that are no smaller than `w`.

    In global scope it shares the zeros out over the layers so that none is cut off. In local scope
    it is the magnitude.

    Example:

    >>> tfprune.criteria.LayerAdaptiveMagnitude()(np.array([[1.0, -2.0], [2.0, 4.0]])).round(2)
    array([[0.04, 0.2 ],
           [0.17, 1.  ]])

    Reference:

    - [Lee et al., 2021: Layer-Adaptive Sparsity for the Magnitude-based Pruning]
      (https://arxiv.org/abs/2010.07611)
    """

    def __call__(self, weight):
        squares = np.square(weight.reshape(-1)[::-1].astype("float64"))
        # From the back, so that of equal weights the later ones get the lower scores.
        order = np.argsort(squares, kind="stable")
        scores = np.empty_like(squares)
        scores[order] = lamp_scores(squares[order])
        return scores[::-1].reshape(weight.shape)


def lamp_scores(squares):
    """Returns the LAMP scores of squares in ascending order."""
    no_smaller = squares[::-1].cumsum()[::-1]
    return np.divide(squares, no_smaller, out=np.zeros_like(squares), where=no_smaller > 0)
