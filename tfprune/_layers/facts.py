"""The table of layer facts: one entry holds all the library's knowledge of a layer class."""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass

from keras import layers

from tfprune._keras.layers import ConvLSTMCell, CustomScaleLayer, LayerScale, plain_class
from tfprune._layers.weights import DEPTHWISE, TRANSPOSED, PrunableWeight, attribute
from tfprune.patterns.axes import KernelAxes


@dataclass(frozen=True)
class Macs:
    """The rule for counting a layer's multiplications.

    Attributes:
        places: The places at which each weight multiplies once: one of the kinds in
            `_reports/cost.py`, for instance "outputs" for the places of the layer's output.
        weights: Attributes of the multiplied weights; "cell.kernel" for a weight of a cell.
    """

    places: str
    weights: tuple = ()


@dataclass(frozen=True)
class LayerFacts:
    """The facts about a layer class. A fact that is `None` is taken from the nearest base.

    Attributes:
        prunable: Tuple of its own `PrunableWeight`s, or a function from the layer to them.
        flow: The flow of channels through it: a kind that `_channels/rules/table.py` has a rule
            for, or a rule.
        macs: A `Macs`.
        folds: The `PrunableWeight` that can absorb the scale of a BatchNormalization after the
            layer, along its output axes; `bias` absorbs the offset.
        xnnpack: Its role for XNNPACK's sparse kernels: a kind in `_deployment/xnnpack.py`.
        complete: Whether the entry ignores the facts of its bases.
    """

    prunable: tuple | Callable | None = None
    flow: str | Callable | None = None
    macs: Macs | None = None
    folds: PrunableWeight | None = None
    xnnpack: str | None = None
    complete: bool = False


_FACTS: dict = {}
# Methods that a subclass may override without changing the computation.
_HARMLESS = ("get_config", "from_config", "compute_output_shape", "compute_output_spec")


def declare(layer_class, **facts):
    """Enters facts about a layer class; other facts stay unchanged.

    Args:
        layer_class: The class.
        **facts: Fields of `LayerFacts`.
    """
    known = _FACTS.get(layer_class, LayerFacts())
    _FACTS[layer_class] = dataclasses.replace(known, **facts)


def declare_like(layer_class, known_class):
    """Copies all facts about another class and its bases to a layer class, and no others."""
    names = {field.name for field in dataclasses.fields(LayerFacts)} - {"complete"}
    known = {name: _nearest(known_class, name)[1] for name in names}
    _FACTS[layer_class] = LayerFacts(**known, complete=True)


def fact(layer, name, computes_alike=False):
    """Returns a fact about a layer.

    Args:
        layer: A layer; or an operation, which has no facts.
        name: A field of `LayerFacts`.
        computes_alike: Whether the fact holds only for subclasses that inherit all methods of
            their base that compute something.

    Returns:
        The fact of the nearest class among the layer's own and its bases; `None` if there is none.
    """
    layer_class = plain_class(layer)
    base, value = _nearest(layer_class, name)
    if computes_alike and base is not None and not _computes_alike(layer_class, base):
        return None
    return value


def is_known(layer_class):
    """Whether the table has facts about a layer class or its bases."""
    return any(base in _FACTS for base in layer_class.__mro__)


def _nearest(layer_class, name):
    for base in layer_class.__mro__:
        package = base.__module__.partition(".")[0]
        known = _FACTS.get(base) or _FACTS.get(f"{package}.{base.__name__}")
        if known and (known.complete or getattr(known, name) is not None):
            return base, getattr(known, name)
    return None, None


def _computes_alike(layer_class, base):
    between = layer_class.__mro__[: layer_class.__mro__.index(base)]
    return not any(
        callable(value) and hasattr(base, name) and name not in _HARMLESS
        for cls in between
        for name, value in vars(cls).items()
        if not name.startswith("__")
    )


# -- The table -------------------------------------------------------------------------------------


def _einsum_axes(layer):
    left, output = layer.equation.replace(" ", "").split("->")
    inputs, kernel = left.split(",")
    output, inputs = output.replace("...", ""), inputs.replace("...", "")
    return KernelAxes(
        tuple(i for i, letter in enumerate(kernel) if letter not in output),
        tuple(i for i, letter in enumerate(kernel) if letter not in inputs),
    )


def _reversible_embedding(layer):
    if layer.tie_weights:
        return (attribute("embeddings", KernelAxes((-2,), (-1,), reduced=(-1,))),)
    return (attribute("embeddings"), attribute("reverse_embeddings", makes_output=False))


def _experts(*names, flow=None):
    """Describes a weight of shape (experts, inputs, outputs), with a matrix for each expert."""
    axes = KernelAxes((-2,), (-1,), experts=True)
    return LayerFacts(
        tuple(
            dataclasses.replace(
                attribute(name, axes, makes_output=False), name=name.lstrip("_"), since_lists=True
            )
            for name in names
        ),
        flow,
    )


