"""Finds the Keras layer that a node of an exported file comes from."""

import re

from tfprune import _keras
from tfprune._layers.registry import own_prunable_weights


def layer_of(node, model):
    """Returns the path of a layer, or `None` if it is not to be found.

    The names of the tensors decide. Those of a model's outputs do not come from the model; then
    the layer is the only one with a kernel of the size that the node reads.

    Args:
        node: `Node` of the file.
        model: The plain model that was exported.
    """
    chains = [chain for chain in _keras.walk(model) if own_prunable_weights(chain[-1][1])]
    found = [
        chain
        for chain in chains
        if any(_is_within(chain, name.split("/"), model.name) for name in node.names)
    ]
    if found:
        return max(found, key=len)[-1][0]
    sizes = {tuple(sorted(shape)) for shape in node.shapes[1:]}
    fitting = [
        path
        for path, layer in (chain[-1] for chain in chains)
        if any(
            tuple(sorted(weight.get(layer).shape)) in sizes
            for weight in own_prunable_weights(layer)
        )
    ]
    return fitting[0] if len(fitting) == 1 else None


def _is_within(chain, parts, model_name):
    """Whether the names of a chain of layers stand in this order among the parts of a name."""
    # TensorFlow numbers a name that it has seen before, in the same way for all layers.
    numbered = re.fullmatch(re.escape(model_name) + r"(_\d+)", parts[0])
    suffix = numbered[1] if numbered else ""
    rest = iter(parts)
    return all(any(part == layer.name + suffix for part in rest) for _, layer in chain)
