"""Times widths in multiples of 1, 4, 8 and 16 channels, in the runtimes of exported files.

python benchmarks/round_to.py

Each network loses half of its multiplications; "default" is 8 in groups of 16 channels and more,
else 1. The table gives the latency as a share of the dense model's, in turns, at batch size 1.

`--files FOLDER` keeps the files, and `--write` stops when they are written, so that they can be
written beside other work and timed alone. Networks that the results hold are not measured again.
"""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import json
import pathlib
import tempfile
import warnings

import keras
import numpy as np
from harness import arguments, show, write
from shipping_models import NETWORKS

import tfprune

STEPS = {"1": 1, "4": 4, "8": 8, "16": 16, "default": None}
SUFFIXES = {"LiteRT": ".tflite", "ONNX Runtime": ".onnx", "Keras": ".keras"}


def written(build, folder):
    """Writes the dense and the smaller models in all formats; returns `{name: facts}`."""
    facts = folder / "facts.json"
    if facts.exists():
        return json.loads(facts.read_text())
    folder.mkdir(parents=True, exist_ok=True)
    keras.utils.set_random_seed(0)
    dense = build()
    models, result = {"dense": dense}, {}
    for name, step in STEPS.items():
        try:
            plan = tfprune.plan_shrink(dense, {"macs": 0.5}, round_to=step)
        except ValueError as error:
            result[name] = {"refused": str(error)}
            continue
        models[name] = plan.apply()
        result[name] = {"macs": plan.reached["macs"]}
    for name, model in models.items():
        for suffix in SUFFIXES.values():
            tfprune.export(model, folder / f"{name}{suffix}")
    facts.write_text(json.dumps(result))
    return result


def measured(folder, result, rounds):
    """Adds the latencies of the files in a folder, in their runtimes, to the facts."""
    names = ["dense", *(name for name, facts in result.items() if "macs" in facts)]
    for runtime, suffix in SUFFIXES.items():
        files = {name: folder / f"{name}{suffix}" for name in names}
        found = tfprune.compare_latency(files, runs=rounds)
        base = found["dense"].median
        for name in names:
            ratio = [getattr(found[name], part) / base for part in ("median", "low", "high")]
            row = {"milliseconds": 1000 * found[name].median, "ratio": ratio}
            result.setdefault(name, {})[runtime] = row
    return result


def main():
    parser = arguments(__doc__)
    parser.add_argument("--networks", nargs="+", choices=NETWORKS, default=list(NETWORKS))
    parser.add_argument("--files", type=pathlib.Path, help="folder that keeps the files")
    parser.add_argument("--write", action="store_true", help="only write the files")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    path = options.output / "round_to.json"
    result = json.loads(path.read_text()) if path.exists() else {}
    result = {network: found for network, found in result.items() if network in NETWORKS}
    with tempfile.TemporaryDirectory() as folder:
        for network in options.networks:
            if network in result:
                continue
            files = (options.files or pathlib.Path(folder)) / network
            facts = written(NETWORKS[network], files)
            print(network, flush=True)
            if not options.write:
                result[network] = measured(files, facts, options.rounds)
                write("round_to", options.output, result)
    if not options.write:
        tables(result)


def tables(result):
    rows = []
    for network, found in result.items():
        for runtime in SUFFIXES:
            cells = [
                f"{found[s][runtime]['ratio'][0]:.2f}" if runtime in found[s] else "-"
                for s in STEPS
            ]
            rows.append((network, runtime, *cells))
    for runtime in SUFFIXES:
        mean = [
            np.exp(
                np.mean(
                    [
                        np.log(found[s][runtime]["ratio"][0])
                        for found in result.values()
                        if runtime in found[s]
                    ]
                )
            )
            for s in STEPS
        ]
        rows.append(("geometric mean", runtime, *(f"{value:.2f}" for value in mean)))
    show("Latency at half of the MACs, share of dense", ["", "Runtime", *STEPS], rows)
    macs = [
        (network, "MACs left", *(f"{found[s].get('macs', float('nan')):.3f}" for s in STEPS))
        for network, found in result.items()
    ]
    show("MACs that are left", ["", "", *STEPS], macs)


if __name__ == "__main__":
    main()
