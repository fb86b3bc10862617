"""Gives the weights of built layers other shapes, in place."""

import keras

from tfprune._keras.layers import backend, flatten, places


def resize(holder, shapes, attributes):
    """Gives weights of a built layer or model other shapes, filled with zeros.

    Args:
        holder: The layer or model. It is changed.
        shapes: `{number: shape}`: the new shape of each weight to resize, by its position in
            `holder.weights`.
        attributes: `{place: {name: value}}`: attributes of layers inside, by the place of the
            layer. See `places`.
    """
    weights = holder.weights
    resized = set()
    for number, shape in shapes.items():
        variable = weights[number]
        variable._shape = tuple(shape)
        variable._initialize(keras.ops.zeros(shape, dtype=variable.dtype))
        resized.add(id(variable))
    known = places(holder)
    at = {known[id(layer)]: layer for layer in flatten(holder)}
    for place, values in attributes.items():
        for name, value in values.items():
            setattr(at[place], name, tuple(value) if isinstance(value, list) else value)
    for layer in flatten(holder):
        if any(id(variable) in resized for variable in layer.weights):
            _accept_other_widths(layer)
            if backend() == "torch" and hasattr(layer, "_torch_params"):
                layer._track_variables()


def _accept_other_widths(layer):
    spec = getattr(layer, "input_spec", None)
    if isinstance(spec, keras.layers.InputSpec) and spec.axes:
        layer.input_spec = keras.layers.InputSpec(
            ndim=spec.ndim, min_ndim=spec.min_ndim, max_ndim=spec.max_ndim
        )


def size_attributes(layer, key, value):
    """Returns the attributes that hold an entry of a built layer's config.

    Args:
        layer: The layer.
        key: The entry.
        value: Its new value.

    Returns:
        `{name: value}`; `None` if it is not known where the layer holds the entry.
    """
    if key == "output_shape" and isinstance(layer, keras.layers.EinsumDense):
        return {"partial_output_shape": tuple(value)}
    for name in (key, f"_{key}"):
        if name in vars(layer):
            return {name: value}
    return None
