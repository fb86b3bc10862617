"""What the tests of training share."""

import keras
import numpy as np
from keras import layers, ops

import tfprune
from tfprune._wrapping.wrapper import mask_owners

SAMPLES, BATCH = 48, 8


STEPS = SAMPLES // BATCH


def data(seed=0):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(SAMPLES, 8, 8, 1)).astype("float32")
    return x, rng.normal(size=(SAMPLES, 5)).astype("float32")


def small_cnn():
    keras.utils.set_random_seed(3)
    return keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            layers.Conv2D(6, 3, activation="relu"),
            layers.BatchNormalization(),
            layers.Flatten(),
            layers.Dropout(0.3, seed=1),
            layers.Dense(7, activation="relu"),
            layers.Dense(5),
        ]
    )


def schedule(end=2 * STEPS, frequency=2):
    return tfprune.PolynomialDecay(0.0, 0.8, begin_step=0, end_step=end, frequency=frequency)


def weights_of(model):
    return [weight for owner in mask_owners(model) for weight in owner.pruned_weights]


def assert_exactly_sparse(model):
    for weight in weights_of(model):
        value, mask = (ops.convert_to_numpy(v) for v in (weight.variable, weight.mask))
        assert not value[~mask].any()
        assert not np.signbit(value[~mask].astype("float32")).any()


def kept(size, sparsity):
    return max(1, round(size * (1 - sparsity)))


class Watch(keras.callbacks.Callback):
    """Looks at the weights after every batch."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def on_train_batch_end(self, batch, logs=None):
        assert_exactly_sparse(self.model)
        self.seen.append(sum(weight.zeros for weight in weights_of(self.model)))


def fit(model, epochs=2, callbacks=(), **kwargs):
    x, y = data()
    # The watch is first and last: the order of callbacks must not matter.
    watches = [Watch(), Watch()]
    history = model.fit(
        x,
        y,
        batch_size=BATCH,
        epochs=epochs,
        verbose=0,
        shuffle=False,
        callbacks=[watches[0], tfprune.UpdatePruningStep(), *callbacks, watches[1]],
        **kwargs,
    )
    return history, watches[1].seen
