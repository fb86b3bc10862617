"""Trains in two JAX processes that share the weights, one of which may be killed and started again.

Arguments: folder, process, number of processes, their addresses, and what to do: "whole" trains
without a break; "killed" kills the second process in the third epoch; "restarted" goes on from the
checkpoint.
"""

import os
import pathlib
import signal
import sys

FOLDER, PROCESS, PROCESSES = pathlib.Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
ADDRESSES, WHAT = sys.argv[4:-1], sys.argv[-1]
os.environ["KERAS_BACKEND"] = "jax"
os.environ["XLA_FLAGS"] = "--xla_force_host_platform_device_count=2"

import jax  # noqa: E402

jax.config.update("jax_platforms", "cpu")
jax.config.update("jax_cpu_collectives_implementation", "gloo")

import keras  # noqa: E402
import numpy as np  # noqa: E402
from keras import layers  # noqa: E402

import tfprune  # noqa: E402
from tfprune import _keras  # noqa: E402
from tfprune._wrapping.wrapper import pruned_weights  # noqa: E402

STEPS, EPOCHS = 4, 4
X = np.random.default_rng(0).normal(size=(16 * STEPS, 16)).astype("float32")


class Kill(keras.callbacks.Callback):
    """Kills its process in the middle of the third epoch."""

    def on_epoch_begin(self, epoch, logs=None):
        self.epoch = epoch

    def on_train_batch_end(self, batch, logs=None):
        if WHAT == "killed" and PROCESS == 1 and (self.epoch, batch) == (2, 1):
            os.kill(os.getpid(), signal.SIGKILL)


def build():
    keras.utils.set_random_seed(1)
    model = keras.Sequential([keras.Input((16,)), layers.Dense(32, "relu"), layers.Dense(8)])
    end = STEPS * EPOCHS
    schedule = tfprune.PolynomialDecay(0.0, 0.75, begin_step=0, end_step=end, frequency=2)
    model = tfprune.prune_low_magnitude(model, schedule, scope="global")
    model.compile(keras.optimizers.SGD(0.02), "mse")
    return model


keras.distribution.initialize(",".join(ADDRESSES), PROCESSES, PROCESS)
mesh = keras.distribution.DeviceMesh((1, 4), ["batch", "model"], keras.distribution.list_devices())
layout = keras.distribution.LayoutMap(mesh)
layout[".*kernel"] = (None, "model")
way = keras.distribution.ModelParallel(layout_map=layout, batch_dim_name="batch")
way.auto_shard_dataset = False
keras.distribution.set_distribution(way)

model = build()
backup = str(FOLDER / ("whole" if WHAT == "whole" else "backup"))
if WHAT == "restarted":
    model.load_weights(backup)
callbacks = [tfprune.UpdatePruningStep(), Kill()]
if WHAT != "restarted":
    callbacks.append(keras.callbacks.OrbaxCheckpoint(backup, save_freq="epoch"))
epoch = model.layers[0].pruning_step // STEPS
model.fit(
    X,
    X[:, :8] * 2,
    batch_size=16,
    initial_epoch=epoch,
    epochs=EPOCHS,
    shuffle=False,
    verbose=0,
    callbacks=callbacks,
)
values = {"begun": np.array(epoch)}
for number, weight in enumerate(pruned_weights(model)):
    values[f"mask_{number}"] = _keras.host_array(weight.mask)
    values[f"weight_{number}"] = _keras.host_array(weight.variable)
np.savez(FOLDER / f"{WHAT}_{PROCESS}.npz", **values)
