"""The request for the mask of a group of coupled channels."""

import numpy as np
from keras import ops

from tfprune.masks import PooledRequest
from tfprune.masks.requests import Request
from tfprune.masks.selection import Scores
from tfprune.patterns.pooling import pooled
from tfprune.patterns.slices import Filter


class GroupRequest(Request):
    """The request of a group of channels.

    Args:
        coupling: The `Coupling`.
        requests: One request for each scored weight: a `MaskRequest`, or a `PooledRequest`, whose
            scores are pooled on the device.
        pruned: Bool array: True for channels that are pruned now.
        pattern: The `Filter` pattern.
    """

    pattern: Filter

    def __init__(self, coupling, requests, pruned, pattern):
        self.coupling, self.requests, self.pattern = coupling, requests, pattern
        self.alive = ~pruned
        self.units = coupling.size
        self.zeros_now = int(np.count_nonzero(pruned))
        self.most_zeros = max(coupling.most_zeros, self.zeros_now)
        largest = max(requests, key=lambda request: request.weight.size)
        self.weight, self.axes, self.name = largest.weight, largest.axes, requests[0].name

    def release(self):
        super().release()
        for request in self.requests:
            request.release()

    def scores(self, rising):
        """The scores of the candidate channels."""
        how = self.pattern.pooling
        columns = [
            request.column(how, part.axis)
            for request, part in zip(self.requests, self.coupling.scored, strict=True)
        ]
        pooled = self.pooled(columns)
        candidates = self.alive & ~self._kept_back(pooled) if rising else self.pruned
        return Scores(pooled, None, candidates, self.name)

    def begin(self, along=None):
        for request, part in zip(self.requests, self.coupling.scored, strict=True):
            request.begin((self.pattern.pooling, part.axis))

    def check_finite(self):
        for request in self.requests:
            request.check_finite()

    def squares(self):
        """Pooled squares of the weights, one for each channel."""
        columns = []
        for request, part in zip(self.requests, self.coupling.scored, strict=True):
            squares = request.weight.astype("float64") ** 2
            others = tuple(i for i in range(squares.ndim) if i != part.axis)
            columns.append(pooled(squares, others, self.pattern.pooling, keepdims=False))
        return self.pooled(columns)

    def pooled(self, columns):
        """Pools one vector for each scored weight into one number for each channel."""
        size = self.units + 1
        total, number = np.zeros(size, "float64"), np.zeros(size)
        most = np.full(size, -np.inf)
        for column, part in zip(columns, self.coupling.scored, strict=True):
            np.add.at(total, part.units, column)
            np.add.at(number, part.units, 1)
            np.maximum.at(most, part.units, column)
        if self.pattern.over_group == "MAX":
            return most[:-1]
        return (total if self.pattern.over_group == "SUM" else total / np.maximum(number, 1))[:-1]

    def spread(self, kept):
        """Returns the mask over channels, for `PrunedGroup.set_mask`: a tensor on the device."""
        kept = np.asarray(kept)
        on_device = isinstance(self.requests[0], PooledRequest)
        return ops.convert_to_tensor(kept) if on_device else kept

    def _kept_back(self, pooled):
        """The channels that are always kept: fixed ones, and each layer's best."""
        held = np.zeros(self.units, bool)
        held[list(self.coupling.fixed)] = True
        for units in self.coupling.sets:
            there = units[self.alive[units]]
            held[there[np.argmax(pooled[there])]] = True
        return held
