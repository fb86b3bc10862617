"""Replacing layers inside a layer that is built."""

import re

from tfprune._keras.layers import places

_PLACE = re.compile(r"\w+(\.\d+)*(/\w+(\.\d+)*)*")


def can_put_inside(place):
    """Whether a layer at a place, as `places` gives it, can be replaced."""
    return bool(_PLACE.fullmatch(place))


def put_inside(layer, replacements):
    """Replaces layers inside a layer.

    Args:
        layer: The layer; models that are graphs are none.
        replacements: `{place: new layer}`, with places as `places` gives them.
    """
    by_place = {place: key for key, place in places(layer).items()}
    for place, new in replacements.items():
        if by_place.get(place) == id(new):
            continue
        *around, last = place.split("/")
        holder = layer
        for name in around:
            holder = _at(holder, name)
        _put(holder, last, new)


def _at(holder, name):
    attribute, *numbers = name.split(".")
    value = getattr(holder, attribute)
    for number in numbers:
        value = value[int(number)]
    return value


def _put(holder, name, new):
    attribute, *numbers = name.split(".")
    old = _at(holder, name)
    value = _with(getattr(holder, attribute), [int(number) for number in numbers], new)
    tracker = holder._tracker
    locked = tracker.locked
    tracker.unlock()
    try:
        tracker.untrack(old)
        setattr(holder, attribute, value)
    finally:
        if locked:
            tracker.lock()


def _with(value, numbers, new):
    """Returns a layer, or a copy of lists in lists, with a new layer at a place."""
    if not numbers:
        return new
    items = list(value)
    items[numbers[0]] = _with(items[numbers[0]], numbers[1:], new)
    return tuple(items) if isinstance(value, tuple) else items
