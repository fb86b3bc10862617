"""Times widths in multiples of 1, 4, 8 and 16 channels, in the runtimes of exported files.

python benchmarks/round_to.py

Each network loses half of its multiplications; "default" is 8 in groups of 16 channels and more,
else 1. The table gives the latency as a share of the dense model's, in turns, at batch size 1.
"""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import pathlib
import tempfile
import warnings

import keras
import numpy as np
from harness import arguments, show, write
from shipping_models import NETWORKS

import tfprune

STEPS = {"1": 1, "4": 4, "8": 8, "16": 16, "default": None}
SUFFIXES = {"LiteRT": ".tflite", "ONNX Runtime": ".onnx", "Keras": None}


def measured(build, folder, rounds):
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
    for runtime, suffix in SUFFIXES.items():
        files = dict(models)
        if suffix is not None:
            for name, model in models.items():
                path = folder / f"{name}{suffix}"
                files[name] = tfprune.export(model, path).path
        found = tfprune.compare_latency(files, runs=rounds)
        base = found["dense"].median
        for name in models:
            ratio = [getattr(found[name], part) / base for part in ("median", "low", "high")]
            row = {"milliseconds": 1000 * found[name].median, "ratio": ratio}
            result.setdefault(name, {})[runtime] = row
    return result


def main():
    parser = arguments(__doc__)
    parser.add_argument("--networks", nargs="+", choices=NETWORKS, default=list(NETWORKS))
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    result = {}
    for network in options.networks:
        with tempfile.TemporaryDirectory() as folder:
            result[network] = measured(NETWORKS[network], pathlib.Path(folder), options.rounds)
        print(network, flush=True)
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
    write("round_to", options.output, result)


if __name__ == "__main__":
    main()
