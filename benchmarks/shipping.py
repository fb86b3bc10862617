"""What shrinking and quantizing are worth in the files that ship; whether targets are met there.

python benchmarks/shipping.py --data FOLDER

A network of MobileNetV2's blocks (103 k parameters) on CIFAR-10, one thread, batch size 1: dense,
half of the MACs with widths as they come and with the default's multiples of 8, and a target of 0.6
of the latency in LiteRT and in ONNX Runtime. All files run in turns.

`--models FOLDER` keeps the trained models and the plans: what lies there is not made again. With
`--stop-after`, each part can run when the machine is fit for it: trainings beside other work, plans
and the files alone.
"""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import json
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


PARTS = ("dense", "plans", "tuned")


def fitted(model, data, epochs, rate, batch=128):
    steps = -(-len(data[0]) // batch)
    decay = keras.optimizers.schedules.CosineDecay(rate, epochs * steps)
    compiled(model, keras.optimizers.Adam(decay))
    model.fit(*data, batch_size=batch, epochs=epochs, verbose=0)
    # Moving averages of so few steps have not arrived at the statistics.
    return compiled(tfprune.recalibrate(model, data[0], batch), "sgd")


def kept(path, make):
    """Loads the model of `path`, which is made first if it is missing."""
    if not path.exists():
        keras.utils.set_random_seed(0)
        make().save(path)
        print(path.stem, flush=True)
    return keras.saving.load_model(path)


def planned(dense, folder):
    """Shrinks the dense model by each plan; returns `{name: what it reached}`."""
    result = {}
    for number, (name, (targets, how)) in enumerate(PLANS.items()):
        model, facts = folder / f"plan {number}.keras", folder / f"plan {number}.json"
        if not facts.exists():
            plan = tfprune.plan_shrink(dense, targets, **how)
            plan.apply().save(model)
            found = {
                "target": targets,
                "reached": plan.reached,
                "macs": plan.after.macs / plan.before.macs,
                "widths": [group.widths for group in plan.groups],
            }
            facts.write_text(json.dumps(found))
        result[name] = json.loads(facts.read_text())
        print(name, result[name]["reached"], f"{result[name]['macs']:.1%} of the MACs", flush=True)
    return result


def main():
    parser = arguments(__doc__)
    parser.add_argument("--data", type=pathlib.Path, help="folder with cifar10.npz")
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--more", type=int, default=3, help="epochs of fine-tuning")
    parser.add_argument("--models", type=pathlib.Path, help="folder that keeps the models")
    parser.add_argument("--stop-after", choices=PARTS, help="make only this part and those before")
    options = parser.parse_args()
    warnings.simplefilter("ignore", DeprecationWarning)
    with tempfile.TemporaryDirectory() as folder:
        run(options, options.models or pathlib.Path(folder))


def run(options, folder):
    folder.mkdir(parents=True, exist_ok=True)
    train, test = data_set("cifar10", options.data)
    train = tuple(part[: options.images] for part in train)
    test = tuple(part[:2000] for part in test)
    path = folder / "dense.keras"
    dense = kept(path, lambda: fitted(mobile_net(), train, options.epochs, 3e-3))
    if options.stop_after == "dense":
        return
    result = planned(dense, folder)
    if options.stop_after == "plans":
        return

    def tuned(path, rate=1e-3):
        return lambda: fitted(keras.saving.load_model(path), train, options.more, rate)

    # The dense model trains for as long as the others do in the end.
    models = {"dense": kept(folder / "dense tuned.keras", tuned(path))}
    for number, name in enumerate(PLANS):
        plan = folder / f"plan {number}.keras"
        models[name] = kept(folder / f"plan {number} tuned.keras", tuned(plan))
    if options.stop_after == "tuned":
        return
    with tempfile.TemporaryDirectory() as files:
        rows = measured(models, test, pathlib.Path(files), options.rounds, result)
    names = [*FILES, "Keras"]
    show("Milliseconds (share of dense), batch 1, one thread", ["", *names], rows)
    for title, key, form in (("Bytes", "bytes", ","), ("Accuracy of the file", "accuracy", ".4f")):
        cells = [
            (name, *(f"{result[name]['files'][file][key]:{form}}" for file in FILES))
            for name in models
        ]
        show(title, ["", *FILES], cells)
    formats = ["litert", "dynamic litert", "int8 litert", "onnx"]
    report = tfprune.compare(models["dense"], models["macs 0.5, round_to=1"], test, formats=formats)
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
