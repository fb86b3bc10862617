"""Pruned layers on sparse kernels against the dense models of five runtimes, in one run.

    KERAS_BACKEND=torch python benchmarks/sparse_layers.py mlp --threads 1

Each side computes the same network with the same zeros, in turn, on the same batch:

- `sparse`: the model that `to_sparse` makes for this batch, its layers called one after the other;
- `program`: the same as a `.pt2` file, one call for all layers;
- `predict`: the same by Keras's `predict_on_batch`;
- `Keras`, `ONNX Runtime`, `LiteRT`, `OpenVINO`: the dense model, float32.

The dense `.onnx` and `.tflite` files come from TensorFlow, so the network is first written by a
process of its own there. OpenVINO reads the `.onnx` file; it is not a dependency of tfprune.
"""

import json
import os
import pathlib
import subprocess
import sys
import tempfile
import time

import harness
import numpy as np

NETWORKS = ("mlp", "transformer_256", "transformer_1024", "mobilenet")
SPARSITIES = (0.8, 0.9, 0.95, 0.98)
BATCHES = (1, 8, 64)


# -- Networks --------------------------------------------------------------------------------------


def mlp():
    """Four Dense layers of 2,048, as in a recommender."""
    import keras

    dense = [keras.layers.Dense(2048, activation="relu") for _ in range(4)]
    return keras.Sequential([keras.Input((2048,)), *dense])


