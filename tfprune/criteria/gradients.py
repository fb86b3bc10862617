"""Criteria on gradients of the loss over batches of data."""

from dataclasses import dataclass

from tfprune.criteria.base import CRITERIA, Criterion


@CRITERIA.part("gradient")
@dataclass(frozen=True)
class GradientMagnitude(Criterion):
    """`|g|`: weights with a small gradient go first. Needs data.

    Example:

    >>> tfprune.criteria.GradientMagnitude()(np.array([9.0, 9.0]), np.array([-2.0, 1.0]))
    array([2., 1.])
    """

    elementwise = True
    on_tensors = True
    needs = ("gradient",)

    def __call__(self, weight, gradient):
        return abs(gradient)


@CRITERIA.part()
@dataclass(frozen=True)
class GradientMomentum(Criterion):
    """`|m|`, where `m` is the moving average of the gradient over the batches, with decay 0.9.

    Needs data.

    Example:

    >>> tfprune.criteria.GradientMomentum()(np.array([9.0, 9.0]), np.array([-2.0, 1.0]))
    array([2., 1.])

    Reference:

    - [Dettmers & Zettlemoyer, 2019: Sparse Networks from Scratch]
      (https://arxiv.org/abs/1907.04840)
    """

    elementwise = True
    on_tensors = True
    needs = ("gradient_momentum",)

    def __call__(self, weight, momentum):
        return abs(momentum)


@CRITERIA.part()
@dataclass(frozen=True)
class Saliency(Criterion):
    """`|w g|`: first-order change of the loss if the weight becomes zero.

    Needs data. Also known as SNIP's connection sensitivity.

    Example:

    >>> tfprune.criteria.Saliency()(np.array([0.5, 3.0]), np.array([-2.0, 1.0]))
    array([1., 3.])

    Reference:

    - [Lee et al., 2019: SNIP](https://arxiv.org/abs/1810.02340)
    """

    elementwise = True
    on_tensors = True
    needs = ("gradient",)

    def __call__(self, weight, gradient):
        return abs(weight * gradient)


@CRITERIA.part("taylor")
@dataclass(frozen=True)
class TaylorFirstOrder(Criterion):
    """Mean of `(w g)²` over the batches: squared first-order change of the loss. Needs data.

    For filters, combine it with `tfprune.Filter(pooling="SUM")`.

    Example:

    >>> tfprune.criteria.TaylorFirstOrder()(np.array([0.5, 3.0]), np.array([4.0, 1.0]))
    array([1., 9.])

    Reference:

    - [Molchanov et al., 2019: Importance Estimation for Neural Network Pruning]
      (https://arxiv.org/abs/1906.10771)
    """

    elementwise = True
    on_tensors = True
    needs = ("gradient_square",)

    def __call__(self, weight, gradient_square):
        return weight * weight * gradient_square


@CRITERIA.part()
@dataclass(frozen=True)
class HessianDiagonal(Criterion):
    """`w² E[g²] / 2`: second-order change of the loss, with `E[g²]` for the Hessian's diagonal.

    Needs data. The expectation is over batches: with batches of one example, it is the diagonal of
    the Fisher information; smaller batches come closer to it.

    Example:

    >>> tfprune.criteria.HessianDiagonal()(np.array([0.5, 3.0]), np.array([4.0, 1.0]))
    array([0.5, 4.5])

    Reference:

    - [LeCun et al., 1990: Optimal Brain Damage]
      (https://proceedings.neurips.cc/paper/1989/hash/6c9882bbac1c7093bd25041881277658-Abstract.html)
    """

    elementwise = True
    on_tensors = True
    needs = ("gradient_square",)

    def __call__(self, weight, gradient_square):
        return weight * weight * gradient_square / 2
