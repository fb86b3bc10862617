"""Trains in several processes that hold the same weights: TensorFlow workers or PyTorch ranks.

Arguments: folder, process, number of processes, their addresses, and "tensorflow" or "torch".
"""

import json
import os
import pathlib
import sys

FOLDER, PROCESS, PROCESSES = pathlib.Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
ADDRESSES, LIBRARY = sys.argv[4:-1], sys.argv[-1]
os.environ["KERAS_BACKEND"] = LIBRARY
if LIBRARY == "tensorflow":
    task = {"type": "worker", "index": PROCESS}
    os.environ["TF_CONFIG"] = json.dumps({"cluster": {"worker": ADDRESSES}, "task": task})

import keras  # noqa: E402
import numpy as np  # noqa: E402
from keras import layers  # noqa: E402

import tfprune  # noqa: E402
from tfprune.masks import groups  # noqa: E402

STEPS = 12
# Each process trains on its own data.
X = np.random.default_rng(PROCESS).normal(size=(STEPS, 8, 16)).astype("float32")
PATTERNS = {"single": "unstructured", "filters": "filter"}


def build(pattern):
    keras.utils.set_random_seed(1)
    model = keras.Sequential(
        [keras.Input((16,)), layers.Dense(32, "relu", name="first"), layers.Dense(8, name="second")]
    )
    schedule = tfprune.PolynomialDecay(0.0, 0.75, begin_step=0, end_step=STEPS, frequency=3)
    return tfprune.prune_low_magnitude(model, schedule, pattern=pattern)


def on_tensorflow(name, pattern, strategy, masks_on="auto"):
    import tensorflow as tf

    with strategy.scope():
        model = build(pattern)
        optimizer = keras.optimizers.SGD(0.05)
        optimizer.build(model.trainable_variables)
    pruning = tfprune.UpdatePruningStep(model, masks_on=masks_on)

    @tf.function
    def step(x):
        def replica(x):
            with tf.GradientTape() as tape:
                away = model(x, training=True) - 2 * x[:, :8]
                # Keras's optimizers add up the gradients of all replicas.
                loss = tf.reduce_mean(tf.square(away)) / PROCESSES
            gradients = tape.gradient(loss, model.trainable_variables)
            optimizer.apply(gradients, model.trainable_variables)

        strategy.run(replica, args=(x,))

    for x in X:
        step(tf.constant(x))
        pruning.step()
    write(name, model)


def fit_on_tensorflow(strategy):
    """`fit` without pruning; with pruning too, if Keras can: keras#20585."""
    x, y = np.concatenate(X), np.concatenate(X)[:, :8] * 2
    with strategy.scope():
        plain = keras.Sequential([keras.Input((16,)), layers.Dense(8)])
        plain.compile("sgd", "mse")
    said = ""
    try:
        plain.fit(x, y, batch_size=16, verbose=0)
    except Exception as error:
        said = f"{type(error).__name__}: {error}"
    (FOLDER / f"fit_{PROCESS}.json").write_text(json.dumps(said))
    if said:
        return
    with strategy.scope():
        model = build("unstructured")
        model.compile(keras.optimizers.SGD(0.05), "mse")
    data = tf.data.Dataset.from_tensor_slices((x, y)).batch(16).repeat()
    callback = tfprune.UpdatePruningStep()
    model.fit(data, steps_per_epoch=STEPS // 2, epochs=3, verbose=0, callbacks=[callback])
    write("fit", model)


def on_torch(name, pattern):
    import torch

    model = build(pattern)
    parallel = torch.nn.parallel.DistributedDataParallel(model)
    pruning = tfprune.UpdatePruningStep(model)
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], 0.05)
    for x in X:
        x = torch.as_tensor(x)
        optimizer.zero_grad()
        torch.mean((parallel(x) - 2 * x[:, :8]) ** 2).backward()
        optimizer.step()
        pruning.step()
    write(name, model)


def sharded():
    """What `fully_shard` does to a Keras model, and what pruning says to it."""
    from torch.distributed.fsdp import fully_shard

    model = build("unstructured")
    kernel = model.layers[0].layer.kernel
    fully_shard(model)
    found = {
        "parameters": sorted({type(p).__name__ for p in model.parameters()}),
        "variable": type(kernel.value).__name__,
    }
    try:
        tfprune.UpdatePruningStep(model)
    except ValueError as error:
        found["said"] = str(error)
    (FOLDER / f"sharded_{PROCESS}.json").write_text(json.dumps(found))


def write(name, model):
    weights = [np.asarray(keras.ops.convert_to_numpy(w)) for w in model.weights]
    np.savez(FOLDER / f"{LIBRARY}_{name}_{PROCESS}.npz", *weights)
    report = tfprune.sparsity_report(model).prunable.sparsity
    (FOLDER / f"{LIBRARY}_{name}_{PROCESS}.json").write_text(json.dumps(report))


if LIBRARY == "tensorflow":
    import tensorflow as tf

    strategy = tf.distribute.MultiWorkerMirroredStrategy()
    for name, pattern in PATTERNS.items():
        on_tensorflow(name, pattern, strategy)
    chosen, original = [], groups.keep_device_masks
    groups.keep_device_masks = lambda *args: chosen.append(1) or original(*args)
    on_tensorflow("device", PATTERNS["single"], strategy, masks_on="device")
    assert chosen
    fit_on_tensorflow(strategy)
else:
    import torch

    host, port = ADDRESSES[0].split(":")
    os.environ.update(MASTER_ADDR=host, MASTER_PORT=port, GLOO_SOCKET_IFNAME="lo")
    torch.distributed.init_process_group("gloo", rank=PROCESS, world_size=PROCESSES)
    for name, pattern in PATTERNS.items():
        on_torch(name, pattern)
    sharded()
    torch.distributed.destroy_process_group()
