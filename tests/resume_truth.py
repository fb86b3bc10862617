"""Trains in a separate process. Usage: resume_truth.py FOLDER first|second|whole WAY [WAY ...]

"whole" trains four epochs, "first" two and saves, "second" loads in this new process and trains
the other two. Each writes all weights that it ends with to FOLDER/WAY/<part>.npz.
"""

import pathlib
import sys

import keras
import numpy as np
import tensorflow as tf
from keras import layers

import tfprune
from tfprune._wrapping.wrapper import mask_owners

tf.config.experimental.enable_op_determinism()
EPOCHS, BATCH, SAMPLES = 4, 8, 52


def make_model():
    keras.utils.set_random_seed(7)
    # A nested model, and more than one source of randomness.
    inner = keras.Sequential([keras.Input((12,)), layers.Dense(12, "relu"), layers.Dropout(0.4)])
    inputs = keras.Input((8, 8, 1))
    x = layers.Conv2D(6, 3, strides=2, activation="relu")(inputs)
    x = layers.SpatialDropout2D(0.2)(x)
    x = layers.Dense(12)(layers.Flatten()(x))
    x = layers.GaussianNoise(0.1)(inner(x))
    model = keras.Model(inputs, layers.Dense(3)(x))
    schedule = tfprune.PolynomialDecay(0.1, 0.85, begin_step=1, end_step=23, frequency=3)
    model = tfprune.prune_low_magnitude(model, schedule, scope="global")
    model.compile(keras.optimizers.Adam(0.01), "mse")
    return model


def batches(epoch):
    """The order of the data depends on the epoch alone."""
    rng = np.random.default_rng(epoch)
    x = rng.normal(size=(SAMPLES, 8, 8, 1)).astype("float32")
    return x, rng.normal(size=(SAMPLES, 3)).astype("float32")


class Data(keras.utils.PyDataset):
    def __init__(self, first):
        super().__init__()
        self.epoch = first
        self.x, self.y = batches(first)

    def __len__(self):
        return -(-SAMPLES // BATCH)

    def __getitem__(self, index):
        part = slice(index * BATCH, (index + 1) * BATCH)
        return self.x[part], self.y[part]

    def on_epoch_end(self):
        self.epoch += 1
        self.x, self.y = batches(self.epoch)


class Killed(Exception):
    pass


class KillAfter(keras.callbacks.Callback):
    def __init__(self, epoch):
        super().__init__()
        self.epoch = epoch

    def on_epoch_begin(self, epoch, logs=None):
        if epoch == self.epoch:
            raise Killed


def main(folder, part, *ways):
    for way in ways:
        place = pathlib.Path(folder, way)
        place.mkdir(exist_ok=True)
        train(way, place, part)
        keras.backend.clear_session()


def train(way, folder, part):
    first, last = {"whole": (0, 4), "first": (0, 2), "second": (2, 4)}[part]
    callbacks = [tfprune.UpdatePruningStep()]
    model = make_model()
    if way == "backup":
        backup = keras.callbacks.BackupAndRestore(str(folder / "backup"))
        callbacks = [*callbacks, backup] if part != "second" else [backup, *callbacks]
        if part == "first":
            callbacks, last = [*callbacks, KillAfter(2)], 4
    elif part == "second":
        model = load(way, folder, model)
    try:
        model.fit(
            Data(first),
            epochs=last,
            initial_epoch=first,
            shuffle=False,
            verbose=0,
            callbacks=callbacks,
        )
    except Killed:
        return
    if part == "first":
        save(way, folder, model)
    state = [np.asarray(v) for v in model.weights]
    state += [np.asarray(v) for v in model.optimizer.variables]
    state.append(np.array(mask_owners(model)[0].pruning_step))
    np.savez(folder / f"{part}.npz", *state)


def save(way, folder, model):
    if way == "keras":
        model.save(folder / "model.keras")
    elif way == "weights":
        model.save_weights(folder / "model.weights.h5")
    elif way == "checkpoint":
        tf.train.Checkpoint(model=model, optimizer=model.optimizer).save(str(folder / "ckpt"))


def load(way, folder, model):
    if way == "keras":
        return keras.models.load_model(folder / "model.keras")
    model.optimizer.build(model.trainable_variables)
    if way == "weights":
        model.load_weights(folder / "model.weights.h5")
    elif way == "checkpoint":
        path = tf.train.latest_checkpoint(str(folder))
        restored = tf.train.Checkpoint(model=model, optimizer=model.optimizer).restore(path)
        restored.assert_existing_objects_matched()
    return model


if __name__ == "__main__":
    main(*sys.argv[1:])
