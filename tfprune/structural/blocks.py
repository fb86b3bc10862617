"""Removes whole blocks from a stack of equal ones."""

import copy

import numpy as np

from tfprune import _keras
from tfprune._base import validation as check
from tfprune._channels.graph import without_wrappers
from tfprune._keras.checks import check_followable
from tfprune.structural.configs import edit_counts


def remove_blocks(model, n, data):
    """Removes the blocks that change their input least from a stack of equal blocks.

    The influence of a block is 1 - cosine(its input, its output), averaged over all positions of
    the data. The smaller model computes different outputs: fine-tune it.

    Args:
        model: A built Sequential or Functional model with a stack of layers of one class and one
            size, plain or wrapped; or a backbone or task of KerasHub, whose result is of the same
            class, with a smaller `num_layers`. It is not changed.
        n: How many blocks to remove, at least 1; one block is always kept.
        data: One batch of inputs, as for `model(data)`.

    Returns:
        A new, plain, uncompiled model.

    Raises:
        TypeError: If `model` is not a Keras 3 model, or `n` not a whole number.
        ValueError: If there is no stack of more than `n` blocks, or if the model's class gives
            blocks tasks by their position (as the sliding windows of Gemma3), or makes several
            stacks from one number.

    Example:

    >>> model = keras.Sequential([keras.Input((4,)), *[keras.layers.Dense(4) for _ in range(3)]])
    >>> small = tfprune.structural.remove_blocks(model, 1, data=np.eye(4, dtype="float32"))
    >>> len(small.layers)
    2

    Reference:
        Men et al., "ShortGPT: Layers in Large Language Models are More Redundant Than You
        Expect", 2024.
    """
    check_followable(model)
    check.integer("n", n, 1, "Use for instance 2.")
    model = without_wrappers(model)
    blocks = _stack(model)
    if len(blocks) <= n:
        raise ValueError(
            check.message(
                f"a stack of more than {n} equal blocks",
                f"'{model.name}' with {len(blocks)}",
                "Blocks are equal if they have the same class and the same sizes of weights.",
            )
        )
    influence = block_influence(model, blocks, data)
    gone = {id(blocks[place]) for place in np.argsort(influence, kind="stable")[:n]}
    if _keras.keeps_class(model):
        return _with_fewer_layers(model, blocks, [b for b in blocks if id(b) not in gone])

    def move(old, new):
        _keras.copy_weights(old, new)

    return _keras.rebuild_graph(
        model, lambda layer: None, lambda inner, number: inner.inputs[number].shape, move, gone
    )


def block_influence(model, blocks, data):
    """Measures how much each block changes its input.

    Args:
        model: The model.
        blocks: List of layers inside.
        data: One batch of inputs.

    Returns:
        Array with 1 - cosine(input, output) of each block.
    """
    places = {id(block): place for place, block in enumerate(blocks)}
    found = np.full(len(blocks), np.nan)

    def seen(layer, args, outputs):
        first = outputs[0] if isinstance(outputs, (list, tuple)) else outputs
        pair = [_keras.on_host(tensor).astype("float64") for tensor in (args[0], first)]
        if pair[0].shape != pair[1].shape:
            found[places[id(layer)]] = np.inf
            return
        product = (pair[0] * pair[1]).sum(axis=-1)
        norms = np.linalg.norm(pair[0], axis=-1) * np.linalg.norm(pair[1], axis=-1)
        found[places[id(layer)]] = 1 - np.mean(product / np.maximum(norms, 1e-12))

    with _keras.watched_calls(blocks, seen):
        model(data, training=False)
    if not np.isfinite(found).all():
        raise ValueError(
            check.message(
                "blocks whose outputs have the shape of their inputs",
                f"'{blocks[int(np.argmin(np.isfinite(found)))].name}'",
                "Only such blocks can be left out.",
            )
        )
    return found


def _stack(model):
    """Returns the equal layers that hold most of a model's weights, in their order."""
    stacks: dict = {}
    for layer in _keras.flatten(model)[1:]:
        if layer.weights and not _keras.is_graph(layer):
            stacks.setdefault(_kind(layer), []).append(layer)
    # Of equal sums, the outermost layers come first.
    return max(stacks.values(), key=_size, default=[])


def _kind(layer):
    return type(layer), _shapes(layer.weights)


def _size(layers):
    weights = [weight for layer in layers for weight in layer.weights]
    return sum(int(np.prod(weight.shape)) for weight in weights) if len(layers) > 1 else 0


def _shapes(weights):
    return tuple(tuple(weight.shape) for weight in weights)


def _with_fewer_layers(model, blocks, kept):
    """Makes a model of the same class with fewer layers, and copies their weights."""
    config = copy.deepcopy(model.get_config())
    edited = edit_counts(config, ("num_layers",), len(blocks), len(kept))
    made = type(model).from_config(config) if edited else model
    new = [layer for layer in _keras.flatten(made) if _kind(layer) == _kind(blocks[0])]
    inside = {id(weight) for block in blocks for weight in block.weights}
    inside |= {id(weight) for block in new for weight in block.weights}
    rests = [[w for w in each.weights if id(w) not in inside] for each in (model, made)]
    fits = len(new) == len(kept) and _shapes(rests[0]) == _shapes(rests[1])
    if not fits or any(_facts(a) != _facts(b) for a, b in zip(kept, new, strict=True)):
        raise ValueError(
            check.message(
                "a model of which any block can be left out",
                f"{type(model).__name__}, whose constructor does not give the blocks that stay",
                "Remove channels and heads with tfprune.shrink instead.",
            )
        )
    for old, target in zip(kept, new, strict=True):
        _keras.copy_variables(old.weights, target.weights, old.name)
    _keras.copy_variables(rests[0], rests[1], model.name)
    return made


def _facts(block):
    """Returns the public numbers and switches of a block and of the layers inside it."""
    return [
        {
            name: value
            for name, value in vars(layer).items()
            if type(value) in (bool, int, float) and not name.startswith("_")
        }
        for layer in _keras.flatten(block)
    ]
