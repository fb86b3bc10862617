"""The choice of the units that go, for any number of weights in any number of groups."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from tfprune import _keras, patterns
from tfprune._base import validation as check
from tfprune.masks.device import counting
from tfprune.masks.device.keys import KEPT, MOST, keys_function
from tfprune.masks.selection import raise_not_finite

# Larger arrays are not stacked with others of their shape: a stack is a copy.
_ALONE = 1 << 24


@dataclass
class DeviceScores:
    """The scores of the units of one weight, as tensors of the backend.

    Args:
        values: Tuple of float tensors of one shape, the weight first.
        score: Elementwise function from `values` to scores, hashable, of tensors.
        mask: bool tensor over weights, True = keep, or `None` if nothing is pruned.
        rising: Whether units that are kept now are to choose from, otherwise the pruned ones.
        name: Name of the weight in error messages.
        zeros_now: Number of units that are pruned now.
        pattern: The `Pattern` that pools scores into units; `None` if units are single weights.
        axes: The `KernelAxes` that the pattern takes.
    """

    values: tuple
    score: Callable
    mask: Any = None
    rising: bool = True
    name: str = "the weight"
    zeros_now: int = 0
    pattern: patterns.Pattern | None = None
    axes: patterns.KernelAxes | None = None

    @property
    def shape(self):
        return tuple(int(n) for n in self.values[0].shape)

    @property
    def weights(self):
        """Number of weights."""
        return math.prod(self.shape)

    @property
    def size(self):
        """Number of units."""
        if self.pattern is None:
            return self.weights
        return self.pattern.unit_count(self.shape, self.axes)


@dataclass
class DeviceMask:
    """A mask on the device.

    Attributes:
        tensor: bool tensor over units; `None` for the mask that there is already.
        size: Number of units.
        zeros: Number of pruned units.
    """

    tensor: Any
    size: int
    zeros: int

    def count(self):
        """Returns the number of units that are kept."""
        return self.size - self.zeros


def keep_device_masks(groups):
    """Marks all but the lowest scores of each group, as `keep_masks` does on the host.

    Args:
        groups: List of `(list of DeviceScores, zeros)`: how many units of all of them together
            are left unmarked, in addition to those that are pruned already if `rising`.

    Returns:
        List of `(list of DeviceMask, threshold)`.

    Raises:
        ValueError: If a score or a weight is not finite, or a group has too few units; the masks
            are not changed then.
    """
    items = [item for scores, _ in groups for item in scores]
    group_of = np.repeat(np.arange(len(groups)), [len(scores) for scores, _ in groups])
    wanted = np.array([zeros for _, zeros in groups], "int64")
    stacks = [_Stack(items, places) for places in _stacks(items).values()]
    for stack in stacks:
        stack.make_keys()
    keys = [stack.keys for stack in stacks]
    groups_of = [group_of[stack.places].astype("int32") for stack in stacks]
    thresholds, below, equal = _counted(keys, groups_of, wanted)
    for stack in stacks:
        stack.check_finite()
    keys_at = thresholds[group_of]
    order = np.concatenate([stack.places for stack in stacks])
    below, equal = (_in_order(counts, order) for counts in (below, equal))
    going = np.zeros(len(items), "int64")
    for number, zeros in enumerate(wanted):
        if thresholds[number] >= KEPT:
            raise ValueError(
                check.message(
                    "at least `zeros` units to choose from", f"zeros={zeros}", "Ask for fewer."
                )
            )
        own = np.flatnonzero(group_of == number)
        # Of the units at the threshold, the last ones go.
        left = zeros - below[own].sum()
        for place in own[::-1]:
            going[place] = min(left, equal[place])
            left -= going[place]
    masks: list = [None] * len(items)
    for stack in stacks:
        own = stack.places
        for place, tensor in zip(
            own, stack.mark(keys_at[own], equal[own] - going[own], equal[own]), strict=True
        ):
            item = items[place]
            zeros = int(below[place] + going[place]) + (item.zeros_now if item.rising else 0)
            masks[place] = DeviceMask(tensor, item.size, zeros)
    found = iter(masks)
    return [
        ([next(found) for _ in scores], _score_of(threshold) if zeros else -math.inf)
        for (scores, zeros), threshold in zip(groups, thresholds, strict=True)
    ]


def check_device_scores(items):
    """Raises ValueError unless all scores and weights are finite."""
    for places in _stacks(items).values():
        stack = _Stack(items, places)
        stack.make_keys()
        stack.check_finite()


class _Stack:
    """Weights of equal shape, which one computation scores, counts and marks together."""

    def __init__(self, items, places):
        self.places = np.array(places)
        self._items = [items[place] for place in places]
        self.keys: Any = None
        self._finite: Any = None

    def make_keys(self):
        first = self._items[0]
        masks = [] if first.mask is None else [item.mask for item in self._items]
        run = keys_function(first.score, first.rising, first.pattern, first.axes)
        self.keys, self._finite = run([item.values for item in self._items], masks)

    def check_finite(self):
        for item, finite in zip(self._items, _keras.on_host(self._finite), strict=True):
            if not finite:
                raise_not_finite(item.name)

    def mark(self, thresholds, staying, equal):
        """Returns one mask each; of the units at the threshold, the first `staying` are kept."""
        size = self._items[0].size
        # None of them, or all.
        cuts = np.where(staying > 0, size, 0).astype("int32")
        at = thresholds.astype("int32")
        partly = (staying > 0) & (staying < equal)
        if partly.any():
            run = counting.compiled(counting.cut)
            found = _keras.on_host(run(self.keys, at, staying.astype("int32")))
            cuts = np.where(partly, found, cuts).astype("int32")
        marked = counting.compiled(counting.mark)(self.keys, at, cuts)
        return counting.compiled(counting.split)(marked)


def _stacks(items):
    """`{what items have in common: their places}`."""
    found: dict = {}
    for place, item in enumerate(items):
        alone = place if item.weights > _ALONE else None
        masked = item.mask is not None
        kinds = tuple(str(value.dtype) for value in item.values)
        layout = _keras.layout_of(item.values[0])
        units = (item.pattern, item.axes)
        same = (item.shape, kinds, layout, item.score, masked, item.rising, units)
        found.setdefault((same, alone), []).append(place)
    return found


def _counted(keys, groups, wanted):
    """Returns the threshold of each group; for each weight, the counts below and at it."""
    lower = (1 << counting.LIMB) - 1
    limbs = np.stack([wanted >> counting.LIMB, wanted & lower]).astype("int32")
    found = counting.compiled(counting.find)(keys, groups, limbs)
    thresholds, below, up_to = (_keras.on_host(item).astype("int64") for item in found)
    return thresholds, below, up_to - below


def _in_order(counts, order):
    found = np.empty(len(order), "int64")
    found[order] = counts
    return found


def _score_of(key):
    """Returns the float32 score of an ordered key."""
    bits = np.int32(key) if key >= 0 else np.int32(key) ^ np.int32(MOST)
    return float(bits.view("float32"))
