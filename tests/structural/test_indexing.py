"""Channels are followed through indices in code: the smaller model computes the same."""

import keras
import numpy as np
import pytest
from keras import layers, ops

import tfprune


@keras.saving.register_keras_serializable("indexing")
class Gate(layers.Layer):
    """Squeeze-and-excitation as users write it, with axes that an index adds."""

    def __init__(self, width, index="none", **kwargs):
        super().__init__(**kwargs)
        self.width, self.index = width, index
        self.down = layers.Dense(4, "relu", name="down")
        self.up = layers.Dense(width, "sigmoid", name="up")

    def build(self, shape):
        self.down.build((shape[0], shape[-1]))
        self.up.build((shape[0], 4))

    def call(self, x):
        gate = self.up(self.down(ops.mean(x, axis=(1, 2))))
        return x * (gate[:, None, None, :] if self.index == "none" else gate[:, None, None])

    def get_config(self):
        return {**super().get_config(), "width": self.width, "index": self.index}


def gated(index):
    inputs = keras.Input((8, 8, 3))
    x = layers.Conv2D(16, 3, activation="relu", name="conv")(inputs)
    x = Gate(16, index)(x)
    return keras.Model(inputs, layers.Dense(5)(layers.GlobalAveragePooling2D()(x)))


def first_place(key):
    inputs = keras.Input((6, 4))
    x = layers.Dense(16, "relu", name="conv")(inputs)
    return keras.Model(inputs, layers.Dense(5)(layers.Flatten()(x[key])))


def shrunk(model):
    keras.utils.set_random_seed(0)
    model.set_weights([np.random.normal(size=w.shape) for w in model.get_weights()])
    masked = tfprune.prune_low_magnitude(
        model, tfprune.ConstantSparsity(0.5, 0), pattern=tfprune.Filter(round_to=1)
    )
    tfprune.UpdatePruningStep(masked)
    small = tfprune.shrink(masked)
    x = np.random.normal(size=(3, *model.input_shape[1:])).astype("float32")
    np.testing.assert_allclose(
        small.predict(x, verbose=0), masked.predict(x, verbose=0), rtol=1e-4, atol=1e-4
    )
    return small


@pytest.mark.parametrize("index", ["none", "short"])
def test_axes_that_an_index_adds(index):
    small = shrunk(gated(index))
    assert small.get_layer("conv").filters == 8


@pytest.mark.parametrize(
    "key",
    [
        (slice(None), 0),
        (slice(None), -1, slice(None)),
        (slice(None), slice(1, 4)),
        (Ellipsis, None, slice(None)),
    ],
)
def test_places_that_an_index_picks(key):
    small = shrunk(first_place(key))
    assert small.get_layer("conv").units == 8


@pytest.mark.parametrize("key", [(Ellipsis, slice(0, 8)), (slice(None), slice(None), 3)])
def test_channels_that_an_index_picks_stay(key):
    model = first_place(key)
    (group,) = (g for g in tfprune.dependency_groups(model) if "conv" in g.layers)
    assert not group.removable
