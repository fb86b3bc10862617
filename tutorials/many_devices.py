"""Pruning with weights sharded over 8 devices, on one CPU.

Makes JAX see 8 virtual devices, shards the hidden layers of a network over four of them and its
batches over two, and prunes it while it trains. The masks lie on the devices as their weights do,
and are chosen there. Prints what each device holds. On 8 GPUs or TPU cores, the program is the
same.

python tutorials/many_devices.py                  handwritten digits, no download
python tutorials/many_devices.py --epochs 3       shorter
"""

import argparse
import os

os.environ["KERAS_BACKEND"] = "jax"
os.environ.setdefault("XLA_FLAGS", "--xla_force_host_platform_device_count=8")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
from rich.console import Console
from rich.table import Table
from sklearn.datasets import load_digits

import tfprune


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--epochs", type=int, default=8, help="epochs of training, at least 2")
    epochs = max(2, parser.parse_args().epochs)
    devices = keras.distribution.list_devices()
    if len(devices) % 4:
        raise SystemExit(f"Expected a number of devices that 4 divides. Received: {len(devices)}.")
    keras.utils.set_random_seed(0)
    keras.distribution.set_distribution(sharded_over(devices))

    x, y = load_digits(return_X_y=True)
    x = (x / 16).astype("float32")
    model = keras.Sequential(
        [
            keras.Input((64,)),
            keras.layers.Dense(256, "relu", name="first"),
            keras.layers.Dense(256, "relu", name="second"),
            keras.layers.Dense(10, "softmax", name="output"),
        ]
    )
    schedule = tfprune.PolynomialDecay.from_epochs(0.0, 0.9, end_epoch=epochs - 1)
    model = tfprune.prune_low_magnitude(model, schedule, scope="global")
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    model.fit(
        x[:1440],
        y[:1440],
        batch_size=48,
        epochs=epochs,
        verbose=2,
        callbacks=[tfprune.UpdatePruningStep(masks_on="device")],
    )

    Console().print(placement(model))
    print(tfprune.sparsity_report(model))
    # Each of the two rows of devices gets one half of a batch.
    _, accuracy = model.evaluate(x[1440:1776], y[1440:1776], batch_size=48, verbose=0)
    print(f"accuracy on test data: {accuracy:.3f}")


def sharded_over(devices):
    """Kernels of the hidden layers are split by columns; all else is whole on each device."""
    mesh = keras.distribution.DeviceMesh((len(devices) // 4, 4), ["batch", "model"], devices)
    layout = keras.distribution.LayoutMap(mesh)
    layout[".*(first|second)/kernel$"] = (None, "model")
    return keras.distribution.ModelParallel(layout_map=layout, batch_dim_name="batch")


def placement(model):
    """A table of what each device holds of each weight and of its mask."""
    table = Table("weight", "shape", "on a device", "its mask on a device", "zeros")
    for layer in model.layers:
        for path, mask in layer.masks.items():
            weight = next(w for w, own, _ in layer.pruning_vars if own is mask)
            parts = [v.value.addressable_shards[0].data.shape for v in (weight, mask)]
            zeros = 1 - np.asarray(mask.value).mean()
            shown = [tuple(weight.shape), *parts]
            table.add_row(f"{layer.name}/{path}", *map(str, shown), f"{zeros:.1%}")
    return table


if __name__ == "__main__":
    main()
