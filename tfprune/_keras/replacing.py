"""Replacing layers inside a layer or model that is built."""

import keras
from keras.src.ops.function import map_graph
from keras.src.utils.tracking import DotNotTrackScope

from tfprune._base import validation as check
from tfprune._keras.layers import (
    all_attributes,
    attribute_values,
    flatten,
    is_graph,
    layers_in,
    places,
)


def can_put_inside(outer, layer):
    """Whether `put_inside` can replace a layer that `outer` holds at any depth."""
    for holder in flatten(outer):
        held = [
            child for name, value in _replaceable(holder) for _, child in layers_in(value, name)
        ]
        if any(child is layer for child in held + (holder.layers if is_graph(holder) else [])):
            return True
    return False


def put_inside(layer, replacements):
    """Replaces layers inside a layer or model, wherever it holds or calls them.

    Args:
        layer: The built layer or model.
        replacements: `{place: new layer}`, with places as `places` gives them.
    """
    by_place = {place: key for key, place in places(layer).items()}
    missing = [place for place in replacements if place not in by_place]
    if missing:
        raise ValueError(
            check.message(
                f"'{layer.name}' to hold a layer at '{missing[0]}', where one was replaced",
                f"a {type(layer).__name__} without it",
                "Use the version of the class that the file was made with.",
            )
        )
    news = {by_place[place]: new for place, new in replacements.items()}
    news = {key: new for key, new in news.items() if key != id(new)}
    # The list keeps the old layers alive, so that no new object gets one of their ids.
    holders = flatten(layer)
    for holder in holders:
        tracker = holder._tracker
        locked = tracker.locked
        tracker.unlock()
        try:
            _put_in_attributes(holder, news)
            if is_graph(holder):
                _put_in_graph(holder, news)
        finally:
            if locked:
                tracker.lock()


def _replaceable(holder):
    """Returns `(name, value)` of the attributes in which layers can be replaced.

    TensorFlow's own tracking, whose names begin with `_self_`, holds layers in lists and
    dictionaries. A layer by itself is one of the holder's, such as `_self_attention_layer`.
    """
    return attribute_values(holder) + [
        (name, value)
        for name, value in all_attributes(holder).items()
        if name.startswith("_self_") and isinstance(value, keras.layers.Layer)
    ]


def _put_in_attributes(holder, news):
    for name, value in _replaceable(holder):
        olds = [child for _, child in layers_in(value, name) if id(child) in news]
        if olds and not (is_graph(holder) and name in _OF_GRAPHS):
            for old in olds:
                holder._tracker.untrack(old)
            setattr(holder, name, _with(value, news))


# Attributes in which a graph keeps its own layers.
_OF_GRAPHS = ("_functional", "_operations", "_operations_by_depth")


def _with(value, news):
    """Returns a layer's replacement, or a copy of a list, tuple or dictionary of such."""
    if isinstance(value, dict):
        return {key: _with(item, news) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        items = [_with(item, news) for item in value]
        if isinstance(value, list):
            return items
        return value._make(items) if hasattr(value, "_make") else tuple(items)
    return news.get(id(value), value)


def _put_in_graph(model, news):
    """Lets the nodes of a Sequential or Functional model run the new layers."""
    if isinstance(model, keras.Sequential):
        _put_in_list(model, news)
        if model._functional is not None:
            _put_in_graph(model._functional, news)
        return
    olds = [operation for operation in model._operations if id(operation) in news]
    for old in olds:
        new = news[id(old)]
        new._inbound_nodes.extend(old._inbound_nodes)
        new._outbound_nodes.extend(old._outbound_nodes)
        for node in old._inbound_nodes:
            node.operation = new
            for tensor in node.outputs:
                tensor._keras_history = tensor._keras_history._replace(operation=new)
        model._tracker.untrack(old)
        model._tracker.track(new)
    if olds:
        with DotNotTrackScope():
            found = map_graph(model._inputs, model._outputs)
            model._nodes, model._nodes_by_depth = found[:2]
            model._operations, model._operations_by_depth = found[2:]
            # Keras 3.10 keeps a list of its own here too, which its tracking does not follow.
            _put_in_list(model, news)


def _put_in_list(model, news):
    if any(id(held) in news for held in model._layers):
        model._layers = [news.get(id(held), held) for held in model._layers]
