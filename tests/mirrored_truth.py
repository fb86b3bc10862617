"""Trains under MirroredStrategy on two logical CPUs, in a separate process.

Arguments: a folder, a pattern, and where masks are computed.
"""

import sys

import keras
import numpy as np
import tensorflow as tf
from keras import layers

import tfprune
from tfprune._wrapping.wrapper import mask_owners
from tfprune.masks import device, groups

cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)


def main(folder, pattern, masks_on):
    masks = []
    # Which masks the kernel on the device chose.
    original = device.keep_device_masks
    groups.keep_device_masks = lambda *args: masks.append(1) or original(*args)
    keras.utils.set_random_seed(0)
    strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
    with strategy.scope():
        model = keras.Sequential(
            [keras.Input((8, 8, 1)), layers.Conv2D(6, 3), layers.Flatten(), layers.Dense(4)]
        )
        schedule = tfprune.PolynomialDecay(0.0, 0.8, begin_step=0, end_step=9, frequency=2)
        model = tfprune.prune_low_magnitude(model, schedule, pattern=pattern)
        model.compile("adam", "mse")
    rng = np.random.default_rng(0)
    x = rng.normal(size=(40, 8, 8, 1)).astype("float32")
    y = rng.normal(size=(40, 4)).astype("float32")
    saved = keras.callbacks.ModelCheckpoint(
        f"{folder}/{{epoch}}.weights.h5", save_weights_only=True
    )
    callbacks = [saved, tfprune.UpdatePruningStep(masks_on=masks_on)]
    model.fit(x, y, batch_size=8, epochs=2, verbose=0, callbacks=callbacks)
    copies = {}
    for owner in mask_owners(model):
        for weight in owner.pruned_weights:
            for name, variable in (("weight", weight.variable), ("mask", weight.mask)):
                for replica, value in enumerate(
                    strategy.experimental_local_results(variable.value)
                ):
                    copies[f"{owner.name}-{weight.path}-{name}-{replica}"] = np.asarray(value)
    np.savez(f"{folder}/{masks_on}.npz", **copies)
    assert bool(masks) == (masks_on == "device" and pattern == "unstructured")


if __name__ == "__main__":
    main(*sys.argv[1:])
