"""Removes experts from mixture-of-experts blocks."""

import copy

import numpy as np

from tfprune import _keras
from tfprune._base import validation as check
from tfprune._channels.graph import without_wrappers
from tfprune._keras.checks import check_followable
from tfprune._layers import registry
from tfprune.structural.configs import edit_counts
from tfprune.structural.least_experts import ExpertBlock, LeastExperts, most_chosen
from tfprune.structural.same_outputs import difference_of, is_rounding


def remove_experts(model, n, data):
    """Removes the experts whose absence changes the outputs least from every block of experts.

    An expert is removed as if its logit in the router were minus infinity: tokens that were sent to
    it go to the next experts. Each block first loses the expert whose removal changes the outputs
    of the block on the data least, by the sum of squares; then the next one, until `n` are removed.
    Later blocks are measured on the outputs of the smaller block. The smaller model computes
    different outputs: fine-tune it.

    Args:
        model: A built Sequential or Functional model, plain or wrapped, or a backbone or task of
            KerasHub, with banks of experts (weights whose first axis counts experts, as
            `KernelAxes(experts=True)` says). An argument `num_experts` of the model's class, or
            of the layers', counts them. It is not changed.
        n: Number of experts to remove from each block, at least 1. At least as many experts remain
            as each token is sent to.
        data: One batch of inputs, as for `model(data)`. The router of each block runs about `n`
            times the number of experts, on all positions, including padding.

    Returns:
        A new, plain, uncompiled model of the same class, with `num_experts` lower by `n`.

    Raises:
        TypeError: If `model` is not a Keras 3 model, or `n` not a whole number.
        ValueError: If there are no experts, too few would remain, no argument counts them, or the
            smaller model computes other outputs than the model without these experts.

    Example:

    >>> backbone = keras_hub.models.MixtralBackbone(
    ...     vocabulary_size=10, num_layers=1, num_query_heads=2, num_key_value_heads=1,
    ...     hidden_dim=8, intermediate_dim=16, num_experts=4, top_k=2,
    ... )  # doctest: +SKIP
    >>> ones = np.ones((1, 5), "int32")
    >>> data = {"token_ids": ones, "padding_mask": ones}
    >>> tfprune.structural.remove_experts(backbone, 1, data).num_experts  # doctest: +SKIP
    3

    Reference:
        Lu et al., "Not All Experts are Equal: Efficient Expert Pruning and Skipping for
        Mixture-of-Experts Large Language Models", 2024, which tries all sets of experts of a
        block; here they are removed one by one.
    """
    check_followable(model)
    check.integer("n", n, 1, "Use for instance 2.")
    model = without_wrappers(model)
    banks = _banks(model)
    number = _number(model, banks, n)
    with _keras.without_gradients():
        _check_chosen(model, banks, number, n, data)
    made = _with_fewer_experts(model, number, n)
    counted = _counted(model, made, number, n)
    blocks = _blocks(model, banks, counted)
    least = LeastExperts(blocks, number, n)
    with _keras.without_gradients():
        expected = least.run(model, data)
        _copy(model, made, counted, blocks, least.gone)
        found = difference_of(expected, made(data, training=False))
    if not is_rounding(model, found):
        raise _unknown(model, f"outputs that differ by {found:.2g} of the largest")
    return made


def _banks(model):
    """`{id: (layer, number of its experts)}` of the layers that hold banks of experts."""
    found = {}
    for layer in _keras.flatten(model):
        for weight in registry.own_prunable_weights(layer) or ():
            if weight.axes_of(layer).experts:
                found[id(layer)] = (layer, int(weight.get(layer).shape[0]))
    return found


def _number(model, banks, n):
    """Returns the number of experts of all blocks."""
    numbers = sorted({number for _, number in banks.values()})
    if len(numbers) == 1 and numbers[0] > n:
        return numbers[0]
    received = " and ".join(map(str, numbers)) or "none"
    mend = "Remove fewer of them."
    if len(numbers) != 1:
        mend = (
            "Weights of your own class hold experts if tfprune.register_prunable lists them with "
            "axes=KernelAxes(experts=True)."
        )
    raise ValueError(
        check.message(
            f"blocks with more than {n} experts, the same number in all",
            f"'{model.name}' with {received}",
            mend,
        )
    )


def _check_chosen(model, banks, number, n, data):
    """Raises if fewer experts would be left than each token is sent to."""
    around = [
        layer
        for layer in _keras.flatten(model)
        if any(id(child) in banks for child in _keras.children(layer))
    ]
    chosen = most_chosen(model, around, data)
    if chosen > number - n:
        raise ValueError(
            check.message(
                f"at least {chosen} experts to stay, as many as each token is sent to",
                f"n={n} of {number}",
                f"Remove at most {number - chosen}.",
            )
        )


def _with_fewer_experts(model, number, n):
    config = copy.deepcopy(model.get_config())
    if not edit_counts(config, ("num_experts",), number, number - n):
        raise _unknown(model, "a config without the number of experts")
    return type(model).from_config(config)


def _counted(model, made, number, n):
    """`{id of a weight: axis that counts experts}`: the axes that are shorter in `made`."""
    found = {}
    shapes = [[tuple(w.shape) for w in each.weights] for each in (model, made)]
    fits = len(shapes[0]) == len(shapes[1])
    for weight, old, new in zip(model.weights, *shapes, strict=False):
        axes = [axis for axis, size in enumerate(old) if new[axis : axis + 1] != (size,)]
        if axes:
            fits = fits and len(axes) == 1 and len(old) == len(new)
            fits = fits and (old[axes[0]], new[axes[0]]) == (number, number - n)
            found[id(weight)] = axes[0]
    if not fits:
        raise _unknown(model, "other weights for another number of them")
    return found


def _blocks(model, banks, counted):
    """Returns an `ExpertBlock` for each bank: the layer around it, with its routers."""
    blocks, inside = [], set()
    for layer in _keras.flatten(model):
        held = [child for child in _keras.children(layer) if id(child) in banks]
        if not held:
            continue
        inner = _keras.flatten(layer)
        routers = [part for part in inner if id(part) not in banks and _owns(part, counted)]
        if len(held) > 1 or not routers:
            raise _unknown(model, f"{len(held)} banks and {len(routers)} routers in '{layer.name}'")
        blocks.append(ExpertBlock(layer, held[0], routers))
        inside |= {id(weight) for weight in layer.weights}
    if not set(counted) <= inside:
        raise _unknown(model, "weights that count experts outside of the blocks")
    return blocks


def _owns(layer, counted):
    inner = {id(weight) for child in _keras.children(layer) for weight in child.weights}
    return any(id(w) in counted and id(w) not in inner for w in layer.weights)


def _copy(model, made, counted, blocks, gone):
    """Copies the weights of the larger model, without those of the removed experts."""
    kept = {
        id(weight): np.flatnonzero(~gone[id(block.layer)])
        for block in blocks
        for weight in block.layer.weights
        if id(weight) in counted
    }
    for old, new in zip(model.weights, made.weights, strict=True):
        value = _keras.host_array(old)
        if id(old) in kept:
            value = np.take(value, kept[id(old)], axis=counted[id(old)])
        new.assign(value)


def _unknown(model, received):
    return ValueError(
        check.message(
            "a class whose argument `num_experts` counts the experts, and routers whose outputs "
            "are logits",
            f"{received}, from '{model.name}' of class {type(model).__name__}",
            "Make channels inside the experts fewer with tfprune.shrink instead.",
        )
    )
