"""Builds a smaller model from edited layer configs and sliced weights."""

import keras
import numpy as np

from tfprune import _keras
from tfprune._base import validation as check
from tfprune._channels.graph import follow, without_wrappers
from tfprune._keras.checks import check_followable
from tfprune.structural.shrinking_in_place import can_shrink, shrunk_copy


def rebuild(model, ledger, gone, extra=None):
    """Rebuilds a plain model without some of its channels.

    Args:
        model: The model that the ledger was made from.
        ledger: Its `Ledger`.
        gone: bool array with one entry per label: whether the channel is removed.
        extra: `{id(layer): addition to its bias}`, with the old number of channels.

    Returns:
        A new, uncompiled model.
    """
    extra = extra or {}
    edits: dict = {}
    for edit in ledger.edits.values():
        if gone[edit.labels].any() or gone[edit.also].any():
            value = edit.value(np.count_nonzero(~gone[edit.labels]))
            edits.setdefault(id(edit.layer), {})[edit.key] = value
    cuts: dict = {}
    for cut in ledger.cuts.values():
        cuts.setdefault(id(cut.variable), []).append(cut)

    def config_of(layer):
        new = dict(edits.get(id(layer), {}))
        if id(layer) in extra and layer.bias is None:
            new["use_bias"] = True
        for key, inner in ledger.held.get(id(layer), {}).items():
            new[key] = _held(layer, key, inner)
        starts = _starting_values(layer) if any(id(v) in cuts for v in _weights(layer)) else {}
        return {**layer.get_config(), **starts, **new} if new or starts else None

    def _held(layer, key, inner):
        if _keras.runs_as_graph(inner):
            made = _keras.rebuild_graph(inner, config_of, shape_of, move, inside=True)
            return keras.saving.serialize_keras_object(made)
        entry, config = layer.get_config()[key], config_of(inner)
        # The build config would restore the old number of input channels.
        entry.pop("build_config", None)
        return entry if config is None else {**entry, "config": config}

    added = {
        id(layer.bias): extra[id(layer)]
        for layer in _keras.flatten(model)
        if id(layer) in extra and layer.bias is not None
    }

    def value_of(variable):
        array = _keras.host_array(variable)
        if id(variable) in added:
            array = array + added[id(variable)]
        for cut in cuts.get(id(variable), []):
            array = np.compress(~gone[cut.labels], array, axis=cut.axis)
        labels, factor = ledger.scales.get(id(variable), (None, None))
        if factor is not None and gone[labels].any():
            array = array * np.float32(factor(np.count_nonzero(~gone[labels])))
        return array

    def move(old, new):
        arrays = [value_of(variable) for variable in old.weights]
        for layer in _keras.flatten(old):
            if id(layer) in extra and layer.bias is None:
                # The new layer has an additional bias, after its other weights.
                last = next(i for i, v in enumerate(old.weights) if v is layer.weights[-1])
                bias = extra[id(layer)][~gone[ledger.outputs_of(layer)]]
                arrays.insert(last + 1 + len(arrays) - len(old.weights), bias)
        if len(arrays) != len(new.weights):
            raise ValueError(
                check.message(
                    f"the same weights in '{old.name}' and its copy",
                    f"{len(arrays)} and {len(new.weights)}",
                    "Make get_config() of the layer return every argument that determines its "
                    "weights.",
                )
            )
        for array, target in zip(arrays, new.weights, strict=True):
            target.assign(array)
        for layer, clone in zip(_keras.flatten(old), _keras.flatten(new), strict=True):
            labels = ledger.outputs_of(layer)
            states = _keras.recurrent_states(layer), _keras.recurrent_states(clone)
            for source, target in zip(*states, strict=True):
                array = _keras.host_array(source)
                target.assign(array if labels is None else array[:, ~gone[labels]])

    def by_own_class(holder):
        if not can_shrink(holder, ledger) or (extra and _lacks_biases(holder, extra)):
            return None
        return shrunk_copy(holder, ledger, gone, value_of)

    def shape_of(inner, number):
        shape = list(inner.inputs[number].shape)
        flow = ledger.inputs.get((id(inner), number))
        if flow is not None:
            shape[flow.axis] = int(np.count_nonzero(~gone[flow.labels]))
        return tuple(shape)

    whole = by_own_class(model)
    if whole is not None:
        return whole
    return _keras.rebuild_graph(model, config_of, shape_of, move, by_own_class=by_own_class)


