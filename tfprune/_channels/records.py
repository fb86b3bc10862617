"""The records of a ledger: weights that are cut, readings, and entries of configs."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Cut:
    """One axis of a weight, whose positions are removed with their labels.

    Attributes:
        layer: The layer.
        variable: The weight.
        axis: The axis, counted from the front.
        labels: One label for each position.
        reads: Whether the weight reads these channels; otherwise it makes or changes them.
    """

    layer: object
    variable: object
    axis: int
    labels: np.ndarray
    reads: bool


@dataclass(frozen=True)
class Reading:
    """A reading by a layer that mixes channels into others.

    Attributes:
        layer: The layer.
        labels: The labels that it reads.
        values: The values of these channels.
        fold: Function from one number for each position, the constants that are removed, to the
            correction of the bias; `None` if no bias can make up for them.
        why: The reason, if no bias can.
        part: Name of this reading, if the layer has several.
    """

    layer: object
    labels: np.ndarray
    values: np.ndarray
    fold: Callable | None
    why: str
    part: str = ""


@dataclass(frozen=True)
class Edit:
    """An entry of a layer's config that depends on the kept channels.

    Attributes:
        layer: The layer or operation.
        key: The name of the entry.
        labels: The labels that the entry depends on.
        value: Function from the number of kept positions in `labels` to the entry.
        also: Further labels; removing one of them updates the entry, too.
    """

    layer: object
    key: str
    labels: np.ndarray
    value: Callable
    also: np.ndarray
