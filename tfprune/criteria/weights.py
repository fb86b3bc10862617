"""Criteria on the weights alone: their current values and their values when wrapped."""

from dataclasses import dataclass

import numpy as np
from keras import ops

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
    on_tensors = True

    def __call__(self, weight):
        return abs(weight)


@CRITERIA.part("squared_final")
@dataclass(frozen=True)
class SquaredMagnitude(Criterion):
    """`w²`: small weights go first; in pooled units, large weights count for more.

    Example:

    >>> tfprune.criteria.SquaredMagnitude()(np.array([-2.0, 1.0]))
    array([4., 1.])
    """

    elementwise = True
    on_tensors = True

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
      the source of this name and of the criteria on initial weights below.
    """

    elementwise = True
    on_tensors = True

    def __call__(self, weight):
        return -abs(weight)


@CRITERIA.part("large_init")
@dataclass(frozen=True)
class LargeInitial(Criterion):
    """`|w0|`: weights that were small when they were wrapped go first.

    Example:

    >>> tfprune.criteria.LargeInitial()(np.array([-2.0, 1.0]), np.array([0.5, -3.0]))
    array([0.5, 3. ])
    """

    elementwise = True
    on_tensors = True
    needs = ("initial",)

    def __call__(self, weight, initial):
        return abs(initial)


@CRITERIA.part("small_init")
@dataclass(frozen=True)
class SmallInitial(Criterion):
    """`-|w0|`: weights that were large when they were wrapped go first. A control.

    Example:

    >>> tfprune.criteria.SmallInitial()(np.array([-2.0, 1.0]), np.array([0.5, -3.0]))
    array([-0.5, -3. ])
    """

    elementwise = True
    on_tensors = True
    needs = ("initial",)

    def __call__(self, weight, initial):
        return -abs(initial)


@CRITERIA.part("large_init_large_final")
@dataclass(frozen=True)
class LargeInitialLargeFinal(Criterion):
    """`min(|w|, |w0|)`: keeps weights that were large and still are.

    Example:

    >>> tfprune.criteria.LargeInitialLargeFinal()(np.array([-2.0, 1.0]), np.array([0.5, -3.0]))
    array([0.5, 1. ])
    """

    elementwise = True
    on_tensors = True
    needs = ("initial",)

    def __call__(self, weight, initial):
        return _lesser(abs(weight), abs(initial))


@CRITERIA.part("small_init_small_final")
@dataclass(frozen=True)
class SmallInitialSmallFinal(Criterion):
    """`-max(|w|, |w0|)`: keeps weights that were small and still are. A control.

    Example:

    >>> tfprune.criteria.SmallInitialSmallFinal()(np.array([-2.0, 1.0]), np.array([0.5, -3.0]))
    array([-2., -3.])
    """

    elementwise = True
    on_tensors = True
    needs = ("initial",)

    def __call__(self, weight, initial):
        return _lesser(-abs(weight), -abs(initial))


@CRITERIA.part()
@dataclass(frozen=True)
class MagnitudeIncrease(Criterion):
    """`|w| - |w0|`: weights that grew least go first.

    Example:

    >>> tfprune.criteria.MagnitudeIncrease()(np.array([-2.0, 1.0]), np.array([0.5, -3.0]))
    array([ 1.5, -2. ])
    """

    elementwise = True
    on_tensors = True
    needs = ("initial",)
    needs_movement = True

    def __call__(self, weight, initial):
        return abs(weight) - abs(initial)


@CRITERIA.part()
@dataclass(frozen=True)
class Movement(Criterion):
    """`|w - w0|`: weights that moved least go first.

    Example:

    >>> tfprune.criteria.Movement()(np.array([-2.0, 1.0]), np.array([0.5, -3.0]))
    array([2.5, 4. ])
    """

    elementwise = True
    on_tensors = True
    needs = ("initial",)
    needs_movement = True

    def __call__(self, weight, initial):
        return abs(weight - initial)


@CRITERIA.part("movmag")
@dataclass(frozen=True)
class MovementMagnitude(Criterion):
    """`|w (w - w0)|`: weights that are small or moved little go first. Also known as "movmag".

    Example:

    >>> tfprune.criteria.MovementMagnitude()(np.array([-2.0, 1.0]), np.array([0.5, -3.0]))
    array([5., 4.])
    """

    elementwise = True
    on_tensors = True
    needs = ("initial",)
    needs_movement = True

    def __call__(self, weight, initial):
        return abs(weight * (weight - initial))


@CRITERIA.part()
@dataclass(frozen=True)
class Random(Criterion):
    """Random scores: the control for every other criterion.

    The scores depend on the seed and on the weight's index among the weights that are scored
    together: a model gets the same masks on every backend, and each layer gets different scores.

    Args:
        seed: Whole number, at least 0.

    Raises:
        ValueError, TypeError: For an invalid seed.

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
    """LAMP: `w² / Σ v²`, summed over all weights `v` of the layer with `|v| >= |w|`.

    In global scope, it distributes the zeros over the layers without emptying any. In local scope,
    it ranks weights like the magnitude.

    Example:

    >>> tfprune.criteria.LayerAdaptiveMagnitude()(np.array([[1.0, -2.0], [2.0, 4.0]])).round(2)
    array([[0.04, 0.2 ],
           [0.17, 1.  ]])

    Reference:

    - [Lee et al., 2021: Layer-Adaptive Sparsity for the Magnitude-based Pruning]
      (https://arxiv.org/abs/2010.07611)
    """

    def __call__(self, weight):
        return lamp_scores(np.square(weight.astype("float64")))


def _lesser(one, other):
    if isinstance(one, (np.ndarray, np.generic)):
        return np.minimum(one, other)
    return ops.minimum(one, other)


def lamp_scores(values):
    """Divides each value by the sum of all that are not smaller, itself included.

    Of equal values, a later one counts as smaller.

    Args:
        values: Array of non-negative numbers, in float64; squares of weights in the paper.
    """
    flat = values.reshape(-1)[::-1]
    order = np.argsort(flat, kind="stable")
    ascending = flat[order]
    no_smaller = ascending[::-1].cumsum()[::-1]
    scores = np.zeros_like(flat)
    scores[order] = np.divide(
        ascending, no_smaller, out=np.zeros_like(ascending), where=no_smaller > 0
    )
    return scores[::-1].reshape(values.shape)
