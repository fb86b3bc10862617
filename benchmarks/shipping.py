"""Measures shrunk and quantized files, and whether they meet their targets.

python benchmarks/shipping.py --data FOLDER

A network of MobileNetV2's blocks (103 k parameters) on CIFAR-10, one thread, batch size 1: dense,
half of the MACs with widths as they come and with the default's multiples of 8, and a target of 0.6
of the latency in LiteRT and in ONNX Runtime. All files run in turns.
"""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import pathlib
import tempfile
import warnings

import keras
from accuracy_tasks import compiled, data_set
from harness import arguments, show, write
from shipping_models import mobile_net

import tfprune

FILES = {
    "LiteRT": ("model.tflite", {}),
    "LiteRT int8": ("model.tflite", {"quantize": "int8", "samples": 200, "tolerance": 0.5}),
    "LiteRT dynamic": ("model.tflite", {"quantize": "dynamic", "tolerance": 0.5}),
    "ONNX Runtime": ("model.onnx", {}),
}
PLANS = {
    "macs 0.5, round_to=1": ({"macs": 0.5}, {"round_to": 1}),
    "macs 0.5": ({"macs": 0.5}, {}),
    "latency 0.6, LiteRT": ({"latency": 0.6}, {"runtime": "litert"}),
    "latency 0.6, ONNX": ({"latency": 0.6}, {"runtime": "onnx"}),
}


def fitted(model, data, epochs, rate, batch=128):
    steps = -(-len(data[0]) // batch)
    decay = keras.optimizers.schedules.CosineDecay(rate, epochs * steps)
    compiled(model, keras.optimizers.Adam(decay))
    model.fit(*data, batch_size=batch, epochs=epochs, verbose=0)
    return model


def main():
    parser = arguments(__doc__)
    parser.add_argument("--data", type=pathlib.Path, help="folder with cifar10.npz")
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--more", type=int, default=3, help="epochs of fine-tuning")
    options = parser.parse_args()
    warnings.simplefilter("ignore", DeprecationWarning)
    train, test = data_set("cifar10", options.data)
    train = tuple(part[: options.images] for part in train)
    test = tuple(part[:2000] for part in test)
    keras.utils.set_random_seed(0)
    dense = fitted(mobile_net(), train, options.epochs, 3e-3)
    print("trained", flush=True)
    models, result = {"dense": dense}, {}
    for name, (targets, how) in PLANS.items():
        plan = tfprune.plan_shrink(dense, targets, **how)
        models[name] = fitted(plan.apply(), train, options.more, 1e-3)
        result[name] = {
            "target": targets,
            "reached": plan.reached,
            "macs": plan.after.macs / plan.before.macs,
            "widths": [plan.groups[0].widths, plan.groups[1].widths],
        }
        print(name, plan.reached, f"{result[name]['macs']:.1%} of the MACs", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        rows = measured(models, test, pathlib.Path(folder), options.rounds, result)
    names = [*FILES, "Keras"]
    show("Milliseconds (share of dense), batch 1, one thread", ["", *names], rows)
    sizes = [
        (name, *(f"{result[name]['files'][f]['bytes']:,}" for f in FILES), "") for name in models
    ]
    show("Bytes", ["", *names], sizes)
    shares = [
        (name, *(f"{result[name]['files'][f]['accuracy']:.4f}" for f in FILES), "")
        for name in models
    ]
    show("Accuracy of the file", ["", *names], shares)
    formats = ["litert", "dynamic litert", "int8 litert", "onnx"]
    report = tfprune.compare(dense, models["macs 0.5, round_to=1"], test, formats=formats)
    print(report)
    result["comparison"] = report.to_dict()["files"]
    write("shipping", options.output, result)


def measured(models, test, folder, rounds, result):
    paths, rows = {}, []
    for number, (name, model) in enumerate(models.items()):
        result.setdefault(name, {})["files"] = {}
        for kind, (file, how) in FILES.items():
            path = folder / f"{number}{kind.replace(' ', '')}{pathlib.Path(file).suffix}"
            exported = tfprune.export(model, path, data=test[0], **how)
            paths[name, kind] = exported.path
            accuracy = tfprune.compare(
                model, exported.path, test, formats=[], latency=False
            ).metrics["accuracy"][1]
            row = {"bytes": exported.bytes, "accuracy": accuracy}
            result[name]["files"][kind] = row
        paths[name, "Keras"] = model
    found = tfprune.compare_latency(paths, runs=max(rounds, 40))
    for name in models:
        cells = []
        for kind in [*FILES, "Keras"]:
            one, base = found[name, kind], found["dense", kind]
            ratio = one.median / base.median
            row = {"milliseconds": [1000 * x for x in (one.median, one.low, one.high)]}
            result[name]["files"].setdefault(kind, {}).update({**row, "ratio": ratio})
            cells.append(f"{1000 * one.median:.3f} ({ratio:.2f})")
        rows.append((name, *cells))
    return rows


if __name__ == "__main__":
    main()
