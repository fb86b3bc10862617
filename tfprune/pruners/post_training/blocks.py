"""The stack of blocks in a model, which are pruned one after the other."""

import math
from collections import Counter

import keras

from tfprune import _keras
from tfprune._base import globs
from tfprune._base import validation as check
from tfprune._reports import prunable_weights

# Below this share of the weights, repeated layers are parts of something larger.
_LEAST_SHARE = 0.5


def find_blocks(model, blocks=None):
    """Returns the layers of a model that are pruned one after the other.

    Args:
        model: A built plain model.
        blocks: `None` to find them; a list of layers, or of their names, paths or patterns; or a
            dictionary with such a list as "sequential_blocks", as in Keras's quantizers.

    Returns:
        List of layers, none inside another. Without a stack of repeated blocks, all layers that
        have weights.

    Raises:
        ValueError: If a block is not there, or has no weights to prune.
        TypeError: If `blocks` is of another kind.
    """
    if blocks is None:
        hook = getattr(model, "get_quantization_layer_structure", None)
        blocks = hook("gptq") if hook is not None else None
    if blocks is not None:
        return _given(model, blocks)
    sizes = _sizes(model)
    found = _repeated(model, sizes)
    if sum(sizes[id(layer)] for layer in found) < _LEAST_SHARE * sizes[id(model)]:
        own = _own(model)
        found = [layer for layer in _keras.flatten(model) if id(layer) in own]
    return found


def _given(model, blocks):
    if isinstance(blocks, dict):
        blocks = blocks.get("sequential_blocks")
    mend = 'Name them, for instance blocks=["transformer_layer_*"], or leave `blocks` out.'
    if not isinstance(blocks, (list, tuple)):
        raise TypeError(
            check.message(
                "`blocks` to be a list of layers or of their names", f"blocks={blocks!r:.80}", mend
            )
        )
    paths = dict(named_layers(model))
    known = {id(layer) for layer in paths.values()}
    found: list = []
    for item in blocks:
        if isinstance(item, str):
            new = [layer for path, layer in paths.items() if globs.matches(item, path)]
        else:
            new = [item] if id(item) in known else []
        if not new:
            shown = item if isinstance(item, str) else getattr(item, "name", item)
            raise ValueError(
                check.message(f"the blocks to be layers of '{model.name}'", f"{shown!r:.80}", mend)
            )
        found += [layer for layer in new if all(layer is not other for other in found)]
    sizes = _sizes(model)
    empty = [layer.name for layer in found if not sizes[id(layer)]]
    if empty or not found:
        received = f"'{empty[0]}', which has none" if empty else "an empty list"
        raise ValueError(check.message("blocks with weights that can be pruned", received, mend))
    inside = {id(inner) for layer in found for inner in _keras.flatten(layer) if inner is not layer}
    return [layer for layer in found if id(layer) not in inside]


def named_layers(model):
    """Returns `(path, layer)` of the layers in a model, in a fixed order, without wrappers."""
    return list(prunable_weights.layers_by_path(model))


def _own(model):
    """`{id of a layer: size of its own prunable weights}`, without embeddings."""
    found: dict = {}
    variables = {id(w.variable): w.variable for w in prunable_weights.find(model)}
    for layer in _keras.flatten(model):
        if isinstance(layer, keras.layers.Embedding):
            continue
        inner = {id(v) for child in _keras.children(layer) for v in child.weights}
        own = [v for v in layer.weights if id(v) in variables and id(v) not in inner]
        if own:
            found[id(layer)] = sum(math.prod(variable.shape) for variable in own)
    return found


def _sizes(model):
    """`{id of a layer: size of the prunable weights in it}`, embeddings left out."""
    own = _own(model)
    return {
        id(layer): sum(own.get(id(inner), 0) for inner in _keras.flatten(layer))
        for layer in _keras.flatten(model)
    }


def _repeated(layer, sizes):
    """The outermost layers that hold layers and have a sibling of the same class."""
    holders = [
        child
        for child in _keras.children(layer)
        if sizes[id(child)] and len(_keras.flatten(child)) > 1
    ]
    times = Counter(type(child) for child in holders if not isinstance(child, keras.Model))
    found: list = []
    for child in holders:
        found += [child] if times[type(child)] > 1 else _repeated(child, sizes)
    return found