def _lacks_biases(holder, extra):
    return any(id(inner) in extra and inner.bias is None for inner in _keras.flatten(holder))


def _weights(layer):
    return getattr(layer, "weights", [])


def _starting_values(layer):
    """Replaces initializers that are arrays, because these have the old shape."""
    entries = [item for item in layer.get_config().items() if item[0].endswith("_initializer")]
    return {name: "zeros" for name, entry in entries if _is_an_array(entry)}


def _is_an_array(entry):
    made = keras.initializers.deserialize(entry) if isinstance(entry, dict) else None
    return isinstance(made, keras.initializers.Constant) and np.size(made.value) > 1


def remove_channels(model, channels):
    """Removes channels, and every weight in other layers that depends on them.

    The new model computes the same as the old one with all weights that read these channels set
    to zero. An RMSNormalization, which reads channels without weights, computes as if they were
    zero. Coupled channels (through an addition, for instance) are removed too; see
    `dependency_groups`.

    Args:
        model: A built Sequential or Functional model, plain or wrapped. It is not changed.
        channels: `{layer: indices}`: the output channels to remove from each layer, counted from
            0. Layers are given by name or path; a layer in a nested model has the path
            "model/layer". The heads of an attention layer are named "layer:heads".

    Returns:
        A new, plain, uncompiled model, without the optimizer's state.

    Raises:
        TypeError: If `model` is not a Keras 3 model, or `channels` not a dictionary of integers.
        ValueError: If a layer or channel does not exist, a channel must be kept, or a layer would
            lose its last channel.

    Example:

    >>> model = keras.Sequential(
    ...     [keras.Input((8,)), keras.layers.Dense(4, name="hidden"), keras.layers.Dense(2)]
    ... )
    >>> [tuple(w.shape) for w in tfprune.remove_channels(model, {"hidden": [0, 3]}).weights]
    [(8, 2), (2,), (2, 2), (2,)]
    """
    check_followable(model)
    if not isinstance(channels, dict):
        raise TypeError(
            check.message(
                "`channels` to be a dictionary from layer names to indices",
                f"channels={channels!r}",
                'Use for instance {"conv2d": [0, 5]}.',
            )
        )
    model = without_wrappers(model)
    ledger = follow(model)
    roots, fixed = ledger.roots(), ledger.fixed()
    makers = ledger.makers()
    gone = np.zeros(len(roots), bool)
    for name, indices in channels.items():
        labels = _labels_of(name, makers)[_indices(name, indices, len(_labels_of(name, makers)))]
        for index, root in zip(np.atleast_1d(indices), roots[labels], strict=True):
            if root in fixed:
                raise ValueError(
                    check.message(
                        "channels that can be removed",
                        f"channel {index} of '{name}', which must be kept: {fixed[root]}",
                        "Leave it out. tfprune.dependency_groups(model) lists the channels that "
                        "can be removed.",
                    )
                )
        gone[roots[labels]] = True
    gone = gone[roots]
    for path, labels in makers.items():
        if gone[labels].all():
            raise ValueError(
                check.message(
                    "at least one remaining channel in every layer",
                    f"all {len(labels)} channels of '{path}'",
                    "Keep one of them. Coupled channels of other layers count too.",
                )
            )
    return rebuild(model, ledger, gone)


def _labels_of(name, makers):
    if name in makers:
        return makers[name]
    ends = [path for path in makers if path.rsplit("/", 1)[-1] == name]
    if len(ends) == 1:
        return makers[ends[0]]
    raise ValueError(
        check.message(
            "layers that make channels: " + ", ".join(f"'{path}'" for path in makers),
            f"'{name}'" + (", which could be " + " or ".join(ends) if ends else ""),
            "Name one of these. Other layers lose the channels that the layers before them lose.",
        )
    )


def _indices(name, indices, number):
    array = np.atleast_1d(np.asarray(indices))
    mend = f"'{name}' has channels 0 to {number - 1}."
    if array.size == 0:
        return np.zeros(0, int)
    if array.ndim != 1 or not np.issubdtype(array.dtype, np.integer):
        expected = f"a list of whole numbers for '{name}'"
        raise TypeError(check.message(expected, f"{indices!r}", mend))
    if array.min() < 0 or array.max() >= number or len(np.unique(array)) < len(array):
        expected = f"indices of channels for '{name}', each once"
        raise ValueError(check.message(expected, f"{indices!r}", mend))
    return array
