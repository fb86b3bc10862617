"""The methods: the statistics that each needs of a layer's inputs, and its masks and values."""

from dataclasses import dataclass

import numpy as np

from tfprune import masks
from tfprune._base import validation as check
from tfprune.patterns.single_weights import NOfM
from tfprune.pruners.post_training import choosing, least_squares


@dataclass(frozen=True)
class Pruned:
    """A kernel after pruning.

    Attributes:
        mask: bool array of the kernel's shape: True = keep.
        kernel: Its new values, or `None` if those that stay are unchanged.
        note: What the user should know, or "".
    """

    mask: np.ndarray
    kernel: np.ndarray | None = None
    note: str = ""


@dataclass(frozen=True)
class ByMagnitude:
    """Removes the smallest weights of each kernel."""

    name = "magnitude"
    needs_data = False
    needs_hessian = False
    changes_weights = False

    def zeros(self, product, sparsity, pattern):
        """Number of weights that go from one kernel."""
        if isinstance(pattern, NOfM):
            return pattern.most_zeros(product.shape, product.axes)
        units = int(np.prod(product.shape)) // product.apart
        return product.apart * (units - masks.kept_count(units, sparsity))

    def prune(self, product, kernel, statistics, sparsity, pattern, name):
        """Returns the `Pruned` kernel.

        Args:
            product: The layer's `Product`.
            kernel: Its values.
            statistics: `InputStatistics`, or `None` if the method needs no data.
            sparsity: Fraction of the weights that goes.
            pattern: `Unstructured` or `NOfM`.
            name: Name of the weight for messages.
        """
        return Pruned(choosing.by_magnitude(product, kernel, sparsity, pattern))


@dataclass(frozen=True)
class ByWanda(ByMagnitude):
    """Removes, in each output, the weights with the smallest product with their input's norm."""

    name = "wanda"
    needs_data = True

    def zeros(self, product, sparsity, pattern):
        if isinstance(pattern, NOfM):
            return super().zeros(product, sparsity, pattern)
        groups, inputs, outputs = product.matrices(np.empty(product.shape, "bool")).shape
        return groups * outputs * (inputs - masks.kept_count(inputs, sparsity))

    def prune(self, product, kernel, statistics, sparsity, pattern, name):
        _check_finite(statistics, name)
        norms = np.ones(product.matrices(kernel).shape[:2])
        if statistics.seen:
            norms = np.array(np.broadcast_to(statistics.norms(), norms.shape))
            norms[statistics.unseen] = 1.0
        mask = choosing.by_wanda(product, kernel, norms, sparsity, pattern)
        return Pruned(mask, note=_unseen(statistics))


@dataclass(frozen=True)
class BySparseGPT(ByMagnitude):
    """Removes weights so that the weights that stay can make up for them, and changes these.

    Args:
        damping: See `tfprune.pruners.sparse_gpt`.
    """

    damping: float = 0.01

    name = "sparse_gpt"
    needs_data = True
    needs_hessian = True
    changes_weights = True

    def prune(self, product, kernel, statistics, sparsity, pattern, name):
        _check_finite(statistics, name)
        mask = choosing.by_magnitude(product, kernel, sparsity, pattern)
        if not statistics.seen:
            return Pruned(mask, note=_unseen(statistics))
        by_magnitude = product.matrices(mask)
        matrices = product.matrices(kernel).astype("float64")
        groups = None
        if isinstance(pattern, NOfM):
            groups = least_squares.groups_of(pattern, matrices.shape[1], product.run)
        kept, damping = np.empty(matrices.shape, bool), self.damping
        hessians = statistics.hessian()
        shared = len(hessians) == 1
        for number in range(len(matrices)):
            if number in statistics.unseen:
                kept[number] = by_magnitude[number]
                continue
            hessian = hessians[0 if shared else number]
            dead = np.diagonal(hessian) == 0
            hessian = hessian + np.diag(dead.astype("float64") * _typical(hessian))
            found = least_squares.inverse_factor(hessian, self.damping)
            if found is None:
                raise ValueError(
                    check.message(
                        f"the inputs of {name} to have a Hessian that damping makes positive "
                        "definite",
                        "one that a damping of 1 leaves singular",
                        "Give more samples, or exempt the layer with `layers`.",
                    )
                )
            factor, used = found
            damping = max(damping, used)
            matrices[number], kept[number] = least_squares.prune_matrix(
                matrices[number], factor, dead, sparsity, groups
            )
        note = "" if damping == self.damping else f"damping raised to {damping:g}"
        note = "; ".join(filter(None, (note, _unseen(statistics))))
        return Pruned(product.kernel(kept), product.kernel(matrices), note)


def _unseen(statistics):
    if not statistics.seen:
        return "by magnitude: no sample reached it"
    which = ", ".join(map(str, statistics.unseen))
    return f"experts or groups {which} by magnitude: no sample reached them" if which else ""


def _typical(hessian):
    """Returns a typical diagonal entry, for inputs that were always zero; 1 if all were."""
    diagonal = np.diagonal(hessian)
    return float(diagonal.mean()) or 1.0


def _check_finite(statistics, name):
    if not statistics.finite:
        raise ValueError(
            check.message(
                f"finite inputs of {name}",
                "NaN or infinity",
                "Look for NaN in the data, or for an overflow of half precision in the model.",
            )
        )
