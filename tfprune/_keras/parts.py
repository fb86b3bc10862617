"""The parts of attention layers and of experts, by role, whatever their names."""

import keras

_PROJECTIONS = ("query", "key", "value", "output")
_PROJECTION_NAMES = ("_{}_dense", "{}_dense", "{}_projector")
_MATRICES = {"gate": "gate", "up": "intermediate", "output": "output"}


def projections(layer):
    """Returns the layers that project inputs and outputs of an attention layer.

    Args:
        layer: A built attention layer of another package.

    Returns:
        Dictionary with the layers "query", "key", "value" and "output"; `None` if one is missing.
    """
    found = {}
    for role in _PROJECTIONS:
        held = [getattr(layer, name.format(role), None) for name in _PROJECTION_NAMES]
        held = [part for part in held if isinstance(part, keras.layers.Layer)]
        if not held:
            return None
        found[role] = held[0]
    return found


def expert_matrices(layer):
    """Returns the weights of a layer of experts, each of shape (experts, inputs, outputs).

    Args:
        layer: A built layer of gated experts.

    Returns:
        Dictionary with the weights "gate" and "output", and with "up" if it is a weight of its
        own; otherwise the second half of the columns of "gate" takes its part.
    """
    found = {
        role: getattr(layer, f"_expert_feedforward_{name}_dense", None)
        for role, name in _MATRICES.items()
    }
    return {role: matrix for role, matrix in found.items() if matrix is not None}
