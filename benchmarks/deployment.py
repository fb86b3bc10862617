"""Measures bytes, latency and accuracy of files of pruned models.

python benchmarks/deployment.py mnist --data FOLDER       the MNIST CNN
python benchmarks/deployment.py cifar10 --data FOLDER     the small ResNet

`--models FOLDER` keeps the trained models: what lies there is not trained again, so that a long
training can be broken off, and the latencies be measured when nothing else runs.
"""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import functools
import gzip
import pathlib
import tempfile
import warnings

import keras
import numpy as np
from accuracy_tasks import compiled, data_set, mnist_cnn, small_resnet
from harness import arguments, interleave, milliseconds, ratios, show, summary, write

import tfprune

# Epochs of the dense model and of pruning it, the share of the latter in which masks change, and
# the sparsities.
TASKS = {
    "mnist": (mnist_cnn, 3, 3, 2 / 3, (0.9,)),
    "cifar10": (small_resnet, 6, 6, 1 / 3, (0.85, 0.9)),
}
GLOBAL = tfprune.Global(max_sparsity=0.98)
FILES = {"keras": {}, "tflite": {}, "sparse tflite": {"sparse": True}, "onnx": {}}
INT8 = {"quantize": "int8", "samples": 200, "tolerance": 0.5}
BATCHES = (1, 32)


