"""Mask updates under MirroredStrategy on two logical CPUs, in a separate process.

Each replica gets weights of its own, which training never makes: they show by whose weights a
replica chooses. Argument: a folder for the arrays.
"""

import sys

import keras
import numpy as np
import tensorflow as tf
from keras import layers

import tfprune
from tfprune import _keras
from tfprune._updates.mask_update import MaskUpdate
from tfprune._wrapping.wrapper import pruned_weights
from tfprune.masks import device, groups

cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)

CASES = {
    "local": {"scope": "local"},
    "global": {"scope": "global"},
    "filter": {"pattern": "filter"},
}
PLACES, READ = [], []


def watch():
    """Notes where scores lie, and how much of tensors the host reads."""
    choose, on_host, host_array = device.keep_device_masks, _keras.on_host, _keras.host_array

    def chosen(scores):
        weights = [item.values[0] for items, _ in scores for item in items]
        PLACES.extend(tf.convert_to_tensor(weight).device[-5:] for weight in weights)
        return choose(scores)

    def read(tensor):
        READ.append(int(np.prod(tensor.shape)))
        return on_host(tensor)

    def read_variable(variable):
        assert variable.dtype == "bool", f"{variable.path} was read"
        return host_array(variable)

    groups.keep_device_masks, _keras.on_host, _keras.host_array = chosen, read, read_variable


def pruned_model(strategy, options):
    with strategy.scope():
        model = keras.Sequential(
            [
                keras.Input((6, 6, 4)),
                layers.Conv2D(8, 3),
                layers.Flatten(),
                layers.Dense(12),
                layers.Dense(6),
            ]
        )
        return tfprune.prune_low_magnitude(model, tfprune.ConstantSparsity(0.5, 0), **options)


def give_each_replica_its_own(weights):
    random = np.random.default_rng(0)
    for weight in weights:
        for copy in weight.variable.value.values:
            copy.assign(random.normal(size=copy.shape).astype("float32"))


def noted(arrays, when, weights):
    for number, weight in enumerate(weights):
        for name, variable in (("weight", weight.variable), ("mask", weight.mask)):
            for replica, copy in enumerate(variable.value.values):
                assert copy.device.endswith(f"CPU:{replica}")
                arrays[f"{when}-{name}-{number}-{replica}"] = np.asarray(copy)


def train_with_exchanges(strategy, masks_on):
    """Weights and masks after a training in which RigL drops and grows connections."""
    keras.utils.set_random_seed(0)
    random = np.random.default_rng(0)
    x, y = (random.normal(size=(16, size)).astype("float32") for size in (12, 3))
    with strategy.scope():
        model = keras.Sequential([keras.Input((12,)), layers.Dense(8, "relu"), layers.Dense(3)])
        rigl = tfprune.RigL(
            0.6, update_every=2, total_steps=8, data=(x, y), batch_size=8, masks_on=masks_on
        )
        model = rigl.prune(model)
        model.compile("adam", "mse")
    model.fit(x, y, batch_size=8, epochs=4, shuffle=False, verbose=0, callbacks=[rigl])
    arrays = {}
    noted(arrays, "after", pruned_weights(model))
    return arrays


def main(folder):
    strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
    for masks_on in ("host", "device"):
        np.savez(f"{folder}/rigl-{masks_on}.npz", **train_with_exchanges(strategy, masks_on))
    models = [pruned_model(strategy, options) for options in CASES.values()]
    # To find filters that are coupled takes a look at the weights, once.
    updates = [MaskUpdate(model, "device") for model in models]
    watch()
    for name, model, update in zip(CASES, models, updates, strict=True):
        weights, arrays = pruned_weights(model), {}
        give_each_replica_its_own(weights)
        noted(arrays, "before", weights)
        PLACES.clear()
        update.apply([(0.5, weight) for weight in weights])
        noted(arrays, "after", weights)
        assert set(PLACES) == (set() if name == "filter" else {"CPU:0", "CPU:1"}), PLACES
        np.savez(f"{folder}/{name}.npz", **arrays)
    # Counts and pooled scores.
    assert READ and max(READ) <= 12, READ


if __name__ == "__main__":
    main(*sys.argv[1:])
