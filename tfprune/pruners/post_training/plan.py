"""The plan: the blocks with their weights, and the sparsity of each."""

import glob
from dataclasses import dataclass, field
from typing import Any

import keras
import numpy as np

from tfprune import _keras, masks
from tfprune._base import validation as check
from tfprune._layers import registry
from tfprune._reports import prunable_weights
from tfprune._wrapping.methods import Rule
from tfprune.patterns.single_weights import NOfM
from tfprune.pruners.post_training.blocks import find_blocks, named_layers
from tfprune.pruners.post_training.products import Product, product_of
from tfprune.schedules.constant import ConstantSparsity


@dataclass(frozen=True)
class PlannedWeight:
    """A weight that will be pruned.

    Attributes:
        name: Its name in the plain model.
        path: Path of its layer.
        product: The layer's `Product`.
        entry: Its `PrunableWeight`.
    """

    name: str
    path: str
    product: Product
    entry: Any

    @property
    def kernel(self):
        """The values now."""
        return np.array(_keras.host_array(self.entry.get(self.product.layer)))


@dataclass
class PlannedBlock:
    """A block.

    Attributes:
        name: Its path.
        layer: The layer.
        weights: List of `PlannedWeight`s.
        sparsity: Fraction of each weight that goes.
    """

    name: str
    layer: Any
    weights: list
    sparsity: float = 0.0

    @property
    def size(self):
        """Number of weights."""
        return sum(int(np.prod(weight.product.shape)) for weight in self.weights)


@dataclass
class Planned:
    """The blocks, and the weights that stay dense.

    Attributes:
        blocks: List of `PlannedBlock`s.
        left_dense: `{name: reason}`.
        others: Paths of all other layers with weights that can be pruned.
    """

    blocks: list
    left_dense: dict = field(default_factory=dict)
    others: list = field(default_factory=list)

    def arguments(self, method, pattern, sparsity):
        """Returns the arguments of `prune_low_magnitude` by which exactly these are wrapped.

        Args:
            method: One of `methods`.
            pattern: `Unstructured` or `NOfM`.
            sparsity: The sparsity of a method that counts as the library does.
        """
        schedules: dict = {}
        for block in self.blocks:
            for weight in block.weights:
                size = int(np.prod(weight.product.shape))
                apart = weight.product.apart
                zeros = method.zeros(weight.product, block.sparsity, pattern)
                usual = apart * (size // apart - masks.kept_count(size // apart, sparsity))
                same = isinstance(pattern, NOfM) or zeros == usual
                schedules[weight.path] = None if same else zeros / size
        rules = _exactly(schedules, self.others)
        schedule = ConstantSparsity.one_shot(sparsity)
        return {"pruning_schedule": schedule, "pattern": pattern, "rules": rules}


def _exactly(inside, others):
    """Rules that wrap these layers and no others.

    A pattern means every path that ends with it. Longer paths come later, and so have the last
    word about what shorter ones meant too.

    Args:
        inside: `{path: sparsity}` of the layers, `None` for the one that all have.
        others: Paths of the other layers.
    """
    rules: list = [Rule(keras.layers.Layer, prune=False)]
    by_length: dict = {}
    for path in [*inside, *others]:
        key = (path.count("/"), path in inside, inside.get(path))
        by_length.setdefault(key, []).append(glob.escape(path))
    for (_, prune, share), paths in sorted(by_length.items(), key=lambda item: item[0][0]):
        schedule = None if share is None else ConstantSparsity.one_shot(share)
        rules.append(Rule(paths, schedule=schedule, prune=prune))
    return rules


def make_plan(model, blocks, layers, pattern):
    """Finds the blocks of a model and the weights in them.

    Args:
        model: A built plain model.
        blocks: See `find_blocks`.
        layers: Names of the layers to prune, `None` for all in the blocks.
        pattern: `Unstructured` or `NOfM`.

    Returns:
        A `Planned`.

    Raises:
        ValueError: If there is no weight to prune.
    """
    found = prunable_weights.find(model)
    meant = {id(weight.variable): weight for weight in prunable_weights.chosen(found, layers)}
    planned, left, taken = [], {}, set()
    paths = {id(layer): path for path, layer in named_layers(model)}
    for block in find_blocks(model, blocks):
        own = PlannedBlock(paths[id(block)], block, [])
        for layer in _keras.flatten(block):
            for entry in registry.own_prunable_weights(layer) or ():
                weight = meant.get(id(entry.get(layer)))
                if weight is None or id(weight.variable) in taken:
                    continue
                taken.add(id(weight.variable))
                reason, product = _judged(layer, entry, pattern)
                if reason:
                    left[weight.name] = reason
                else:
                    own.weights.append(PlannedWeight(weight.name, paths[id(layer)], product, entry))
        if own.weights:
            planned.append(own)
    if not planned:
        raise ValueError(
            check.message(
                "blocks with Dense, EinsumDense or convolution layers",
                f"'{model.name}', in which no such layer can be pruned",
                "Name the blocks with `blocks`, and look at the layers that `layers` leaves.",
            )
        )
    inside = {weight.path for block in planned for weight in block.weights}
    others = {paths.get(id(layer)) for layer in _keras.flatten(model) if _has_weights(layer)}
    return Planned(planned, left, sorted(others - inside - {None}))


def _has_weights(layer):
    return layer.built and bool(registry.own_prunable_weights(layer))


def _judged(layer, entry, pattern):
    """Returns the reason why a weight stays dense, or ""; and its `Product`."""
    product = product_of(layer, entry)
    if product is None:
        return f"left dense: the inputs of {type(layer).__name__} are not watched", None
    try:
        pattern.check(product.shape, product.axes)
    except ValueError:
        return f"left dense: {pattern} does not fit its shape", None
    return "", product


def sparsities_of(sparsity, blocks, pattern):
    """Checks `sparsity`, and returns one for each block.

    Args:
        sparsity: A fraction, or a list with one for each block.
        blocks: List of `PlannedBlock`s.
        pattern: `Unstructured` or `NOfM`.
    """
    if isinstance(sparsity, (list, tuple)):
        if len(sparsity) != len(blocks):
            raise ValueError(
                check.message(
                    f"one sparsity for each of the {len(blocks)} blocks",
                    f"{len(sparsity)} numbers",
                    f"The blocks are {', '.join(block.name for block in blocks)}."[:300],
                )
            )
        found = [check.sparsity(f"sparsity[{n}]", s) for n, s in enumerate(sparsity)]
    else:
        found = [check.sparsity("sparsity", sparsity)] * len(blocks)
    for one in found:
        pattern.check_target(one, "every block")
    return found
