"""Criteria on whole output channels: each weight gets the score of its channel."""

from dataclasses import dataclass

import numpy as np

from tfprune.criteria.base import CRITERIA, Criterion, at_each_weight, by_unit


class _ByFilter(Criterion):
    needs: tuple = ("axes",)

    def __call__(self, weight, axes):
        outputs = axes.resolve(weight.ndim).outputs
        scores = self._of_filters(by_unit(weight, outputs)).astype("float32")
        return at_each_weight(scores, weight.shape, outputs)

    def _of_filters(self, filters):
        raise NotImplementedError


@CRITERIA.part("l1_filter")
@dataclass(frozen=True)
class L1Filter(_ByFilter):
    """`Σ |w|` over a filter: filters with a small L1 norm go first.

    Example:

    >>> weight = np.array([[3.0, 1.0], [-4.0, 1.0]])
    >>> tfprune.criteria.L1Filter()(weight, tfprune.patterns.KernelAxes())[0].tolist()
    [7.0, 2.0]

    Reference:

    - [Li et al., 2017: Pruning Filters for Efficient ConvNets](https://arxiv.org/abs/1608.08710)
    """

    def _of_filters(self, filters):
        return np.abs(filters).sum(axis=1)


@CRITERIA.part("l2_filter")
@dataclass(frozen=True)
class L2Filter(_ByFilter):
    """`sqrt(Σ w²)` over a filter: filters with a small L2 norm go first.

    Example:

    >>> weight = np.array([[3.0, 1.0], [-4.0, 0.0]])
    >>> tfprune.criteria.L2Filter()(weight, tfprune.patterns.KernelAxes())[0].tolist()
    [5.0, 1.0]
    """

    def _of_filters(self, filters):
        return np.sqrt(np.square(filters).sum(axis=1))


@CRITERIA.part()
@dataclass(frozen=True)
class FPGM(_ByFilter):
    """Sum of a filter's distances to all filters of its layer: the most central go first.

    The other filters of the layer can replace one that is near their geometric median. The memory
    needed grows with the weights of the layer, and the time with its weights times its filters.

    Example:

    >>> weight = np.array([[0.0, 3.0, 9.0]])
    >>> tfprune.criteria.FPGM()(weight, tfprune.patterns.KernelAxes()).tolist()
    [[12.0, 9.0, 15.0]]

    Reference:

    - [He et al., 2019: Filter Pruning via Geometric Median](https://arxiv.org/abs/1811.00250)
    """

    def _of_filters(self, filters):
        number, length = filters.shape
        # The sum of squares minus twice the products cancels least around the mean.
        filters = filters - filters.mean(axis=0)
        squares = np.square(filters).sum(axis=1)
        total = np.empty(number)
        rows = max(1, length)
        for start in range(0, number, rows):
            part = slice(start, start + rows)
            between = squares[part, None] + squares - 2 * (filters[part] @ filters.T)
            total[part] = np.sqrt(np.maximum(between, 0)).sum(axis=1)
        return total


@CRITERIA.part()
@dataclass(frozen=True)
class BatchNormScale(Criterion):
    """`|gamma|` of the BatchNormalization that follows the layer: Network Slimming.

    Use it with whole filters and global scope, after training with an L1 penalty on gamma
    (`keras.layers.BatchNormalization(gamma_regularizer="l1")`). A layer that no BatchNormalization
    follows directly raises an error; exempt it with a `tfprune.Rule`.

    Example:

    >>> tfprune.criteria.BatchNormScale()(np.ones((1, 2)), np.array([[-0.5, 2.0]]))
    array([[0.5, 2. ]])

    Reference:

    - [Liu et al., 2017: Learning Efficient Convolutional Networks through Network Slimming]
      (https://arxiv.org/abs/1708.06519)
    """

    elementwise = True
    on_tensors = True
    needs = ("scale",)

    def __call__(self, weight, scale):
        return abs(scale)


@CRITERIA.part("apoz")
@dataclass(frozen=True)
class APoZ(Criterion):
    """Negative average share of zeros in relu(output): mostly silent channels go first.

    Needs data. The layer's output includes its own activation.

    Example:

    >>> tfprune.criteria.APoZ()(np.ones((1, 2)), np.array([[0.25, 0.75]]))
    array([[-0.25, -0.75]])

    Reference:

    - [Hu et al., 2016: Network Trimming](https://arxiv.org/abs/1607.03250)
    """

    elementwise = True
    on_tensors = True
    needs = ("activation_zeros",)

    def __call__(self, weight, zeros):
        return -zeros


@CRITERIA.part()
@dataclass(frozen=True)
class MeanActivation(Criterion):
    """Mean of relu(output): channels with a low mean go first. Needs data.

    Example:

    >>> tfprune.criteria.MeanActivation()(np.ones((1, 2)), np.array([[0.25, 0.75]]))
    array([[0.25, 0.75]])

    Reference:

    - [Molchanov et al., 2017: Pruning Convolutional Neural Networks for Resource Efficient
      Inference](https://arxiv.org/abs/1611.06440)
    """

    elementwise = True
    on_tensors = True
    needs = ("activation_mean",)

    def __call__(self, weight, mean):
        return mean * 1
