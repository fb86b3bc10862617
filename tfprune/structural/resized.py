"""Layers and models whose weights have other sizes than their config says."""

from typing import Any

import keras

from tfprune import _keras
from tfprune.structural.fewer_heads import use_part_of_caches

# The base class is known only when a layer is resized.
_Layer: Any = object


@keras.saving.register_keras_serializable(package="tfprune")
class Resized(_Layer):
    """Added by shrinking to the class of a layer or model whose code runs layers inside.

    A class is derived from this one and the layer's own class, and assigned to the layer, which
    therefore keeps its type and its methods. Its config holds the plain config and the sizes, so
    that Keras saves and loads it wherever tfprune is imported.
    """

    is_resized = True
    _sizes: dict

    def get_config(self):
        with _keras.with_former_class(self):
            plain = keras.saving.serialize_keras_object(self)
        return {"plain": plain, **self._sizes}

    @classmethod
    def from_config(cls, config, custom_objects=None):
        plain = keras.saving.deserialize_keras_object(config["plain"], custom_objects)
        return with_sizes(plain, config["shapes"], config["attributes"])

    def build_from_config(self, config):
        """Does nothing: the layer was built before it was resized."""


def with_sizes(holder, shapes, attributes):
    """Gives a built layer or model other sizes, and the class that saves them.

    Args:
        holder: The layer or model; it is changed. If it was resized before, the new sizes are
            added to the old ones.
        shapes: List of `[number, shape]`: the new shape of a weight of `holder.weights`.
        attributes: `{place: {name: value}}`; see `_keras.places`.

    Returns:
        `holder`; its resized weights are zero.
    """
    _keras.resize(holder, dict(shapes), attributes)
    places = _keras.places(holder)
    for layer in _keras.flatten(holder):
        use_part_of_caches(layer, attributes.get(places[id(layer)], {}))
    sizes: dict = {"shapes": [[number, list(shape)] for number, shape in shapes]}
    sizes["attributes"] = {place: dict(values) for place, values in attributes.items()}
    if getattr(holder, "is_resized", False):
        sizes = _merged(holder._sizes, sizes)
    else:
        _keras.change_class(holder, _keras.derived_class(holder, Resized, Resized))
    _keras.set_untracked(holder, "_sizes", sizes)
    return holder


def _merged(old, new):
    shapes = {**dict(old["shapes"]), **dict(new["shapes"])}
    attributes = {place: dict(values) for place, values in old["attributes"].items()}
    for place, values in new["attributes"].items():
        attributes.setdefault(place, {}).update(values)
    return {"shapes": [list(item) for item in shapes.items()], "attributes": attributes}
