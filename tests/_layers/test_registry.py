"""What counts as prunable, and which axes are inputs and outputs."""

import keras
import numpy as np
import pytest
from keras import layers

import tfprune
from tfprune._layers import facts, registry

# Kernel shapes as Keras documents them; axes of (inputs, outputs) named by hand.
AXES = {
    "dense (in, out)": (layers.Dense(5), (None, 3), (0,), (1,)),
    "conv1d (w, in, out)": (layers.Conv1D(5, 2), (None, 4, 3), (1,), (2,)),
    "conv2d (h, w, in, out)": (layers.Conv2D(5, 2), (None, 4, 4, 3), (2,), (3,)),
    "conv3d (d, h, w, in, out)": (layers.Conv3D(5, 2), (None, 4, 4, 4, 3), (3,), (4,)),
    "conv1d transpose (w, out, in)": (layers.Conv1DTranspose(5, 2), (None, 4, 3), (2,), (1,)),
    "conv2d transpose": (layers.Conv2DTranspose(5, 2), (None, 4, 4, 3), (3,), (2,)),
    "conv3d transpose": (layers.Conv3DTranspose(5, 2), (None, 4, 4, 4, 3), (4,), (3,)),
    "depthwise1d (w, in, times)": (layers.DepthwiseConv1D(2), (None, 4, 3), (1,), (1, 2)),
    "depthwise2d": (layers.DepthwiseConv2D(2), (None, 4, 4, 3), (2,), (2, 3)),
    "embedding (words, size)": (layers.Embedding(7, 5), (None, 4), (0,), (1,)),
    "einsum ab,bc->ac": (layers.EinsumDense("ab,bc->ac", 5), (None, 3), (0,), (1,)),
    "einsum out first": (layers.EinsumDense("ab,cb->ac", 5), (None, 3), (1,), (0,)),
    "einsum split heads": (
        layers.EinsumDense("abc,cde->abde", (None, 2, 4)),
        (None, 6, 3),
        (0,),
        (1, 2),
    ),
    "einsum join heads": (
        layers.EinsumDense("abcd,cde->abe", (None, 5)),
        (None, 6, 2, 3),
        (0, 1),
        (2,),
    ),
    "einsum dots": (layers.EinsumDense("...x,xy->...y", 5), (None, 4, 3), (0,), (1,)),
}


@pytest.mark.parametrize("name", AXES)
def test_axes(name):
    layer, input_shape, inputs, outputs = AXES[name]
    layer.build(input_shape)
    (entry,) = registry.own_prunable_weights(layer)
    variable = entry.get(layer)
    axes = entry.axes_of(layer).resolve(len(variable.shape))
    assert (axes.inputs, axes.outputs) == (inputs, outputs)
    if len(outputs) == 1 and not isinstance(layer, layers.Embedding):
        assert variable.shape[outputs[0]] == 5
    if len(inputs) == 1 and not isinstance(layer, layers.Embedding):
        assert variable.shape[inputs[0]] == 3


class Blend(layers.Layer):
    def build(self, input_shape):
        width = input_shape[-1]
        self.mix = self.add_weight(shape=(4, width), initializer="random_normal", name="mix")
        self.gain = self.add_weight(shape=(width,), initializer="random_normal", name="gain")

    def call(self, inputs):
        return inputs * self.gain


class FineBlend(Blend):
    """Inherits what is registered for its base."""


@pytest.fixture
def blend(monkeypatch):
    """Registrations of a test end with it."""
    monkeypatch.setattr(facts, "_FACTS", dict(facts._FACTS))
    return Blend


@pytest.mark.parametrize(
    ("weights", "expected"),
    [
        (["mix"], ["mix"]),
        ("gain", ["gain"]),
        (["mix", "gain"], ["mix", "gain"]),
        (tfprune.PrunableWeight("mine", lambda layer: layer.mix), ["mine"]),
    ],
    ids=["list", "name", "both", "PrunableWeight"],
)
def test_register(blend, weights, expected):
    assert registry.own_prunable_weights(Blend()) is None
    with pytest.raises(ValueError, match=r"Received: '.*', a Blend that.*register_prunable"):
        tfprune.prune_low_magnitude(Blend())
    tfprune.register_prunable(Blend, weights)
    for cls in (Blend, FineBlend):
        wrapper = tfprune.prune_low_magnitude(cls())
        wrapper.build((None, 3))
        assert [w.path for w in wrapper.pruned_weights] == expected


def test_axes_of_a_registered_weight(blend):
    axes = tfprune.patterns.KernelAxes(inputs=(1,), outputs=(0,))
    tfprune.register_prunable(Blend, [tfprune.PrunableWeight("mix", lambda layer: layer.mix, axes)])
    schedule = tfprune.ConstantSparsity(0.5, begin_step=0)
    wrapper = tfprune.prune_low_magnitude(Blend(), schedule, pattern="filter")
    model = keras.Sequential([keras.Input((3,)), wrapper])
    tfprune.UpdatePruningStep(model)
    kept = wrapper.pruned_weights[0].mask.numpy()
    # mix is (4, 3) with the outputs along axis 0: whole rows go, two of four.
    assert kept.all(axis=1).sum() == 2 and (~kept).all(axis=1).sum() == 2


def test_a_subclass_can_be_exempt(blend):
    tfprune.register_prunable(Blend, ["mix"])
    tfprune.register_prunable(FineBlend, [])
    assert tfprune.prune_low_magnitude([FineBlend(name="fine")])[0].name == "fine"
    with pytest.raises(ValueError, match="Expected 'fine' to have a prunable weight"):
        tfprune.prune_low_magnitude(FineBlend(name="fine"))


def test_nearest_class_counts(blend):
    tfprune.register_prunable(Blend, ["mix"])
    tfprune.register_prunable(FineBlend, ["gain"])
    assert [w.name for w in registry.own_prunable_weights(FineBlend())] == ["gain"]
    assert [w.name for w in registry.own_prunable_weights(Blend())] == ["mix"]


@pytest.mark.parametrize(
    ("layer_class", "weights", "message"),
    [
        (Blend(), ["mix"], "Expected `layer_class`.*Received: layer_class=<Blend"),
        (int, ["mix"], "Expected `layer_class`.*Received: layer_class=<class 'int'>"),
        (Blend, [3], "Expected `weights` to hold attribute names.*Received: 3"),
        (Blend, np.array("mix"), r"Expected `weights` to hold attribute names.*array\('mix'"),
    ],
)
def test_bad_registration(blend, layer_class, weights, message):
    with pytest.raises(TypeError, match=message):
        tfprune.register_prunable(layer_class, weights)
    assert registry.own_prunable_weights(Blend()) is None


def test_prunable_layer_has_to_say_what():
    class Silent(layers.Layer, tfprune.PrunableLayer):
        def build(self, input_shape):
            self.built = True

    with pytest.raises(NotImplementedError, match="Silent has to implement get_prunable_weights"):
        Silent().get_prunable_weights()


def test_tied_weights_count_once():
    tied, untied = (layers.ReversibleEmbedding(7, 5, tie_weights=t) for t in (True, False))
    assert [w.name for w in registry.own_prunable_weights(tied)] == ["embeddings"]
    assert [w.name for w in registry.own_prunable_weights(untied)] == [
        "embeddings",
        "reverse_embeddings",
    ]
