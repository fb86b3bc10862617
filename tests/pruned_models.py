"""Models of every kind, wrapped and trained, for the tests of wrapping and stripping."""

import keras
import numpy as np
import pytest
from keras import layers, ops

import tfprune
from tfprune._wrapping.wrapper import mask_owners

register = keras.saving.register_keras_serializable(package="pruned_models")


@register
class Twin(layers.Layer):
    """Holds layers, one of them in a list."""

    def __init__(self, units, **kwargs):
        super().__init__(**kwargs)
        self.units = units
        self.left = layers.Dense(units, name="left")
        self.others = [layers.Dense(units, name="right")]

    def build(self, input_shape):
        self.left.build(input_shape)
        self.others[0].build(input_shape)
        self.built = True

    def call(self, inputs):
        return self.left(inputs) + self.others[0](inputs)

    def get_config(self):
        return {**super().get_config(), "units": self.units}


@register
class Subclassed(keras.Model):
    def __init__(self, units=8, **kwargs):
        super().__init__(**kwargs)
        self.units = units
        self.first = layers.Dense(units, activation="relu", name="first")
        self.blocks = [layers.Dense(units, name=f"block_{i}") for i in range(2)]
        self.twin = Twin(units, name="twin")
        self.out = layers.Dense(2, name="out")

    def build(self, input_shape):
        self.first.build(input_shape)
        for layer in (*self.blocks, self.twin, self.out):
            layer.build((None, self.units))
        self.built = True

    def call(self, inputs, training=False):
        x = self.first(inputs)
        for block in self.blocks:
            x = x + block(x)
        return self.out(self.twin(x))

    def get_config(self):
        return {**super().get_config(), "units": self.units}


@register
class Logging(keras.Model):
    """A Functional model with its own training step, which reports one more number."""

    def train_step(self, data):
        return {**super().train_step(data), "mine": ops.convert_to_tensor(42.0)}


def schedule_to(sparsity=0.75, end=2):
    return tfprune.PolynomialDecay(0.0, sparsity, begin_step=0, end_step=end, frequency=1)


def at_once(sparsity=0.5):
    return tfprune.ConstantSparsity(sparsity, begin_step=0)


def sequential():
    return keras.Sequential(
        [keras.Input((6,)), layers.Dense(8, "relu"), layers.Dropout(0.5), layers.Dense(2)]
    )


def functional():
    x = keras.Input((6,))
    y = layers.Dense(8, "relu", name="a")(x)
    return keras.Model(x, layers.Dense(2, name="b")(layers.Concatenate()([x, y])))


def nested():
    x = keras.Input((8,))
    encoder = keras.Model(x, layers.Dense(8, name="inner")(x), name="encoder")
    decoder = keras.Sequential([keras.Input((8,)), encoder, layers.Dense(4)], name="decoder")
    x = keras.Input((6,))
    return keras.Model(x, layers.Dense(2)(decoder(layers.Dense(8)(x))))


def several():
    a, b = keras.Input((6,), name="a"), keras.Input((4,), name="b")
    x = layers.Concatenate()([layers.Dense(4)(a), layers.Dense(4)(b)])
    return keras.Model(
        {"a": a, "b": b}, [layers.Dense(2, name="y")(x), layers.Dense(3, name="z")(x)]
    )


def shared():
    x = keras.Input((6,))
    layer = layers.Dense(6, "tanh")
    return keras.Model(x, layers.Dense(2)(layer(layer(layer(x)))))


def subclassed():
    model = Subclassed()
    model.build((None, 6))
    return model


def holding():
    x = keras.Input((6,))
    return keras.Model(x, layers.Dense(2)(Twin(8)(x)))


def raw_operations():
    x = keras.Input((6,))
    y = ops.relu(layers.Dense(8)(x)) * 2.0 + 1.0
    y = ops.concatenate([y, ops.sum(y, axis=-1, keepdims=True)], axis=-1)
    return keras.Model(x, layers.Dense(2)(y))


def frozen():
    model = functional()
    model.get_layer("a").trainable = False
    return model


def own_train_step():
    x = keras.Input((6,))
    return Logging(x, layers.Dense(2)(layers.Dense(8)(x)))


MODELS = [
    sequential,
    functional,
    nested,
    several,
    shared,
    subclassed,
    holding,
    raw_operations,
    frozen,
    own_train_step,
]


every_model = pytest.mark.parametrize("make", MODELS, ids=lambda make: make.__name__)


def data_for(make, number=8):
    random = np.random.default_rng(0)

    def normal(width):
        return random.normal(size=(number, width)).astype("float32")

    if make is several:
        return {"a": normal(6), "b": normal(4)}, [normal(2), normal(3)]
    return normal(6), normal(2)


def equal(left, right):
    assert len(left) == len(right) > 0
    for one, other in zip(left, right, strict=True):
        np.testing.assert_array_equal(one, other)


def values(model):
    return [np.array(v.numpy()) for v in model.weights]


def weights_of(model):
    return [w for owner in mask_owners(model) for w in owner.pruned_weights]


def masks_of(model):
    return [w.mask.numpy() for w in weights_of(model)]


def check_exact(model, sparsity):
    for weight in weights_of(model):
        value, mask = weight.variable.numpy(), weight.mask.numpy()
        zeros = value.size - max(1, round(value.size * (1 - sparsity)))
        assert np.count_nonzero(~mask) == zeros, weight.path
        np.testing.assert_array_equal(value == 0, ~mask)
        assert not np.signbit(value[~mask]).any()


def is_plain(model):
    constraints = {type(v.constraint).__module__ for v in model.variables}
    text = "" if isinstance(model, Subclassed) else model.to_json()
    inside = {type(layer).__module__ for layer in model._flatten_layers()}
    return not any("tfprune" in item for item in (text, *constraints, *inside))


def train(model, make, epochs=1, **kwargs):
    x, y = data_for(make)
    model.compile("adam", "mse")
    return model.fit(x, y, 4, epochs, verbose=0, callbacks=[tfprune.UpdatePruningStep()], **kwargs)


@register
class WrapsItself(keras.Model):
    """Its constructor wraps layers: one in an attribute, two in a list, one in a tuple."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        # The weights of the plain layer have the shapes of those around it.
        self.first = tfprune.prune_low_magnitude(layers.Dense(8), schedule_to())
        self.more = tfprune.prune_low_magnitude([layers.Dense(8), layers.Dense(8)], schedule_to())
        self.plain = layers.Dense(8)
        self.ends = (tfprune.prune_low_magnitude(layers.Dense(2), schedule_to()),)

    def build(self, input_shape):
        self.first.build(input_shape)
        for layer in (self.plain, *self.more, *self.ends):
            layer.build((None, 8))
        self.built = True

    def call(self, inputs):
        x = self.plain(self.first(inputs))
        for layer in self.more:
            x = x + layer(x)
        return self.ends[0](x)


MORE, LESS = at_once(0.75), at_once(0.25)
