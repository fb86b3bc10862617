"""Copies layers and models by their own class, and removes channels from the copy."""

import keras
import numpy as np

from tfprune import _keras
from tfprune.structural.resized import with_sizes


def can_shrink(holder, ledger):
    """Whether only its own class can copy a layer or model in which channels may be removed."""
    if id(holder) in ledger.composites:
        return True
    inside = _keras.flatten(holder) if _keras.keeps_class(holder) else []
    return any(id(layer) in ledger.composites for layer in inside)


def shrunk_copy(holder, ledger, gone, value_of):
    """Copies a layer or model by its own class, without some channels.

    Args:
        holder: The layer or model, built; it is not changed.
        ledger: The `Ledger` of the model.
        gone: bool array with one entry per label.
        value_of: Function from a weight of `holder` to its new value.

    Returns:
        A new layer or model; `None` if its graph has operations or biases that only a graph of
        another class can have.
    """
    sizes = _sizes(holder, ledger, gone)
    if sizes is None:
        return None
    is_model = isinstance(holder, keras.Model)
    copy = _keras.clone_as_it_is(holder) if is_model else _keras.clone_layer(holder)
    pairs = list(zip(_keras.flatten(holder), _keras.flatten(copy), strict=True))
    for old, new in pairs:
        if old.trainable != new.trainable:
            new.trainable = old.trainable
    # A backbone inside a task can be taken out and saved alone, so it knows its sizes too.
    for old, new in reversed(pairs):
        if old is holder or _keras.keeps_class(old):
            shapes, attributes = _sizes(old, ledger, gone)
            if shapes or attributes:
                with_sizes(new, shapes, attributes)
    for variable, target in zip(holder.weights, copy.weights, strict=True):
        target.assign(value_of(variable))
    _keras.refresh_constants(copy)
    return copy


def _sizes(holder, ledger, gone):
    """Returns the shapes and attributes that change in a layer or model; `None` if that fails."""
    places = _keras.places(holder)
    lost: dict = {}
    for cut in ledger.cuts.values():
        if gone[cut.labels].any():
            lost.setdefault(id(cut.variable), []).append(cut)
    shapes = []
    for number, variable in enumerate(holder.weights):
        if id(variable) in lost:
            shape = list(variable.shape)
            for cut in lost[id(variable)]:
                shape[cut.axis] = int(np.count_nonzero(~gone[cut.labels]))
            shapes.append((number, tuple(shape)))
    attributes: dict = {}
    for edit in ledger.edits.values():
        if not (gone[edit.labels].any() or gone[edit.also].any()):
            continue
        is_layer = isinstance(edit.layer, keras.layers.Layer)
        if is_layer and id(edit.layer) not in places:
            continue
        value = edit.value(np.count_nonzero(~gone[edit.labels]))
        found = _keras.size_attributes(edit.layer, edit.key, value) if is_layer else None
        if found is None:
            return None
        attributes.setdefault(places[id(edit.layer)], {}).update(found)
    return shapes, attributes