def trained(options, folder):
    """The dense model, those with zeros, and the one without half of its filters."""
    build, epochs, more, share, sparsities = TASKS[options.task]
    (x, y), test = data_set(options.task, options.data)
    x, y = x[: options.images], y[: options.images]
    steps = -(-len(x) // 64)

    def fitted(name, make, number, callbacks=()):
        path = folder / f"{options.task} {name}.keras"
        if path.exists():
            return keras.models.load_model(path)
        keras.utils.set_random_seed(0)
        model = make()
        decay = keras.optimizers.schedules.CosineDecay(2e-3, number * steps)
        compiled(model, keras.optimizers.Adam(decay))
        model.fit(x, y, batch_size=64, epochs=number, verbose=0, callbacks=list(callbacks))
        model = tfprune.strip_pruning(model) if callbacks else model
        model.save(path)
        print(f"{name}: {number} epochs", flush=True)
        return model

    base = fitted("base", build, epochs)

    def pruned(name, sparsity, **how):
        ramp = tfprune.PolynomialDecay(0.0, sparsity, 0, int(steps * more * share), frequency=20)
        callback = tfprune.UpdatePruningStep()
        make = functools.partial(tfprune.prune_low_magnitude, base, ramp, **how)
        return fitted(name, make, more, [callback])

    # The dense model trains for as long as the others do in the end.
    models = {"dense": fitted("dense", lambda: tfprune.strip_pruning(base), more)}
    for sparsity in sparsities:
        name = f"pruned {100 * sparsity:.0f} %"
        models[name] = pruned(name, sparsity, scope=GLOBAL)
    models["shrunk 50 %"] = tfprune.shrink(pruned("filters 50 %", 0.5, pattern=tfprune.Filter()))
    # As they are deployed: BatchNormalization goes into the convolutions, zeros stay zeros.
    return {name: tfprune.fold_batch_norm(model) for name, model in models.items()}, x, test


def litert(path, batch):
    """A function that predicts a batch."""
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(str(path), num_threads=2)
    (entry,) = interpreter.get_input_details()
    interpreter.resize_tensor_input(entry["index"], (batch, *entry["shape"][1:]))
    interpreter.allocate_tensors()
    (out,) = interpreter.get_output_details()

    def predict(x):
        interpreter.set_tensor(entry["index"], x)
        interpreter.invoke()
        return interpreter.get_tensor(out["index"])

    return predict


def onnx(path, batch):
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return lambda x: session.run(None, {name: x})[0]


def accuracy(predict, test, batch=500):
    x, y = test
    parts = [predict(x[start : start + batch]) for start in range(0, len(x), batch)]
    return float((np.concatenate(parts).argmax(axis=1) == y).mean())


def sizes(path):
    raw = path.read_bytes()
    return {"raw": len(raw), "gzipped": len(gzip.compress(raw, 9))}


def main():
    parser = arguments(__doc__)
    parser.add_argument("task", choices=TASKS)
    parser.add_argument("--data", type=pathlib.Path, help="folder with mnist.npz or cifar10.npz")
    parser.add_argument("--images", type=int, default=60_000, help="training images to use")
    parser.add_argument("--models", type=pathlib.Path, help="folder that keeps the trained models")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    folder = pathlib.Path(tempfile.mkdtemp())
    (options.models or folder).mkdir(parents=True, exist_ok=True)
    models, x, test = trained(options, options.models or folder)
    sides: dict = {}
    timed: dict = {(r, b): {} for r in ("Keras", "LiteRT", "ONNX Runtime") for b in BATCHES}
    for name, model in models.items():
        stem = folder / name.replace(" ", "_").replace("%", "")
        paths = {}
        for kind, how in FILES.items():
            suffix = kind.split()[-1]
            target = stem.with_name(f"{stem.name}_{kind.split()[0]}.{suffix}")
            paths[kind] = tfprune.export(model, target, data=x, **how).path
        paths["int8"] = tfprune.export(
            model, stem.with_name(f"{stem.name}_int8.tflite"), data=x, **INT8
        ).path
        cost = tfprune.model_cost(model)
        plain = {"parameters": cost.parameters, "MACs": cost.macs}
        sides[name] = {
            **plain,
            "accuracy": accuracy(litert(paths["tflite"], 500), test),
            "bytes": {kind: sizes(path) for kind, path in paths.items() if kind != "int8"},
        }
        sides[f"{name} + int8"] = {
            **plain,
            "accuracy": accuracy(litert(paths["int8"], 500), test),
            "bytes": {"tflite": sizes(paths["int8"])},
        }
        for batch in BATCHES:
            images = np.ascontiguousarray(test[0][:batch])
            ways = {
                ("Keras", name): model.predict_on_batch,
                ("LiteRT", name): litert(paths["tflite"], batch),
                ("LiteRT", f"{name} + int8"): litert(paths["int8"], batch),
                ("ONNX Runtime", name): onnx(paths["onnx"], batch),
            }
            for (runtime, side), way in ways.items():
                timed[runtime, batch][side] = lambda way=way, images=images: way(images)
    for (runtime, batch), ways in timed.items():
        seconds = interleave(ways, options.rounds)
        for side, values in seconds.items():
            faster = ratios(seconds["dense"], values)
            sides[side].setdefault("seconds", {})[f"{runtime}, batch {batch}"] = {
                **summary(values),
                "text": milliseconds(values),
                "faster": faster,
            }
    columns = ["", "accuracy", "MACs", *FILES, "gzipped"]
    rows = []
    for name, found in sides.items():
        files = found["bytes"]
        rows.append(
            [
                name,
                f"{found['accuracy']:.4f}",
                f"{found['MACs']:,}",
                *(f"{files[kind]['raw']:,}" if kind in files else "" for kind in FILES),
                f"{files['tflite']['gzipped']:,}",
            ]
        )
    show(f"{options.task}: bytes; gzipped is the .tflite file", columns, rows)
    columns = ["", *(f"{runtime}, batch {batch}" for runtime, batch in timed)]
    rows = [
        [
            name,
            *(
                f"{way['text']}, {way['faster']['median']:.2f}x" if way else ""
                for way in (found["seconds"].get(column) for column in columns[1:])
            ),
        ]
        for name, found in sides.items()
    ]
    show(f"{options.task}: milliseconds, and how much faster than dense", columns, rows)
    result = {"images": len(x), "epochs": TASKS[options.task][1:3], "sides": sides}
    write(f"deployment_{options.task}", options.output, result)


if __name__ == "__main__":
    main()
