"""Whole blocks are removed by how little they change."""

import keras
import numpy as np
import pytest
from keras import layers
from structural_support import randomize

import tfprune
from tfprune.structural import remove_blocks


@keras.saving.register_keras_serializable(package="test_blocks")
class Block(layers.Layer):
    def build(self, shape):
        self.dense = layers.Dense(shape[-1], name="dense")
        self.dense.build(shape)

    def call(self, x):
        return x + self.dense(x)


@pytest.fixture
def model():
    inputs = keras.Input((4,))
    x = inputs
    for number in range(4):
        x = Block(name=f"block_{number}")(x)
    model = randomize(keras.Model(inputs, layers.Dense(2, name="out")(x)))
    # Two blocks change little: they add a hundredth of what the others add.
    for number in (1, 2):
        dense = model.get_layer(f"block_{number}").dense
        dense.set_weights([weight / 100 for weight in dense.get_weights()])
    return model


def data():
    return np.random.default_rng(0).normal(size=(16, 4)).astype("float32")


@pytest.mark.parametrize("wrapped", [False, True])
def test_the_blocks_of_least_influence_go(model, wrapped):
    given = model
    if wrapped:
        given = tfprune.prune_low_magnitude(model, tfprune.ConstantSparsity(0.5, 0))
    small = remove_blocks(given, 2, data())
    assert [layer.name for layer in small.layers[1:]] == ["block_0", "block_3", "out"]
    x = data()
    for name in ("block_0", "block_3"):
        kernel, bias = model.get_layer(name).dense.get_weights()
        x = x + x @ kernel + bias
    kernel, bias = model.get_layer("out").get_weights()
    np.testing.assert_allclose(small(data()), x @ kernel + bias, rtol=1e-4, atol=1e-4)
    assert len(model.layers) == 6


def test_influence_is_the_angle(model):
    found = []
    x = data()
    for number in range(4):
        kernel, bias = model.get_layer(f"block_{number}").dense.get_weights()
        y = x + x @ kernel + bias
        cosine = (x * y).sum(1) / np.linalg.norm(x, axis=1) / np.linalg.norm(y, axis=1)
        found.append(1 - cosine.mean())
        x = y
    blocks = [model.get_layer(f"block_{number}") for number in range(4)]
    influence = tfprune.structural.blocks.block_influence(model, blocks, data())
    np.testing.assert_allclose(influence, found, atol=1e-5)


@pytest.mark.parametrize(
    ("n", "error", "line"),
    [
        (4, ValueError, "more than 4 equal blocks"),
        (0, ValueError, "`n` to be at least 1"),
        (1.5, TypeError, "`n` to be a whole number"),
    ],
)
def test_numbers_that_do_not_fit(model, n, error, line):
    with pytest.raises(error, match=line):
        remove_blocks(model, n, data())


def halving():
    """Convolutions with equal weights, each of which halves the sides of its input."""
    halves = [layers.Conv2D(2, 2, strides=2, name=f"halve_{number}") for number in range(3)]
    return keras.Sequential([keras.Input((8, 8, 2)), *halves])


def different():
    return keras.Sequential([keras.Input((4,)), layers.Dense(3), layers.Dense(2)])


@pytest.mark.parametrize(
    ("model", "shape", "error", "line"),
    [
        (halving(), (2, 8, 8, 2), ValueError, "shape of their inputs.*'halve_0'"),
        (different(), (2, 4), ValueError, "more than 1 equal blocks.*with 1"),
        (keras.Sequential([layers.Dense(4)]), (2, 4), ValueError, "a built model"),
        ("a model", (2, 4), TypeError, "a Keras 3 layer or model"),
    ],
    ids=["other shapes", "no stack", "unbuilt", "no model"],
)
def test_models_without_such_blocks(model, shape, error, line):
    with pytest.raises(error, match=line):
        remove_blocks(model, 1, np.zeros(shape, "float32"))
