"""Trains on 8 virtual JAX devices, in one process or two, and writes what came out."""

import json
import os
import pathlib
import re
import sys
import time
import warnings

os.environ["KERAS_BACKEND"] = "jax"
FOLDER, PROCESS, PROCESSES = pathlib.Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
ADDRESSES = ",".join(sys.argv[4:])
COUNT = 8 // PROCESSES
os.environ["XLA_FLAGS"] = f"--xla_force_host_platform_device_count={COUNT}"

import jax  # noqa: E402

jax.config.update("jax_platforms", "cpu")
if PROCESSES > 1:
    jax.config.update("jax_cpu_collectives_implementation", "gloo")

import keras  # noqa: E402
import numpy as np  # noqa: E402
from keras import layers  # noqa: E402

import tfprune  # noqa: E402
from tfprune import _keras  # noqa: E402
from tfprune._keras import devices  # noqa: E402
from tfprune._wrapping.wrapper import pruned_weights  # noqa: E402
from tfprune.masks.device import counting  # noqa: E402
from tfprune.masks.device.keys import keys_function  # noqa: E402

X = np.random.default_rng(0).normal(size=(64, 16)).astype("float32")
Y = X[:, :8] * 2
# Patterns that match the masks too, or the weights alone, by `re.search` and by `re.fullmatch`.
LAYOUTS = {
    "columns": {".*kernel": (None, "model"), ".*bias": ("model",)},
    "kernels alone": {".*/kernel$": (None, "model")},
    "rows": {".*first/kernel$": ("model", None), ".*second/kernel$": (None, "model")},
}


def distribution(way):
    if way == "one":
        return None
    if way == "data":
        return keras.distribution.DataParallel()
    shape = (1, 8) if PROCESSES > 1 else (2, 4)
    mesh = keras.distribution.DeviceMesh(
        shape, ["batch", "model"], keras.distribution.list_devices()
    )
    layout = keras.distribution.LayoutMap(mesh)
    for pattern, axes in LAYOUTS[way].items():
        layout[pattern] = axes
    found = keras.distribution.ModelParallel(layout_map=layout, batch_dim_name="batch")
    found.auto_shard_dataset = False
    return found


def build():
    keras.utils.set_random_seed(1)
    model = keras.Sequential(
        [
            keras.Input((16,)),
            layers.Dense(32, "relu", name="first"),
            layers.Dense(8, name="second"),
        ],
        name="net",
    )
    schedule = tfprune.PolynomialDecay(0.0, 0.75, begin_step=0, end_step=12, frequency=2)
    model = tfprune.prune_low_magnitude(model, schedule, scope="global")
    model.compile(keras.optimizers.SGD(0.02, name="sgd"), "mse")
    return model


def fit(model, epochs, callbacks=()):
    # Each epoch has four steps.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return model.fit(
            X,
            Y,
            batch_size=16,
            epochs=epochs,
            shuffle=False,
            verbose=0,
            callbacks=[tfprune.UpdatePruningStep(), *callbacks],
        ).history["sparsity"]


def write(name, model, found):
    """Writes what a training came to; in two processes, each has to call it."""
    weights = pruned_weights(model)
    found["layouts"] = [
        [str(getattr(v.value.sharding, "spec", "one")) for v in (w.variable, w.mask)]
        for w in weights
    ]
    found["report"] = tfprune.sparsity_report(model).prunable.sparsity
    values = {f"mask_{n}": _keras.host_array(w.mask) for n, w in enumerate(weights)}
    values |= {f"weight_{n}": _keras.host_array(w.variable) for n, w in enumerate(weights)}
    for n, layer in enumerate(tfprune.strip_pruning(model).layers):
        values[f"stripped_{n}"] = _keras.host_array(layer.kernel)
    np.savez(FOLDER / f"{name}.npz", **values)
    (FOLDER / f"{name}.json").write_text(json.dumps(found))


def compiled_collectives():
    """What devices exchange in the kernel, by the compiled text, for three sharded weights."""
    mesh = jax.sharding.Mesh(np.array(jax.devices()), ("model",))
    layout = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec(None, "model"))
    values = np.random.default_rng(0).normal(size=(3, 64, 128)).astype("float32")
    weights = [jax.device_put(value, layout) for value in values]
    kept = [jax.device_put(value > -0.5, layout) for value in values]
    number = np.ones(3, "int32")
    score = keys_function(abs, True)
    keys, _ = score([(weight,) for weight in weights], kept)
    steps = [
        (score, ([(weight,) for weight in weights], kept)),
        (counting.compiled(counting.find), ([keys], [number * 0], np.array([[0], [9]], "int32"))),
        (counting.compiled(counting.cut), (keys, number, number)),
        (counting.compiled(counting.mark), (keys, number, number)),
    ]
    pattern = r"= (\S+) (all-gather|all-to-all|collective-permute|all-reduce)"
    texts = [step.lower(*given).compile().as_text() for step, given in steps]
    return [sorted(set(re.findall(pattern, text))) for text in texts]


def in_one_process():
    (FOLDER / "collectives.json").write_text(json.dumps(compiled_collectives()))
    for way in ("one", "data", *LAYOUTS):
        keras.distribution.set_distribution(distribution(way))
        model = build()
        write(way, model, {"sparsity": fit(model, 3)})


def in_processes():
    keras.distribution.initialize(ADDRESSES, PROCESSES, PROCESS)
    keras.distribution.set_distribution(distribution("kernels alone"))
    model = build()
    spans = [_keras.spans_processes(weight.variable.value) for weight in pruned_weights(model)]
    folder = str(FOLDER / "orbax")
    fit(model, 2, [keras.callbacks.OrbaxCheckpoint(folder, save_freq="epoch", max_to_keep=1)])
    # The trained model is given up here, as if its processes had been killed.
    model = build()
    model.load_weights(folder)
    steps = [layer.pruning_step for layer in model.layers]
    found = {"spans": spans, "steps": steps, "sparsity": fit(model, 1)}
    write(f"process {PROCESS}", model, found)
    devices.PATIENCE = 2
    if PROCESS == 0:
        try:
            tfprune.sparsity_report(model)
        except RuntimeError as error:
            (FOLDER / "alone.txt").write_text(str(error))
    else:
        time.sleep(5)


in_one_process() if PROCESSES == 1 else in_processes()
