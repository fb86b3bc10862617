"""Requests for the masks of weights that stay on their device."""

import functools
from dataclasses import dataclass
from typing import Any

import numpy as np
from keras import ops

from tfprune import _keras, criteria, patterns
from tfprune.masks.device import pooling
from tfprune.masks.device.choosing import DeviceScores, check_device_scores
from tfprune.masks.requests import Request
from tfprune.masks.selection import Scores, raise_not_finite


@dataclass
class OnDevice(Request):
    """A request for the mask of one weight that stays on its device.

    Args:
        tensor: The weight, a float tensor.
        pattern: A pattern that works `on_tensors`.
        criterion: A `tfprune.criteria.Criterion` that works `on_tensors`.
        axes: `KernelAxes` of the weight, resolved.
        mask: The current mask, a bool tensor, or `None` if nothing is pruned.
        pruned_weights: Number of weights that are pruned now.
        name: Name of the weight in error messages.
        evidence: What the criterion `needs`, in order: tensors, or arrays of the weight's shape.
    """

    tensor: Any
    pattern: patterns.Pattern
    criterion: criteria.Criterion
    axes: patterns.KernelAxes
    mask: Any
    pruned_weights: int
    name: str = "the weight"
    evidence: tuple = ()

    def __post_init__(self):
        self.shape = tuple(int(n) for n in self.tensor.shape)
        # The shape is known here, and nothing else of the weight.
        self.weight = np.broadcast_to(np.float32(0), self.shape)
        self.pattern.check(self.shape, self.axes, self.name)
        self.units = self.pattern.unit_count(self.shape, self.axes)
        self.most_zeros = self.pattern.most_zeros(self.shape, self.axes)
        self.values = (self.tensor, *(_as_tensor(array) for array in self.evidence))

    def _checked_values(self):
        """The weight and the evidence; raises if there is less than the criterion needs."""
        missing = self.criterion.needs[len(self.evidence) :]
        if missing:
            raise ValueError(criteria.no_evidence(self.criterion, missing[0], self.name))
        return self.values

    def release(self):
        self.tensor, self.values, self.evidence = None, (), ()

    def _expanded(self, units):
        if self.units == self.weight.size:
            return ops.reshape(ops.convert_to_tensor(units), self.shape)
        like = [] if self.mask is None else [self.mask]
        return pooling.expansion(self.pattern, self.axes, self.shape)(units, like)


class DeviceRequest(OnDevice):
    """A request whose mask is chosen on the device."""

    def __post_init__(self):
        super().__post_init__()
        self._alive = None
        if self.pruned_weights and self.units < self.weight.size:
            # Dispatched for all weights before the first is read.
            self._alive = pooling.alive_function(self.pattern, self.axes, True)(self.mask)

    @functools.cached_property
    def zeros_now(self):  # type: ignore[override]
        if self._alive is None:
            return self.pruned_weights
        return self.units - int(_keras.on_host(self._alive))

    def device_scores(self, rising):
        """Returns the `DeviceScores` of the candidates: unpruned ones if `rising`."""
        mask = self.mask if self.zeros_now or not rising else None
        single = type(self.pattern) is patterns.Unstructured
        return DeviceScores(
            self._checked_values(),
            self.criterion,
            mask,
            rising,
            self.name,
            self.zeros_now,
            None if single else self.pattern,
            None if single else self.axes,
        )

    def weight_alone(self):
        """Returns `DeviceScores` that tell whether the weight is finite."""
        return DeviceScores((self.tensor,), abs, name=self.name)

    def spread(self, kept):
        """Expands a `DeviceMask` to a tensor over the weight."""
        return self._expanded(kept.tensor)

    def zeros_of(self, kept):
        """Returns how many weights a `DeviceMask` prunes; `None` if that has to be counted."""
        return kept.zeros if self.units == self.weight.size else None


class PooledRequest(OnDevice):
    """A request whose scores are pooled on the device; the host chooses among the few units."""

    def __post_init__(self):
        super().__post_init__()
        self._alive: Any = None
        self._pooled: Any = None
        if self.pruned_weights:
            self._alive = pooling.alive_function(self.pattern, self.axes, False)(self.mask)

    @functools.cached_property
    def alive(self):  # type: ignore[override]
        if self._alive is None:
            return np.broadcast_to(np.True_, self.units)
        return _keras.on_host(self._alive).reshape(-1)

    @functools.cached_property
    def zeros_now(self):  # type: ignore[override]
        return self.units - int(np.count_nonzero(self.alive)) if self.pruned_weights else 0

    def begin(self, along=None):
        pool: Any = pooling.OfUnits(self.pattern, self.axes)
        if along is not None:
            how, axis = along
            pool = pooling.AlongAxis(how, axis, len(self.shape))
        self._pooled = pooling.scores(self._checked_values(), self.criterion, pool)

    def scores(self, rising):
        """The scores of the candidate units: unpruned ones if `rising`, otherwise pruned ones."""
        found = self._read().reshape(-1)
        return Scores(found, None, self.alive if rising else self.pruned, self.name)

    def column(self, how, axis):
        """Pools the scores of each position of one axis into one, in float64; see `MaskRequest`."""
        if self._pooled is None:
            self.begin((how, axis))
        return self._read().astype("float64")

    def check_finite(self):
        check_device_scores([DeviceScores((self.tensor,), abs, name=self.name)])

    def _read(self):
        if self._pooled is None:
            self.begin()
        found, finite = self._pooled
        self._pooled = None
        if not _keras.on_host(finite):
            raise_not_finite(self.name)
        return _keras.on_host(found)

    def release(self):
        super().release()
        self._alive = self._pooled = None
        self.alive = np.empty(0, dtype=bool)

    def spread(self, kept):
        """Expands a flat bool array, or `Bits`, over units to a tensor over the weight."""
        return self._expanded(np.asarray(kept))


def _as_tensor(array):
    """A tensor of an array; of one that repeats values, the values alone are copied."""
    if not isinstance(array, np.ndarray):
        return array
    once = tuple(slice(1) if step == 0 else slice(None) for step in array.strides)
    tensor = ops.convert_to_tensor(np.ascontiguousarray(array[once]))
    return ops.broadcast_to(tensor, array.shape)
