"""The table of layer facts: one entry makes a class known to everything that asks."""

import keras
import numpy as np
import pytest
from keras import layers

import tfprune
from tfprune._channels.rules import table as rules
from tfprune._deployment import xnnpack
from tfprune._layers import facts
from tfprune._reports import cost


class Convolution(layers.Layer):
    """A convolution with the same attributes as that of Keras, from which it does not inherit."""

    data_format, groups, strides, dilation_rate = "channels_last", 1, (1, 1), (1, 1)

    def __init__(self, filters, kernel_size, padding="valid", use_bias=True, **kwargs):
        super().__init__(**kwargs)
        self.filters, self.padding, self.use_bias = filters, padding, use_bias
        self.kernel_size = tuple(kernel_size)
        self.activation = keras.activations.linear
        self.bias = None

    def build(self, input_shape):
        shape = (*self.kernel_size, input_shape[-1], self.filters)
        self.kernel = self.add_weight(shape=shape, initializer="glorot_uniform", name="kernel")
        if self.use_bias:
            self.bias = self.add_weight(shape=(self.filters,), name="bias")

    def call(self, inputs):
        outputs = keras.ops.conv(inputs, self.kernel, padding=self.padding)
        return outputs if self.bias is None else outputs + self.bias

    def get_config(self):
        own = ("filters", "kernel_size", "padding", "use_bias")
        return {**super().get_config(), **{name: getattr(self, name) for name in own}}


class Sub(layers.Conv2D):
    """Changes nothing that computes."""


class Louder(layers.Conv2D):
    """Computes something else."""

    def call(self, inputs):
        return 2 * super().call(inputs)


@pytest.fixture
def table(monkeypatch):
    """Entries of a test end with it."""
    monkeypatch.setattr(facts, "_FACTS", dict(facts._FACTS))


def net(convolution, use_bias=False):
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            keras.Input((6, 6, 3)),
            convolution(4, (3, 3), padding="same", use_bias=use_bias, name="first"),
            layers.BatchNormalization(name="norm"),
            layers.ReLU(name="relu"),
            convolution(5, (3, 3), padding="valid", name="second"),
            layers.GlobalAveragePooling2D(name="mean"),
            layers.Dense(2, name="last"),
        ]
    )
    random = np.random.default_rng(1)
    arrays = [random.uniform(0.1, 1, variable.shape) for variable in model.weights]
    model.set_weights([array.astype("float32") for array in arrays])
    return model


DATA = np.random.default_rng(2).normal(size=(3, 6, 6, 3)).astype("float32")


def outputs(model):
    return keras.ops.convert_to_numpy(model(DATA, training=False))


def kinds(fact):
    return {getattr(entry, fact) for entry in facts._FACTS.values()} - {None}


def test_each_kind_of_the_table_has_its_handler():
    assert kinds("flow") == set(rules.KINDS)
    counted = {macs.places for macs in kinds("macs")}
    assert counted == {*cost._PLACES, *cost._INSIDE, "attention"}
    asked_for = {"convolution", "depthwise", "zeros", "average", "transparent"}
    assert kinds("xnnpack") == {*xnnpack._INSIDE, *asked_for}


def test_one_entry_makes_a_convolution_known_to_everything(table):
    known, own = net(layers.Conv2D), net(Convolution)
    with pytest.raises(ValueError, match="'first' to have a prunable weight"):
        tfprune.prune_low_magnitude(own.get_layer("first"))
    assert set(tfprune.model_cost(own).uncounted) == {"first", "second"}
    assert len(tfprune.fold_batch_norm(own).layers) == len(own.layers)
    tfprune.register_layer(Convolution, like=layers.Conv2D)
    # Pruned, single weights and whole filters.
    schedule = tfprune.ConstantSparsity(0.5, 0)
    for pattern in ("unstructured", "filter"):
        masks = []
        for model in (known, own):
            pruned = tfprune.prune_low_magnitude(model, schedule, pattern=pattern)
            tfprune.UpdatePruningStep(pruned)
            masks += [
                w.mask.numpy() for x in pruned.layers for w in getattr(x, "pruned_weights", [])
            ]
        half = len(masks) // 2
        assert half >= 2
        for expected, mask in zip(masks[:half], masks[half:], strict=True):
            np.testing.assert_array_equal(mask, expected)
    # Counted.
    assert tfprune.model_cost(own) == tfprune.model_cost(known)
    assert tfprune.model_cost(own).macs == 36 * 27 * 4 + 16 * 36 * 5 + 5 * 2
    assert tfprune.model_cost(own).uncounted == ()
    # Followed.
    channels = {"first": [1], "second": [0, 3]}
    smaller = tfprune.remove_channels(own, channels)
    assert smaller.get_layer("first").filters == 3
    expected = outputs(tfprune.remove_channels(known, channels))
    np.testing.assert_allclose(outputs(smaller), expected, rtol=1e-5, atol=1e-6)
    # Folded: the first convolution gets a bias.
    folded = tfprune.fold_batch_norm(own)
    assert "norm" not in [layer.name for layer in folded.layers]
    assert folded.get_layer("first").use_bias
    np.testing.assert_allclose(outputs(folded), outputs(own), rtol=1e-5, atol=1e-5)
    # Taken by XNNPACK.
    assert xnnpack.problems(own) == xnnpack.problems(known)


def test_subclasses_inherit_and_fold_only_where_they_compute_alike(table):
    alike, other = net(Sub), net(Louder)
    for model in (alike, other):
        assert tfprune.model_cost(model) == tfprune.model_cost(net(layers.Conv2D))
        assert len(tfprune.prune_low_magnitude(model).get_layer("first").pruned_weights) == 1
    folded = tfprune.fold_batch_norm(alike)
    assert "norm" not in [layer.name for layer in folded.layers]
    np.testing.assert_allclose(outputs(folded), outputs(alike), rtol=1e-5, atol=1e-5)
    assert "norm" in [layer.name for layer in tfprune.fold_batch_norm(other).layers]
    np.testing.assert_allclose(outputs(tfprune.fold_batch_norm(other)), outputs(other), rtol=1e-6)


def test_what_is_registered_later_is_added(table):
    tfprune.register_layer(Convolution, like=layers.Conv2D)
    tfprune.register_prunable(Convolution, [])
    own = net(Convolution)
    wrapped = tfprune.prune_low_magnitude(own)
    assert not hasattr(wrapped.get_layer("first"), "pruned_weights")
    # Exempt weights multiply like others.
    assert tfprune.model_cost(own).macs == 36 * 27 * 4 + 16 * 36 * 5 + 5 * 2


def test_an_entry_replaces_what_is_inherited(table):
    class Turned(layers.Conv2DTranspose):
        """Inherits from one class, and computes as another one that is no base of it."""

    tfprune.register_layer(Turned, like=layers.Dense)
    layer = Turned(4, 3)
    assert facts.fact(layer, "flow") == "dense" and facts.fact(layer, "xnnpack") is None


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((3, layers.Conv2D), TypeError, "`layer_class` to be a subclass.*layer_class=3"),
        ((Convolution, "Conv2D"), TypeError, "`like` to be a subclass.*like='Conv2D'"),
        ((Sub, Convolution), ValueError, "`like` to be a layer class that tfprune knows.*Conv"),
    ],
)
def test_bad_entries(table, arguments, error, message):
    before = dict(facts._FACTS)
    with pytest.raises(error, match=message):
        tfprune.register_layer(*arguments)
    assert before == facts._FACTS
