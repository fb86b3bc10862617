"""Patterns whose units are single weights."""

from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
from keras import ops

from tfprune._base import validation as check
from tfprune.patterns.axes import from_matrices, matrix_shape, namespace_of, to_matrices
from tfprune.patterns.base import PATTERNS, Pattern


class EachWeight(Pattern):
    """Patterns whose units are single weights."""

    on_tensors = True

    def pool(self, scores, axes):
        return scores

    def expand(self, units, shape, axes):
        return namespace_of(units).reshape(units, shape)

    def collapse(self, mask, axes):
        return mask

    def unit_count(self, shape, axes):
        return prod(shape)


@PATTERNS.part()
@dataclass(frozen=True)
class Unstructured(EachWeight):
    """Prunes single weights, each on its own.

    Example:

    >>> tfprune.Unstructured().unit_count((3, 4), None)
    12
    """


@PATTERNS.part()
@dataclass(frozen=True)
class NOfM(EachWeight):
    """Puts `zeros` zeros into every group of `group` neighbors along the input channels, as in 2:4.

    While the sparsity rises, it is always exact: the prunable weights with the lowest scores go
    first, and no group ever has more than `zeros` zeros. An incomplete last group counts as padded
    with zeros, as in the deployed layout.

    Args:
        zeros: Zeros in each group, from 1 to `group - 1`.
        group: Weights in each group, at least 2.

    Raises:
        ValueError, TypeError: For numbers out of range.

    Example:

    >>> scores = np.array([[1.0], [4.0], [3.0], [2.0]])
    >>> tfprune.compute_mask(scores, 0.5, pattern=tfprune.NOfM(2, 4)).ravel()
    array([False,  True,  True, False])
    """

    on_tensors = True
    zeros: int = 2
    group: int = 4

    def __post_init__(self):
        mend = "NOfM(zeros=2, group=4) puts 2 zeros into every 4 weights."
        group = check.integer("group", self.group, 2, mend)
        zeros = check.integer("zeros", self.zeros, 1, mend)
        if zeros >= group:
            raise ValueError(
                check.message("`zeros` to be less than `group`", f"{zeros=}, {group=}", mend)
            )
        object.__setattr__(self, "zeros", zeros)
        object.__setattr__(self, "group", group)

    def check(self, shape, axes, name="the weight"):
        if not matrix_shape(shape, axes.of_product)[1] > 1:
            raise ValueError(
                check.message(
                    f"{name} to have input channels to group for {self}",
                    f"shape={tuple(shape)}, where every output reads a single input channel",
                    "Exempt this layer with tfprune.Rule(..., prune=False).",
                )
            )

    def check_target(self, sparsity, name):
        if abs(sparsity - self.zeros / self.group) > 1e-6:
            raise ValueError(
                check.message(
                    f"the schedule of {name} to end at {self.zeros}/{self.group} = "
                    f"{self.zeros / self.group:g}, the sparsity of {self}",
                    f"a target sparsity of {sparsity:g}",
                    f"Set the schedule's sparsity to {self.zeros / self.group:g}, "
                    "or choose another pattern.",
                )
            )

    def most_zeros(self, shape, axes):
        spatial, inputs, outputs = matrix_shape(shape, axes.of_product)
        return spatial * outputs * self._zeros_in_column(inputs)

    def _zeros_in_column(self, inputs):
        whole, rest = divmod(inputs, self.group)
        return whole * self.zeros + max(0, self.zeros - (self.group - rest) if rest else 0)

    def eligible(self, scores, pruned, axes):
        axes = axes.of_product
        names, shape = namespace_of(scores), tuple(int(n) for n in scores.shape)
        if pruned is not None:
            scores = names.where(pruned, names.full_like(scores, _below_all(scores)), scores)
        columns = to_matrices(scores, axes)
        positions, inputs, outputs = (int(n) for n in columns.shape)
        whole = inputs // self.group * self.group
        parts = []
        if whole:
            grouped = (positions, whole // self.group, self.group, outputs)
            lowest = _lowest(names.reshape(columns[:, :whole], grouped), self.zeros)
            parts.append(names.reshape(lowest, (positions, whole, outputs)))
        if inputs > whole:
            left = self.zeros - (self.group - (inputs - whole))
            parts.append(_lowest(columns[:, None, whole:], left)[:, 0])
        may_go = parts[0] if len(parts) == 1 else names.concatenate(parts, axis=1)
        return from_matrices(may_go, shape, axes)


def _below_all(scores):
    """A number below all scores, which may be whole numbers."""
    return -(2**31) if str(scores.dtype).endswith("int32") else -np.inf


def _lowest(groups, number):
    """Marks the `number` lowest scores along axis 2; of equal scores, the later ones go first."""
    names, size = namespace_of(groups), int(groups.shape[2])
    if number <= 0:
        return names.zeros_like(groups, dtype="bool")
    marked = []
    for i in range(size):
        rank: Any = 0
        for j in range(size):
            if j != i:
                other, own = groups[:, :, j], groups[:, :, i]
                before = other < own if j < i else other <= own
                rank = rank + (before.astype("int16") if names is np else ops.cast(before, "int16"))
        marked.append(rank < number)
    return names.stack(marked, axis=2)
