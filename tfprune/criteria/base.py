"""The base class of all criteria, and the evidence that a criterion can request."""

import numpy as np

from tfprune._base import validation as check
from tfprune._base.frozen import Frozen
from tfprune._base.registration import PartRegistry

# The names that `needs` can hold, and the evidence that each of them requests.
EVIDENCE = {
    "axes": "`KernelAxes` of the weight",
    "position": "place of the weight among those that are scored together",
    "initial": "the weight when it was wrapped",
    "dual": "the dual variable of ADMM, which keeps it while it trains",
    "scale": "scale of the BatchNormalization that follows the layer, at each of its weights",
    "gradient": "gradient of the loss, its mean over the batches",
    "gradient_square": "square of a batch's gradient, its mean over the batches",
    "gradient_momentum": "moving average of the gradient over the batches, decay 0.9",
    "activation_zeros": "share of zeros in relu(output) of the weight's output channel",
    "activation_mean": "mean of relu(output) of the weight's output channel",
}
FROM_GRADIENTS = ("gradient", "gradient_square", "gradient_momentum")
FROM_ACTIVATIONS = ("activation_zeros", "activation_mean")
FROM_DATA = (*FROM_GRADIENTS, *FROM_ACTIVATIONS)


CRITERIA = PartRegistry("criterion", "tfprune.criteria", default="magnitude")


class Criterion(Frozen):
    """Base class of all criteria: immutable, and equal if their fields are equal.

    A criterion with `elementwise = True` scores each weight from its own value, and its own
    values in `needs`, alone; the mask kernel may then pass it the weight in pieces. It must return
    a non-finite score for a non-finite weight, because tfprune detects such weights by their
    scores.

    `needs` names the further arguments of a call, in order:

    - "axes": the `KernelAxes` of the weight; "position": its index among the weights that are
      scored together. Not for elementwise criteria.
    - "initial": the weight's values when it was wrapped.
    - "scale": scale of the BatchNormalization that follows the layer.
    - "gradient", "gradient_square", "gradient_momentum": of the loss, over batches of data.
    - "activation_zeros", "activation_mean": of relu(output), over batches of data.

    All but the first two are float arrays of the weight's shape; a value of an output channel is
    repeated at each weight of the channel.

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
    # Whether `__call__` takes tensors of the backend as it takes arrays, and adds up no products:
    # then every device computes the same bits.
    on_tensors = False
    needs: tuple = ()
    # Whether all scores are equal until training moves the weights.
    needs_movement = False

    def __init_subclass__(cls, **kwargs):
        super().__init_subclass__(**kwargs)
        if "on_tensors" not in vars(cls) and "__call__" in vars(cls):
            cls.on_tensors = False

    def renewed(self, step):
        """Returns the criterion for an update at `step`: itself, unless its scores are random."""
        return self

    def __call__(self, weight, *evidence):
        """Scores a weight.

        Args:
            weight: Float NumPy array, or a piece of one if `elementwise`.
            *evidence: The evidence that `needs` names, in the same order.

        Returns:
            A new array of the same shape, not a view of `weight`; higher scores are kept.
        """
        raise NotImplementedError(
            f"A criterion has to implement `__call__(weight)`, and {type(self).__name__} does not."
        )


def no_evidence(criterion, need, name):
    """The message for a criterion whose evidence is missing."""
    if need in FROM_DATA:
        mend = "Give data=... to UpdatePruningStep, or to the pruner."
    elif need in ("initial", "scale", "dual"):
        mend = f"Use it through prune_low_magnitude, or give evidence={{{need!r}: ...}}."
    else:
        mend = "A criterion's `needs` may name " + ", ".join(EVIDENCE) + "."
    return check.message(
        f"{need!r} for {name}: {EVIDENCE.get(need, 'unknown')}",
        f"none, for {criterion!r}",
        mend,
    )


def by_unit(weight, outputs):
    """Returns a weight as a float64 matrix: a row for each combination of the axes `outputs`."""
    rest = tuple(axis for axis in range(weight.ndim) if axis not in outputs)
    rows = int(np.prod([weight.shape[axis] for axis in outputs]))
    return weight.transpose(outputs + rest).reshape(rows, -1).astype("float64")


def at_each_weight(values, shape, outputs):
    """Broadcasts values of output channels to all weights of the channels, as a view.

    Args:
        values: One-dimensional array, one value for each combination of the axes `outputs`.
        shape: Shape of the weight.
        outputs: Output axes of the weight, non-negative.
    """
    order = np.argsort(outputs)
    kept = np.asarray(values).reshape([shape[axis] for axis in outputs]).transpose(order)
    spread = [size if axis in outputs else 1 for axis, size in enumerate(shape)]
    return np.broadcast_to(kept.reshape(spread), shape)
