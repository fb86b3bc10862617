"""Shares from a sensitivity analysis against the same sparsity everywhere.

    python benchmarks/sensitivity.py --data FOLDER --networks FOLDER

Two networks of benchmarks/search.py: single weights of the MNIST CNN, and filters of the small CNN
on CIFAR-10. `sensitivity` and the choice of shares see the validation images alone. Each share is
pruned at once; the table gives the test accuracy as it is then, and after `--epochs` of training.
"""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import argparse
import pathlib

import keras
from harness import arguments, show, write
from search import Task

import tfprune

NETWORKS = {"mnist": (0.9, 0.95, 0.98), "cnn": (0.3, 0.5, 0.7)}
MEASURED = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.98)


def measured(task, sparsities, epochs):
    """Returns `{sparsity: {shares: [accuracy at once, accuracy after training]}}`."""
    found = {
        metric: tfprune.sensitivity(
            task.dense,
            task.validation,
            metric,
            pattern=task.pattern,
            sparsities=MEASURED,
            batch_size=500,
            verbose=0,
        )
        for metric in ("loss", "accuracy")
    }
    result = {"dense": task.accuracy(task.dense)}
    for sparsity in sparsities:
        scopes = {"uniform": None}
        scopes |= {f"by {name}": one.to_distribution(sparsity) for name, one in found.items()}
        result[sparsity] = {
            name: accuracies(task, sparsity, scope, epochs) for name, scope in scopes.items()
        }
        print(sparsity, result[sparsity], flush=True)
    return result


def accuracies(task, sparsity, scope, epochs):
    model = tfprune.pruners.one_shot(task.dense, sparsity, pattern=task.pattern, scope=scope)
    task.compiled(model)
    at_once = task.accuracy(model)
    if not epochs:
        return [at_once]
    task.fit(model, 0, epochs, epochs, [tfprune.UpdatePruningStep()])
    return [at_once, task.accuracy(model)]


def main():
    parser = arguments(__doc__.splitlines()[0])
    parser.add_argument("--data", help="folder with cifar10.npz and mnist.npz")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--images", type=int, default=10000)
    parser.add_argument("--dense-epochs", type=int, default=12)
    parser.add_argument("--epochs", type=int, default=4, help="of training after pruning")
    parser.add_argument("--networks", type=pathlib.Path, required=True, help="keep networks here")
    options = parser.parse_args()
    result = {}
    for network, sparsities in NETWORKS.items():
        for seed in options.seeds:
            setting = {**vars(options), "network": network, "evaluations": 0, "steps": 0}
            task = Task(argparse.Namespace(**setting), seed)
            key = f"{network}, seed {seed}"
            result[key] = measured(task, sparsities, options.epochs)
            write("sensitivity", options.output, result)
    rows = []
    for network, sparsities in NETWORKS.items():
        for sparsity in sparsities:
            for name in ("uniform", "by loss", "by accuracy"):
                cells = [result[f"{network}, seed {s}"][sparsity][name] for s in options.seeds]
                texts = [
                    " ".join(f"{v:.3f}".lstrip("0") for v in vs) for vs in zip(*cells, strict=True)
                ]
                rows.append((network, f"{sparsity:.0%}", name, *texts))
    show("Test accuracy by seed", ["", "zeros", "shares", "at once", "trained"], rows)


if __name__ == "__main__":
    keras.utils.disable_interactive_logging()
    main()
