"""Criteria: weight -> importance scores; the units with the lowest scores go first."""

from dataclasses import dataclass

import keras
import numpy as np

from tfprune import _frozen
from tfprune._frozen import Frozen


class Criterion(Frozen):
    """Base class of all criteria: frozen, and equal where their fields are equal.

    A criterion with `elementwise = True` scores each weight from its own value alone. Only then
    may the mask kernel hand it the weight in pieces. Its score of a weight that is not finite
    must not be finite either: that is how such weights are found.

    Example:

    >>> @dataclasses.dataclass(frozen=True)
    ... class Squared(tfprune.criteria.Criterion):
    ...     elementwise = True
    ...     def __call__(self, weight):
    ...         return weight * weight
    >>> Squared()(np.array([-2.0, 1.0]))
    array([4., 1.])
    """

    elementwise = False

    def __call__(self, weight):
        """Scores a weight.

        Args:
            weight: Float NumPy array, or a piece of one if `elementwise`.

        Returns:
            A new array of the same shape: higher means keep. It must not be a view of `weight`.
        """
        raise NotImplementedError(
            f"A criterion has to implement `__call__(weight)`, and {type(self).__name__} does not."
        )


@keras.saving.register_keras_serializable(package="tfprune")
@dataclass(frozen=True)
class Magnitude(Criterion):
    """`|w|`: small weights go first.

    Example:

    >>> tfprune.Magnitude()(np.array([-2.0, 1.0]))
    array([2., 1.])

    Reference:

    - [Han et al., 2015: Learning both Weights and Connections](https://arxiv.org/abs/1506.02626)
    """

    elementwise = True

    def __call__(self, weight):
        return np.abs(weight)


_BY_NAME = {"magnitude": Magnitude}


def built_in():
    """Returns the criteria that come with tfprune, by name."""
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
