"""The models in saved_by_0_1: their own classes, their data, and how they are trained further.

The program that wrote the files and the test that loads them share this module. It uses public
names alone, which stay from version to version.
"""

import keras
import numpy as np
from keras import layers

import tfprune

SAMPLES, BATCH = 16, 4
STEPS = SAMPLES // BATCH


def numbers(*shape):
    """Numbers between -1 and 1, the same on every machine."""
    count = int(np.prod(shape))
    return ((np.arange(1, count + 1) * 7919 % 1009 - 504) / 504).reshape(shape).astype("float32")


def data(model):
    """Inputs and targets that fit a model with one input and one output."""
    x = numbers(SAMPLES, *model.input_shape[1:])
    if "int" in model.inputs[0].dtype:
        x = (np.abs(x) * 7).astype("int32")
    return x, numbers(SAMPLES, *model.output_shape[1:])


def train(model, first, last, callback=None, before=()):
    """Trains from one epoch to another, of four steps each, in the same order of samples."""
    callback = callback or tfprune.UpdatePruningStep()
    x, y = data(getattr(model, "model", model))
    model.fit(
        x,
        y,
        batch_size=BATCH,
        initial_epoch=first,
        epochs=last,
        shuffle=False,
        verbose=0,
        callbacks=[*before, callback],
    )


def schedule(final=0.75):
    """A schedule whose second half lies in the second epoch."""
    return tfprune.PolynomialDecay(0.0, final, begin_step=0, end_step=8, power=1, frequency=2)


def plain(name="plain"):
    """A plain model with more than one kind of weight."""
    model = keras.Sequential(
        [
            keras.Input((6, 6, 2)),
            layers.Conv2D(4, 3, strides=2, activation="relu", name="conv"),
            layers.Flatten(name="flat"),
            layers.Dense(4, activation="relu", name="hidden"),
            layers.Dropout(0.5, seed=3, name="dropout"),
            layers.Dense(2, name="out"),
        ],
        name=name,
    )
    for weight in model.weights:
        weight.assign(numbers(*weight.shape) / 2)
    return model


def sequential():
    """The wrapped model whose weights lie in files that hold no model."""
    model = tfprune.prune_low_magnitude(plain("sequential"), schedule())
    model.compile(keras.optimizers.Adam(0.05), "mse", run_eagerly=True)
    return model


@keras.saving.register_keras_serializable(package="saved")
class Subclassed(keras.Model):
    """A model whose layers cannot be replaced."""

    input_shape, output_shape = (None, 4), (None, 2)
    inputs = [keras.KerasTensor((None, 4))]

    def __init__(self, units, **kwargs):
        super().__init__(**kwargs)
        self.units = units
        self.hidden = layers.Dense(units, activation="relu", name="hidden")
        self.dropout = layers.Dropout(0.25, seed=4, name="dropout")
        self.out = layers.Dense(2, name="out")

    def build(self, input_shape):
        self.hidden.build(input_shape)
        self.out.build((None, self.units))

    def call(self, x, training=False):
        return self.out(self.dropout(self.hidden(x), training=training))

    def get_config(self):
        return {"units": self.units, "name": self.name}


@keras.saving.register_keras_serializable(package="saved")
class Experts(layers.Layer):
    """A mixture of experts whose weights are one array."""

    def __init__(self, experts, units, **kwargs):
        super().__init__(**kwargs)
        self.experts, self.units = experts, units

    def build(self, input_shape):
        self.up = self.add_weight(shape=(self.experts, input_shape[-1], self.units), name="up")

    def call(self, x):
        return keras.ops.einsum("bd,edf->bf", x, self.up)

    def get_config(self):
        return {**super().get_config(), "experts": self.experts, "units": self.units}


@keras.saving.register_keras_serializable(package="saved")
class Scale(layers.Layer, tfprune.PrunableLayer):
    """A layer that says itself what can be pruned."""

    def build(self, input_shape):
        self.scale = self.add_weight(shape=input_shape[-1:], initializer="ones", name="scale")

    def call(self, x):
        return x * self.scale

    def get_prunable_weights(self):
        return [self.scale]


tfprune.register_prunable(Experts, ["up"])


def rigl(model):
    """The callback that moves a model's connections; its schedule ends with the second epoch."""
    return tfprune.RigL(0.5, data=data(model), update_every=2, total_steps=2 * STEPS, seed=5)


def lottery():
    """A lottery of which the first two of three rounds are done."""
    return tfprune.LotteryTicket(plain(), 0.75, rounds=2, rewind_to=1, pattern="row", seed=6)


class Rounds:
    """Trains a round of the lottery, and counts the rounds."""

    def __init__(self):
        self.count = 0

    def __call__(self, model, callback):
        self.count += 1
        model.compile(keras.optimizers.SGD(0.05), "mse", run_eagerly=True)
        train(model, 0, 1, callback)
        return {"loss": float(model.evaluate(*data(model), verbose=0))}


def total(model):
    """A metric for sensitivity(): the sum of all weights, which every mask changes."""
    return float(sum(np.abs(keras.ops.convert_to_numpy(weight)).sum() for weight in model.weights))


def wrappers(model):
    """The wrappers in a model, nested models included, in the order of its layers."""
    if isinstance(model, (tfprune.PruneLowMagnitude, tfprune.PrunedModel)):
        return [model]
    inner = [wrappers(layer) for layer in getattr(model, "layers", [])]
    return [wrapper for found in inner for wrapper in found]


def state(model):
    """`{"layer/weight": array}` of all weights, masks included, and the steps of the wrappers.

    Names of the models around a layer are left out: Keras adds them or not, as a model is built.
    """
    names = ["/".join(weight.path.split("/")[-2:]) for weight in model.weights]
    if len(set(names)) != len(names):
        raise ValueError(f"Expected each weight to have a unique name. Received: {names}.")
    found = {
        name: keras.ops.convert_to_numpy(weight)
        for name, weight in zip(names, model.weights, strict=True)
    }
    return {**found, "steps": np.array([owner.pruning_step for owner in wrappers(model)])}
