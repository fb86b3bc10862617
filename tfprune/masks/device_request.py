"""A request for the mask of one weight that stays on its device."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from tfprune import criteria, patterns
from tfprune.masks.device import DeviceScores
from tfprune.masks.requests import Request


@dataclass
class DeviceRequest(Request):
    """A request for the mask of one weight that stays on its device.

    Args:
        tensor: The weight, a float tensor.
        pattern: A pattern of single weights.
        criterion: A `tfprune.criteria.Criterion` that works `on_tensors`.
        axes: `KernelAxes` of the weight.
        mask: The current mask, a bool tensor.
        zeros_now: Number of weights that are pruned now.
        name: Name of the weight in error messages.
    """

    tensor: Any
    pattern: patterns.Pattern
    criterion: criteria.Criterion
    axes: patterns.KernelAxes
    mask: Any
    zeros_now: int
    name: str = "the weight"

    def __post_init__(self):
        shape = tuple(int(n) for n in self.tensor.shape)
        # The shape is known here, and nothing else of the weight.
        self.weight = np.broadcast_to(np.float32(0), shape)
        self.units = math.prod(shape)
        self.most_zeros = self.pattern.most_zeros(shape, self.axes)

    def device_scores(self, rising):
        """Returns the `DeviceScores` of the candidates: unpruned ones if `rising`."""
        mask = self.mask if self.zeros_now or not rising else None
        return DeviceScores((self.tensor,), self.criterion, mask, rising, self.name, self.zeros_now)

    def release(self):
        self.tensor, self.mask = None, None

    def spread(self, kept):
        """Returns the tensor of a `DeviceMask`."""
        return kept.tensor
