"""What all criteria share: the base class, and what they may ask for beside the weight."""

import numpy as np

from tfprune._base import validation as check
from tfprune._base.frozen import Frozen
from tfprune._base.registration import Parts

# What a criterion may name in `needs`, and what it then gets.
EVIDENCE = {
    "axes": "`KernelAxes` of the weight",
    "position": "place of the weight among those that are scored together",
    "initial": "the weight when it was wrapped",
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


CRITERIA = Parts("criterion", "tfprune.criteria", default="magnitude")


class Criterion(Frozen):
    """Base class of all criteria: frozen, and equal where their fields are equal.

    A criterion with `elementwise = True` scores each weight from its own value, and its own
    values in `needs`, alone. Only then may the mask kernel hand it the weight in pieces. Its score
    of a weight that is not finite must not be finite either: that is how such weights are found.

    `needs` names what else the criterion is called with, in that order:

    - "axes": the `KernelAxes` of the weight; "position": its place among those that are scored
      together. Not for elementwise criteria.
    - "initial": the weight's values when it was wrapped.
    - "scale": scale of the BatchNormalization that takes the layer's output.
    - "gradient", "gradient_square", "gradient_momentum": of the loss, over batches of data.
    - "activation_zeros", "activation_mean": of relu(output), over batches of data.

    All but the first two are float arrays of the shape of the weight; what belongs to an output
    channel stands at each of its weights.

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
    needs: tuple = ()
    # Whether all scores are equal until training has moved the weights.
    needs_movement = False

    def renewed(self, step):
        """Returns the criterion for an update at `step`: itself, unless its scores are random."""
        return self

    def __call__(self, weight, *evidence):
        """Scores a weight.

        Args:
            weight: Float NumPy array, or a piece of one if `elementwise`.
            *evidence: What `needs` names, in its order.

        Returns:
            A new array of the same shape: higher means keep. It must not be a view of `weight`.
        """
        raise NotImplementedError(
            f"A criterion has to implement `__call__(weight)`, and {type(self).__name__} does not."
        )


def no_evidence(criterion, need, name):
    """The message for a criterion that is not given what it needs."""
    if need in FROM_DATA:
        mend = "Give data=... to UpdatePruningStep, or to the pruner."
    elif need in ("initial", "scale"):
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
    """Returns values of output channels at all of their weights, as a view that holds them once.

    Args:
        values: One-dimensional array, one value a combination of the axes `outputs`.
        shape: Shape of the weight.
        outputs: Its non-negative output axes.
    """
    order = np.argsort(outputs)
    kept = np.asarray(values).reshape([shape[axis] for axis in outputs]).transpose(order)
    spread = [size if axis in outputs else 1 for axis, size in enumerate(shape)]
    return np.broadcast_to(kept.reshape(spread), shape)
