"""The prunable weights of each layer class, and the meaning of their axes."""

import keras

from tfprune._base import validation as check
from tfprune._layers import facts
from tfprune._layers.weights import PrunableWeight, attribute


class PrunableLayer:
    """Interface for a custom layer that lists its own prunable weights.

    Example:

    >>> class Scale(keras.layers.Layer, tfprune.PrunableLayer):
    ...     def build(self, input_shape):
    ...         self.scale = self.add_weight(shape=input_shape[-1:], initializer="ones")
    ...     def call(self, inputs):
    ...         return inputs * self.scale
    ...     def get_prunable_weights(self):
    ...         return [self.scale]
    """

    built: bool

    def get_prunable_weights(self):
        """Returns the list of prunable variables; called once the layer is built."""
        raise NotImplementedError(
            f"{type(self).__name__} has to implement get_prunable_weights(), which returns the "
            "list of its prunable variables."
        )


def register_prunable(layer_class, weights):
    """Makes weights of a custom layer class, and of its subclasses, prunable.

    Args:
        layer_class: A subclass of `keras.layers.Layer`.
        weights: Attribute names, or `PrunableWeight`s for weights whose last two axes are not
            inputs and outputs. An empty list declares that the layer has nothing to prune.

    Raises:
        TypeError: If `layer_class` is not a layer class, or a weight is neither a name nor a
            `PrunableWeight`.

    Example:

    >>> class Gate(keras.layers.Layer):
    ...     def build(self, input_shape):
    ...         self.gate = self.add_weight(shape=(input_shape[-1], 4))
    >>> tfprune.register_prunable(Gate, ["gate"])
    """
    check_layer_class("layer_class", layer_class)
    entries = []
    for weight in _several(weights):
        if not isinstance(weight, (str, PrunableWeight)):
            raise TypeError(
                check.message(
                    "`weights` to hold attribute names or PrunableWeights",
                    f"{weight!r}",
                    'Use for instance register_prunable(MyLayer, ["kernel"]).',
                )
            )
        entries.append(attribute(weight) if isinstance(weight, str) else weight)
    facts.declare(layer_class, prunable=tuple(entries))


def _several(weights):
    if isinstance(weights, (str, PrunableWeight)):
        return [weights]
    try:
        return list(weights)
    except TypeError:  # Arrays without axes have the method of an iterable and are none.
        return [weights]


def register_layer(layer_class, like):
    """Declares that a custom layer class computes the same as a known one.

    tfprune then treats your class like the known one: its prunable weights and their axes, the
    flow of channels through it when filters are removed, the count of its multiplications, and
    the folding of a BatchNormalization into it. Your class needs the same attributes and config
    entries: for a convolution, `kernel`, `bias`, `filters`, `strides` and so on. If your class
    matches only in part, use `register_prunable` and `register_channel_rule`.

    Args:
        layer_class: A subclass of `keras.layers.Layer`.
        like: A Keras class, for instance `keras.layers.Conv2D`, or a registered class.

    Raises:
        TypeError: If one of them is not a layer class.
        ValueError: If `like` is unknown to tfprune.

    Example:

    >>> class Conv(keras.layers.Conv2D):
    ...     def call(self, inputs):
    ...         outputs = self.convolution_op(inputs, self.kernel)
    ...         return self.activation(outputs + self.bias)
    >>> model = keras.Sequential([keras.Input((8, 8, 3)), Conv(4, 3, name="wide"), Conv(2, 3)])
    >>> tfprune.register_layer(Conv, like=keras.layers.Conv2D)
    >>> tfprune.remove_channels(model, {"wide": [0]}).layers[0].filters
    3
    """
    check_layer_class("layer_class", layer_class)
    check_layer_class("like", like)
    if not facts.is_known(like):
        raise ValueError(
            check.message(
                "`like` to be a layer class that tfprune knows",
                f"like={like.__name__}",
                "Name a Keras class, for instance keras.layers.Conv2D; or list the prunable "
                "weights with tfprune.register_prunable.",
            )
        )
    facts.declare_like(layer_class, like)


def check_layer_class(name, layer_class):
    """Raises unless an argument is a layer class."""
    if not (isinstance(layer_class, type) and issubclass(layer_class, keras.layers.Layer)):
        raise TypeError(
            check.message(
                f"`{name}` to be a subclass of keras.layers.Layer",
                f"{name}={layer_class!r}",
                "Pass the class, not an instance.",
            )
        )


def own_prunable_weights(layer, before_lists=False):
    """Returns the `PrunableWeight`s of a layer itself, without those of its inner layers.

    Args:
        layer: The layer.
        before_lists: Whether to omit weights that version 0.1 did not prune.

    Returns:
        A tuple, empty if there is nothing to prune; `None` if the layer's class is unknown.
    """
    if lists_own_weights(layer):
        if not layer.built:
            return (_indexed(layer, 0),)
        return tuple(_indexed(layer, i) for i in range(len(layer.get_prunable_weights())))
    known = facts.fact(layer, "prunable")
    known = known(layer) if callable(known) else known
    if known and before_lists:
        return tuple(weight for weight in known if not weight.since_lists) or None
    return known


def unknown_until_built(layer):
    """Whether a layer shows only once it is built which weights and layers it has inside."""
    kinds = (keras.layers.MultiHeadAttention, keras.layers.GroupQueryAttention)
    return (lists_own_weights(layer) or isinstance(layer, kinds)) and not layer.built


def lists_own_weights(layer):
    """Whether a layer's class lists its prunable weights: with the base class or, as in tfmot's
    examples, without it."""
    return callable(getattr(type(layer), "get_prunable_weights", None))


def _indexed(layer, index):
    name = "weight"
    if layer.built:
        name = layer.get_prunable_weights()[index].name
    return PrunableWeight(name, lambda owner: owner.get_prunable_weights()[index])