def transformer(width, length=32):
    """One block: attention with 8 heads, and a feed-forward part of four times the width."""
    import keras
    from keras import layers

    x = inputs = keras.Input((length, width))
    attended = layers.MultiHeadAttention(8, width // 8)(x, x)
    x = layers.LayerNormalization()(layers.Add()([x, attended]))
    hidden = layers.Dense(4 * width, activation="relu")(x)
    x = layers.Add()([x, layers.Dense(width)(hidden)])
    return keras.Model(inputs, layers.LayerNormalization()(x))


def network(name):
    import keras

    keras.utils.set_random_seed(0)
    if name == "mlp":
        return mlp()
    if name == "mobilenet":
        return keras.applications.MobileNetV2(weights=None, input_shape=(96, 96, 3), classes=10)
    return transformer(int(name.split("_")[1]))


def write_dense(name, sparsity, folder):
    """Writes the pruned network for all dense runtimes."""
    import tfprune

    pruned = tfprune.pruners.one_shot(network(name), sparsity, scope="local")
    plain = tfprune.strip_pruning(pruned)
    for suffix in ("keras", "onnx", "tflite"):
        tfprune.export(plain, folder / f"dense.{suffix}", samples=2)


# -- Sides -----------------------------------------------------------------------------------------


def openvino_side(path, threads):
    import openvino

    options = {"INFERENCE_NUM_THREADS": threads, "INFERENCE_PRECISION_HINT": "f32"}
    core = openvino.Core()
    compiled = core.compile_model(core.read_model(path), "CPU", options)
    request = compiled.create_infer_request()
    return lambda x: request.infer([x])


def called(model):
    """Calls a model without Keras's `predict`."""
    import torch

    def run(x):
        with torch.no_grad():
            return model(torch.as_tensor(x))

    return run


def bare(model):
    """The layers of a Sequential model as one plain function, without Keras's dispatch."""
    import torch

    def run(x):
        x = torch.as_tensor(x)
        with torch.no_grad():
            for layer in model.layers:
                x = layer.call(x)
            return x

    return run


def sides(name, folder, batch, threads):
    """Returns `{side: function}` and the plan of the sparse model."""
    import keras

    import tfprune
    from tfprune._formats.table import opened

    dense = keras.saving.load_model(folder / "dense.keras", compile=False)
    x = inputs_for(dense, batch)
    plan = tfprune.plan_sparse(dense, x, threads=threads)
    sparse = plan.apply()
    tfprune.export(sparse, folder / "sparse.pt2", samples=4)
    sessions = {
        "program": opened(folder / "sparse.pt2", threads),
        "predict": opened(sparse, threads),
        "Keras predict": opened(dense, threads),
        "ONNX Runtime": opened(folder / "dense.onnx", threads),
        "LiteRT": opened(folder / "dense.tflite", threads),
    }
    found = {side: _running(session, x) for side, session in sessions.items()}
    of_models = {"sparse": called(sparse), "Keras": called(dense)}
    of_models["OpenVINO"] = openvino_side(folder / "dense.onnx", threads)
    if isinstance(sparse, keras.Sequential):
        of_models["sparse bare"], of_models["Keras bare"] = bare(sparse), bare(dense)
    found |= {side: (lambda run=run: run(x)) for side, run in of_models.items()}
    return found, plan


def _running(session, x):
    return lambda: session.run([x])


def inputs_for(model, batch):
    shape = (batch, *model.input_shape[1:])
    return np.random.default_rng(0).normal(size=shape).astype("float32")


# -- Measuring -------------------------------------------------------------------------------------

OURS = ("sparse bare", "sparse", "program", "predict")


def cell(name, folder, sparsity, batch, threads, rounds):
    """Measures one network at one sparsity and batch."""
    import torch

    torch.set_num_threads(threads)
    found, plan = sides(name, folder, batch, threads)
    repeated = {side: _several(function) for side, function in found.items()}
    seconds = harness.interleave({side: run for side, (run, _) in repeated.items()}, rounds)
    seconds = {side: [v / repeated[side][1] for v in values] for side, values in seconds.items()}
    least = {side: min(values) for side, values in seconds.items()}
    dense = {side: value for side, value in least.items() if side not in OURS}
    best = min(dense, key=dense.get)
    ours = min((s for s in ("sparse bare", "sparse", "program") if s in least), key=least.get)
    return {
        "sparsity": sparsity,
        "batch": batch,
        "threads": threads,
        "milliseconds": {
            side: {"least": 1000 * least[side], **harness.summary([1000 * v for v in values])}
            for side, values in seconds.items()
        },
        "best_dense": best,
        "best_sparse": ours,
        "gain": least[best] / least[ours],
        "gain_round_by_round": harness.ratios(seconds[best], seconds[ours]),
        "sparse_layers": sum(row.sparse for row in plan.rows),
        "layers": len(plan.rows),
    }


def _several(function, seconds=0.004):
    """Repeats a function that is too short to be timed once; returns how often, too."""
    function()
    start = time.perf_counter()
    function()
    number = max(1, int(seconds / (time.perf_counter() - start)))

    def run():
        for _ in range(number):
            function()

    return run, number


def main():
    parser = harness.arguments(__doc__.splitlines()[0])
    parser.add_argument("network", choices=NETWORKS)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--sparsities", type=float, nargs="+", default=SPARSITIES)
    parser.add_argument("--batches", type=int, nargs="+", default=BATCHES)
    parser.add_argument("--write", type=pathlib.Path, help="only write the dense files, here")
    args = parser.parse_args()
    if args.write is not None:
        write_dense(args.network, args.sparsities[0], args.write)
        return
    name = f"sparse_layers_{args.network}_{args.threads}"
    path = args.output / f"{name}.json"
    cells = json.loads(path.read_text())["cells"] if path.exists() else []
    for sparsity in args.sparsities:
        with tempfile.TemporaryDirectory() as folder:
            words = [args.network, "--sparsities", str(sparsity), "--write", folder]
            environment = {**os.environ, "KERAS_BACKEND": "tensorflow"}
            subprocess.run([sys.executable, __file__, *words], check=True, env=environment)
            for batch in args.batches:
                done = cell(
                    args.network, pathlib.Path(folder), sparsity, batch, args.threads, args.rounds
                )
                cells = [c for c in cells if (c["sparsity"], c["batch"]) != (sparsity, batch)]
                cells = sorted([*cells, done], key=lambda c: (c["sparsity"], c["batch"]))
                harness.write(name, args.output, {"network": args.network, "cells": cells})
    columns = ["sparsity", "batch", "sparse", "best dense, by", "gain", "sparse layers"]
    harness.show(f"{args.network}, {args.threads} thread(s)", columns, map(row, cells))


def row(found):
    least = {side: values["least"] for side, values in found["milliseconds"].items()}
    best, ours = found["best_dense"], found["best_sparse"]
    return (
        f"{found['sparsity']:.0%}",
        found["batch"],
        f"{least[ours]:.2f} ms, {ours}",
        f"{least[best]:.2f} ms, {best}",
        f"{found['gain']:.2f}x",
        f"{found['sparse_layers']} of {found['layers']}",
    )


if __name__ == "__main__":
    main()
