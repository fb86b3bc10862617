"""Measures for which weights pruning destroys accuracy: should they be exempt by default?

    KERAS_BACKEND=torch python benchmarks/exemptions.py --seeds 3

A small network of all kinds of layers learns 8 x 8 digits, then is pruned while it trains on. Each
line leaves one kind of weight dense; "none exempt" prunes them all. PyTorch trains the grouped
convolution ten times as fast as the other backends on a CPU. Networks that the results hold
are not trained again.
"""

import argparse
import json
import os
import pathlib

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import harness
import keras
import numpy as np
from keras import layers
from rich.console import Console
from rich.table import Table
from sklearn.datasets import load_digits

import tfprune

DEPTHWISE, EPOCHS, BATCH = ["depthwise_*"], 8, 48
KINDS = {
    "none exempt": [],
    "depthwise": DEPTHWISE,
    "first layer": ["first"],
    "grouped": ["grouped"],
    "squeeze and excitation": ["squeeze", "excite"],
    "output": ["output"],
    "depthwise, first layer": [*DEPTHWISE, "first"],
    "depthwise, squeeze and excitation": [*DEPTHWISE, "squeeze", "excite"],
    "depthwise, output": [*DEPTHWISE, "output"],
}


def data():
    x, y = load_digits(return_X_y=True)
    x = (x / 16).astype("float32").reshape(-1, 8, 8, 1)
    return (x[:1400], y[:1400]), (x[1400:], y[1400:])


def network(seed):
    keras.utils.set_random_seed(seed)
    inputs = keras.Input((8, 8, 1))
    x = normalized(layers.Conv2D(16, 3, padding="same", use_bias=False, name="first")(inputs))
    for number in range(2):
        depthwise = f"depthwise_{number}"
        x = layers.DepthwiseConv2D(3, padding="same", use_bias=False, name=depthwise)(x)
        x = normalized(x)
        x = normalized(layers.Conv2D(32, 1, use_bias=False, name=f"pointwise_{number}")(x))
    x = layers.Conv2D(32, 3, padding="same", groups=8, use_bias=False, name="grouped")(x)
    x = normalized(x)
    scale = layers.GlobalAveragePooling2D()(x)
    scale = layers.Dense(8, activation="relu", name="squeeze")(scale)
    scale = layers.Dense(32, activation="sigmoid", name="excite")(scale)
    x = layers.Multiply()([x, layers.Reshape((1, 1, 32))(scale)])
    x = layers.GlobalAveragePooling2D()(x)
    outputs = layers.Dense(10, activation="softmax", name="output")(x)
    return keras.Model(inputs, outputs)


def normalized(x):
    # Trainings are short, so the moving averages have to be as well.
    return layers.ReLU()(layers.BatchNormalization(momentum=0.9)(x))


def fit(model, train, epochs, callbacks=()):
    model.compile(
        keras.optimizers.Adam(0.003), "sparse_categorical_crossentropy", metrics=["accuracy"]
    )
    model.fit(*train, batch_size=BATCH, epochs=epochs, verbose=0, callbacks=list(callbacks))


def measure(seed, sparsities, known, keep):
    """Adds the accuracies of one network to `known`, and calls `keep` after each."""
    train, test = data()
    wanted = {
        f"{kind} {sparsity}, seed {seed}": (sparsity, exempt)
        for sparsity in sparsities
        for kind, exempt in KINDS.items()
    }
    if all(name in known for name in [*wanted, f"dense, seed {seed}"]):
        return
    dense = network(seed)
    fit(dense, train, EPOCHS)
    known[f"dense, seed {seed}"] = dense.evaluate(*test, verbose=0)[1]
    steps = EPOCHS * -(-len(train[0]) // BATCH)
    for name, (sparsity, exempt) in wanted.items():
        if name in known:
            continue
        keras.utils.set_random_seed(seed)
        schedule = tfprune.PolynomialDecay(0.0, sparsity, 0, int(steps * 0.7), frequency=10)
        # Depthwise kernels are exempt unless a rule names them.
        rules = [tfprune.Rule(keras.layers.DepthwiseConv2D)]
        rules += [tfprune.Rule(layer, prune=False) for layer in exempt]
        model = tfprune.prune_low_magnitude(dense, schedule, rules=rules)
        fit(model, train, EPOCHS, [tfprune.UpdatePruningStep()])
        known[name] = model.evaluate(*test, verbose=0)[1]
        print(name, f"{known[name]:.3f}", flush=True)
        keep()


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--sparsities", type=float, nargs="*", default=[0.8, 0.9])
    parser.add_argument("--output", type=pathlib.Path, default=harness.RESULTS)
    options = parser.parse_args()
    path = options.output / "exemptions.json"
    known = json.loads(path.read_text()) if path.exists() else {}
    for seed in range(options.seeds):
        measure(
            seed, options.sparsities, known, lambda: harness.write(path.stem, options.output, known)
        )
    columns = [f"{sparsity:.0%}" for sparsity in options.sparsities]
    table = Table("exempt", *columns, title="Accuracy on 8 x 8 digits")
    for kind in KINDS:
        cells = []
        for sparsity in options.sparsities:
            values = [known[f"{kind} {sparsity}, seed {seed}"] for seed in range(options.seeds)]
            cells.append(f"{np.mean(values):.3f} ({min(values):.3f} to {max(values):.3f})")
        table.add_row(kind, *cells)
    dense = np.mean([known[f"dense, seed {seed}"] for seed in range(options.seeds)])
    Console().print(table, f"dense: {dense:.3f}")


if __name__ == "__main__":
    main()