_KERNEL = attribute("kernel")
_TRANSPOSED = attribute("kernel", TRANSPOSED)
_DEPTHWISE = attribute("kernel", DEPTHWISE)
_SEPARABLE = (attribute("depthwise_kernel", DEPTHWISE, False), attribute("pointwise_kernel"))
_EINSUM = attribute("kernel", _einsum_axes)
_EMBEDDINGS = (attribute("embeddings"),)
# The outputs of these kernels are gates, several for each unit.
_GATES = ("kernel", "recurrent_kernel")
_IN_CELL = Macs("steps", tuple(f"cell.{name}" for name in _GATES))
_NOTHING = Macs("nowhere")

_CONVOLUTION = LayerFacts((_KERNEL,), "convolution", Macs("outputs", ("kernel",)), _KERNEL)
_TRANSPOSED_CONVOLUTION = LayerFacts(
    (_TRANSPOSED,), "transposed_convolution", Macs("inputs", ("kernel",)), _TRANSPOSED
)
_DEPTHWISE_CONVOLUTION = LayerFacts(
    (_DEPTHWISE,), "depthwise_convolution", Macs("outputs", ("kernel",)), _DEPTHWISE
)
_SEPARABLE_CONVOLUTION = LayerFacts(
    _SEPARABLE,
    "separable_convolution",
    Macs("outputs", ("depthwise_kernel", "pointwise_kernel")),
    _SEPARABLE[1],
)
_CELL = LayerFacts(tuple(attribute(name, makes_output=False) for name in _GATES))
_RECURRENT = LayerFacts(flow="recurrent", macs=_IN_CELL)
_ATTENTION = LayerFacts(flow="attention", macs=Macs("attention"))
_NOISE = LayerFacts(flow="unchanged", xnnpack="transparent")
_POOLING = LayerFacts(flow="pooling")
_CUT = LayerFacts(flow="resizing")
_GLOBAL_POOLING = LayerFacts(flow="global_pooling")
_MERGE = LayerFacts(flow="merge")

