"""Gradients of several batches, added up."""

import numpy as np
from keras import ops

from tfprune import _keras, criteria
from tfprune._base import validation as check
from tfprune.patterns.pooling import over

_DECAY = 0.9


def anything(value):
    """Whether any value of an array or a tensor is not zero."""
    if isinstance(value, np.ndarray):
        return value.any()
    return bool(_keras.on_host(ops.any(ops.not_equal(value, 0))))


def are_finite(values):
    """Returns for each array or tensor whether all of its values are finite; one read for all."""
    found = [
        np.isfinite(value).all() if isinstance(value, np.ndarray) else ops.all(ops.isfinite(value))
        for value in values
    ]
    tensors = [one for one in found if not isinstance(one, np.generic)]
    read = iter(_keras.on_host(ops.stack(tensors)) if tensors else ())
    return [bool(one) if isinstance(one, np.generic) else bool(next(read)) for one in found]


class GradientSums:
    """Running sums of gradients over batches: of arrays, or of tensors where they are.

    Args:
        needs: `{id(weight): (weight, set of names of evidence)}`.
    """

    def __init__(self, needs):
        self._needs = needs
        self._number = 0
        self._sums: dict = {}

    def add(self, weights, gradients):
        self._number += 1
        for weight, gradient in zip(weights, gradients, strict=True):
            kept = self._sums.setdefault(id(weight), {})
            for need in self._needs[id(weight)][1] & set(criteria.FROM_GRADIENTS):
                if need == "gradient":
                    kept[need] = kept.get(need, 0) + gradient
                elif need == "gradient_square":
                    kept[need] = kept.get(need, 0) + gradient * gradient
                else:
                    kept[need] = _DECAY * kept.get(need, 0) + (1 - _DECAY) * gradient

    def of(self, weight):
        """Returns `{need: array}` for one weight."""
        kept = self._sums[id(weight)]
        for value in kept.values():
            if not anything(value):
                raise ValueError(
                    check.message(
                        f"gradients for {weight.name} that are not all zero",
                        f"zero everywhere, over {self._number} batches",
                        "The loss does not depend on this layer here: look for a dead activation "
                        "or too little data, or exempt the layer with tfprune.Rule("
                        f"{weight.layer.name!r}, prune=False).",
                    )
                )
        return {
            need: value if need == "gradient_momentum" else over(value, self._number)
            for need, value in kept.items()
        }
