"""Which weights of which layers can be pruned, and what their axes count."""

from collections.abc import Callable
from dataclasses import dataclass

import keras

from tfprune import _keras
from tfprune._base import validation as check
from tfprune._keras.layers import ConvLSTMCell
from tfprune.patterns.axes import KernelAxes

_DENSE = KernelAxes((-2,), (-1,))
_TRANSPOSED = KernelAxes((-1,), (-2,))
_DEPTHWISE = KernelAxes((-2,), (-2, -1))


class PrunableLayer:
    """Interface of a custom layer that says itself which of its weights can be pruned.

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
        """Returns the list of variables that can be pruned; they exist once the layer is built."""
        raise NotImplementedError(
            f"{type(self).__name__} has to implement get_prunable_weights(), which returns the "
            "list of its prunable variables."
        )


@dataclass(frozen=True)
class PrunableWeight:
    """A weight of a layer that can be pruned.

    Args:
        name: What reports call it, "kernel" for instance.
        get: Function from the layer to the variable.
        axes: `KernelAxes`, or a function from the layer to them.
        makes_output: Whether the weight's output channels are those of the layer's output.
        since_lists: Whether the weight is known only where a config lists the masked weights:
            files of version 0.1 do not, and hold no mask for it.
    """

    name: str
    get: Callable
    axes: KernelAxes | Callable = _DENSE
    makes_output: bool = True
    since_lists: bool = False

    def axes_of(self, layer):
        """Returns the `KernelAxes` of the weight in this layer."""
        return self.axes if isinstance(self.axes, KernelAxes) else self.axes(layer)


def _attribute(name, axes=_DENSE, makes_output=True):
    return PrunableWeight(name, lambda layer: _keras.stored_weight(layer, name), axes, makes_output)


def _einsum_axes(layer):
    left, output = layer.equation.replace(" ", "").split("->")
    inputs, kernel = left.split(",")
    output, inputs = output.replace("...", ""), inputs.replace("...", "")
    return KernelAxes(
        tuple(i for i, letter in enumerate(kernel) if letter not in output),
        tuple(i for i, letter in enumerate(kernel) if letter not in inputs),
    )


_REGISTRY: dict = {}


def register_prunable(layer_class, weights):
    """Makes the weights of a custom layer prunable, those of its subclasses included.

    Args:
        layer_class: A subclass of `keras.layers.Layer`.
        weights: Attribute names, or `PrunableWeight`s where the last two axes are not inputs
            and outputs. An empty list says that the layer has nothing to prune.

    Raises:
        TypeError: If `layer_class` is no layer class or a weight is neither of these.

    Example:

    >>> class Gate(keras.layers.Layer):
    ...     def build(self, input_shape):
    ...         self.gate = self.add_weight(shape=(input_shape[-1], 4))
    >>> tfprune.register_prunable(Gate, ["gate"])
    """
    if not (isinstance(layer_class, type) and issubclass(layer_class, keras.layers.Layer)):
        raise TypeError(
            check.message(
                "`layer_class` to be a subclass of keras.layers.Layer",
                f"layer_class={layer_class!r}",
                "Pass the class, not an instance.",
            )
        )
    if isinstance(weights, (str, PrunableWeight)):
        weights = [weights]
    entries = []
    for weight in weights:
        if not isinstance(weight, (str, PrunableWeight)):
            raise TypeError(
                check.message(
                    "`weights` to hold attribute names or PrunableWeights",
                    f"{weight!r}",
                    'Use for instance register_prunable(MyLayer, ["kernel"]).',
                )
            )
        entries.append(_attribute(weight) if isinstance(weight, str) else weight)
    _REGISTRY[layer_class] = tuple(entries)


def _register_keras_layers():
    layers = keras.layers
    register_prunable(layers.Dense, ["kernel"])
    register_prunable(layers.EinsumDense, [_attribute("kernel", _einsum_axes)])
    register_prunable(layers.Embedding, ["embeddings"])
    for dimensions in ("1D", "2D", "3D"):
        register_prunable(getattr(layers, f"Conv{dimensions}"), ["kernel"])
        transposed = getattr(layers, f"Conv{dimensions}Transpose")
        register_prunable(transposed, [_attribute("kernel", _TRANSPOSED)])
    for dimensions in ("1D", "2D"):
        depthwise = getattr(layers, f"DepthwiseConv{dimensions}")
        register_prunable(depthwise, [_attribute("kernel", _DEPTHWISE)])
        separable = [_attribute("depthwise_kernel", _DEPTHWISE, False), "pointwise_kernel"]
        register_prunable(getattr(layers, f"SeparableConv{dimensions}"), separable)
    # The outputs of these are gates, several to a unit.
    gates = [_attribute(name, makes_output=False) for name in ("kernel", "recurrent_kernel")]
    for cell in (layers.SimpleRNNCell, layers.LSTMCell, layers.GRUCell, ConvLSTMCell):
        register_prunable(cell, gates)
    if hasattr(layers, "ReversibleEmbedding"):
        _REGISTRY[layers.ReversibleEmbedding] = _reversible_embedding


def _reversible_embedding(layer):
    if layer.tie_weights:
        return (_attribute("embeddings", KernelAxes((-2,), (-1,), reduced=(-1,))),)
    tied = (_attribute("embeddings"),)
    reverse = _attribute("reverse_embeddings", makes_output=False)
    return (*tied, reverse)


def _experts(*names):
    """Matrices of all experts in one weight of shape (experts, inputs, outputs)."""
    axes = KernelAxes((-2,), (-1,), experts=True)
    return tuple(
        PrunableWeight(
            name.lstrip("_"),
            lambda layer, name=name: _keras.stored_weight(layer, name),
            axes,
            makes_output=False,
            since_lists=True,
        )
        for name in names
    )


_GATED_EXPERTS = _experts("_expert_feedforward_gate_dense", "_expert_feedforward_output_dense")
# Classes of KerasHub, which is not imported for them, by package and name.
_BY_NAME = {
    "keras_hub.MixtralMoeExperts": _experts(
        "_expert_feedforward_gate_dense",
        "_expert_feedforward_intermediate_dense",
        "_expert_feedforward_output_dense",
    ),
    "keras_hub.QwenMoeExperts": _GATED_EXPERTS,
    "keras_hub.Qwen3MoeExperts": _GATED_EXPERTS,
    "keras_hub.Qwen3_5MoeExperts": _GATED_EXPERTS,
    "keras_hub.GptOssExperts": _experts("gate_up_proj", "down_proj"),
    "keras_hub.Gemma4MoEBlock": _experts("gate_proj", "up_proj", "down_proj"),
}


def own_prunable_weights(layer, before_lists=False):
    """Returns the `PrunableWeight`s of a layer itself, without those of layers inside it.

    Args:
        layer: The layer.
        before_lists: Whether to leave out those that version 0.1 did not know.

    Returns:
        A tuple, empty if there is nothing to prune; `None` if the layer's class is not known.
    """
    if isinstance(layer, PrunableLayer):
        if not layer.built:
            return (_indexed(layer, 0),)
        return tuple(_indexed(layer, i) for i in range(len(layer.get_prunable_weights())))
    for base in type(layer).__mro__:
        if base in _REGISTRY:
            entry = _REGISTRY[base]
            return entry(layer) if callable(entry) else entry
        name = f"{base.__module__.partition('.')[0]}.{base.__name__}"
        if name in _BY_NAME and not before_lists:
            return _BY_NAME[name]
    return None


def unknown_until_built(layer):
    """Whether a layer shows only once it is built which weights and layers it has inside."""
    kinds = (PrunableLayer, keras.layers.MultiHeadAttention, keras.layers.GroupQueryAttention)
    return isinstance(layer, kinds) and not layer.built


def _indexed(layer, index):
    name = "weight"
    if layer.built:
        name = layer.get_prunable_weights()[index].name
    return PrunableWeight(name, lambda owner: owner.get_prunable_weights()[index])


_register_keras_layers()