_BY_NAME = {
    "Dense": LayerFacts((_KERNEL,), "dense", Macs("rows", ("kernel",)), _KERNEL),
    "EinsumDense": LayerFacts((_EINSUM,), "einsum_dense", Macs("einsum", ("kernel",))),
    "Embedding": LayerFacts(_EMBEDDINGS, "embedding", _NOTHING),
    "ReversibleEmbedding": LayerFacts(_reversible_embedding, "reversible_embedding"),
    "Conv1D": _CONVOLUTION,
    "Conv2D": dataclasses.replace(_CONVOLUTION, xnnpack="convolution"),
    "Conv3D": _CONVOLUTION,
    "Conv1DTranspose": _TRANSPOSED_CONVOLUTION,
    "Conv2DTranspose": _TRANSPOSED_CONVOLUTION,
    "Conv3DTranspose": _TRANSPOSED_CONVOLUTION,
    "DepthwiseConv1D": _DEPTHWISE_CONVOLUTION,
    "DepthwiseConv2D": dataclasses.replace(_DEPTHWISE_CONVOLUTION, xnnpack="depthwise"),
    "SeparableConv1D": _SEPARABLE_CONVOLUTION,
    "SeparableConv2D": _SEPARABLE_CONVOLUTION,
    "SimpleRNNCell": _CELL,
    "LSTMCell": _CELL,
    "GRUCell": _CELL,
    "LSTM": _RECURRENT,
    "GRU": _RECURRENT,
    "SimpleRNN": _RECURRENT,
    "Bidirectional": LayerFacts(flow="bidirectional", macs=Macs("both_directions")),
    "TimeDistributed": LayerFacts(flow="time_distributed", macs=Macs("each_step")),
    "MultiHeadAttention": _ATTENTION,
    "GroupQueryAttention": _ATTENTION,
    "BatchNormalization": LayerFacts(flow="batch_normalization", xnnpack="normalization"),
    "LayerNormalization": LayerFacts(flow="layer_normalization"),
    "RMSNormalization": LayerFacts(flow="rms_normalization"),
    "GroupNormalization": LayerFacts(flow="group_normalization"),
    "Activation": LayerFacts(flow="activation", xnnpack="activation"),
    "ReLU": LayerFacts(flow="elementwise", xnnpack="relu"),
    "LeakyReLU": LayerFacts(flow="elementwise", xnnpack="alone"),
    "ELU": LayerFacts(flow="elementwise", xnnpack="alone"),
    "PReLU": LayerFacts(flow="prelu", macs=_NOTHING),
    "Softmax": LayerFacts(flow="softmax"),
    "Rescaling": LayerFacts(flow="rescaling"),
    "Masking": LayerFacts(flow="masking"),
    "Identity": _NOISE,
    "Dropout": _NOISE,
    "SpatialDropout1D": _NOISE,
    "SpatialDropout2D": _NOISE,
    "SpatialDropout3D": _NOISE,
    "GaussianDropout": _NOISE,
    "GaussianNoise": _NOISE,
    "AlphaDropout": _NOISE,
    "ActivityRegularization": _NOISE,
    "MaxPooling1D": _POOLING,
    "MaxPooling2D": _POOLING,
    "MaxPooling3D": _POOLING,
    "AveragePooling1D": _POOLING,
    "AveragePooling2D": _POOLING,
    "AveragePooling3D": _POOLING,
    "ZeroPadding1D": _POOLING,
    "ZeroPadding2D": dataclasses.replace(_POOLING, xnnpack="zeros"),
    "ZeroPadding3D": _POOLING,
    "Cropping1D": _CUT,
    "Cropping2D": _CUT,
    "Cropping3D": _CUT,
    "UpSampling1D": _CUT,
    "UpSampling2D": dataclasses.replace(_CUT, xnnpack="upsampling"),
    "UpSampling3D": _CUT,
    "GlobalAveragePooling1D": _GLOBAL_POOLING,
    "GlobalAveragePooling2D": dataclasses.replace(_GLOBAL_POOLING, xnnpack="average"),
    "GlobalAveragePooling3D": _GLOBAL_POOLING,
    "GlobalMaxPooling1D": _GLOBAL_POOLING,
    "GlobalMaxPooling2D": _GLOBAL_POOLING,
    "GlobalMaxPooling3D": _GLOBAL_POOLING,
    "Flatten": LayerFacts(flow="flatten"),
    "Reshape": LayerFacts(flow="reshape"),
    "Permute": LayerFacts(flow="permute"),
    "RepeatVector": LayerFacts(flow="repeat_vector"),
    "Concatenate": LayerFacts(flow="concatenate"),
    "Add": dataclasses.replace(_MERGE, xnnpack="merge"),
    "Multiply": dataclasses.replace(_MERGE, xnnpack="merge"),
    "Subtract": _MERGE,
    "Average": _MERGE,
    "Maximum": _MERGE,
    "Minimum": _MERGE,
}
_GATED_EXPERTS = _experts(
    "_expert_feedforward_gate_dense", "_expert_feedforward_output_dense", flow="gated_experts"
)
_GROUPED_ATTENTION = """
    CachedGemma3Attention CachedGemmaAttention CachedMistralAttention CachedMixtralAttention
    LlamaAttention Phi3Attention Qwen3Attention Qwen3MoeAttention QwenAttention QwenMoeAttention
    SmolLM3Attention
"""
_MEAN_SQUARES = """
    LlamaLayerNorm MistralLayerNormalization MixtralLayerNormalization Phi3LayerNorm Qwen3LayerNorm
    Qwen3MoeLayerNorm QwenLayerNorm QwenMoeLayerNorm T5LayerNorm
"""
# Classes of other packages, by package and name, so that the packages need not be imported.
_FACTS.update(
    {
        "keras_hub.MixtralMoeExperts": _experts(
            "_expert_feedforward_gate_dense",
            "_expert_feedforward_intermediate_dense",
            "_expert_feedforward_output_dense",
            flow="gated_experts",
        ),
        "keras_hub.CachedMultiHeadAttention": LayerFacts(flow="attention"),
        "keras_hub.T5MultiHeadAttention": LayerFacts(flow="biased_attention"),
        **{
            f"keras_hub.{name}": LayerFacts(flow="grouped_attention")
            for name in _GROUPED_ATTENTION.split()
        },
        **{
            f"keras_hub.{name}": LayerFacts(flow="rms_normalization")
            for name in _MEAN_SQUARES.split()
        },
        # Of this name, Gemma and Gemma3 multiply by one more than the scale, Gemma4 by the scale.
        "keras_hub.RMSNormalization": LayerFacts(flow="layer_normalization"),
        "keras_hub.QwenMoeExperts": _GATED_EXPERTS,
        "keras_hub.Qwen3MoeExperts": _GATED_EXPERTS,
        "keras_hub.Qwen3_5MoeExperts": _GATED_EXPERTS,
        "keras_hub.GptOssExperts": _experts("gate_up_proj", "down_proj"),
        "keras_hub.Gemma4MoEBlock": _experts("gate_proj", "up_proj", "down_proj"),
    }
)
# Layers that store only nonzero weights are made of other layers, and have no facts but this one.
_FACTS.update(
    {
        "tfprune.SparseDense": LayerFacts(macs=Macs("rows", ("stored",))),
        "tfprune.SparseEinsumDense": LayerFacts(macs=Macs("einsum", ("stored",))),
        "tfprune.SparseConv": LayerFacts(macs=Macs("outputs", ("stored",))),
    }
)
# Some versions of Keras lack some of these classes.
_FACTS.update(
    {getattr(layers, name): facts for name, facts in _BY_NAME.items() if hasattr(layers, name)}
)
_FACTS.update(
    {
        ConvLSTMCell: _CELL,
        LayerScale: LayerFacts(flow="layer_scale"),
        CustomScaleLayer: LayerFacts(flow="custom_scale"),
    }
)
