"""Searches for how much each layer loses, next to plain pruning, at equal training and cost.

    python benchmarks/search.py [--network cnn|vgg|resnet|mnist] [--data FOLDER] [--seeds 0 1 2]

Every method trains for as many steps in all, the last third of them after the last removal, and
meets the same budget: multiplications for filters, zeros for single weights (`mnist`). Searches
see training and validation images alone; the test set is looked at when a model is finished. Each
cell is written when it is done, and so is each dense network in the folder `--networks`: a run goes
on where it stopped, and `--minutes` stops it between two cells.
"""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import json
import math
import pathlib
import time

import numpy as np
from harness import arguments, show, write

NOWHERE = pathlib.Path()
ROUNDS = 3
VALIDATION = 1000
BATCH = 64


def small_cnn():
    import keras
    from keras import layers

    model = [keras.Input((32, 32, 3))]
    for filters in (16, 32, 64):
        model += [
            layers.Conv2D(filters, 3, padding="same", use_bias=False),
            layers.BatchNormalization(),
            layers.ReLU(),
            layers.MaxPooling2D(),
        ]
    return keras.Sequential([*model, layers.Flatten(), layers.Dense(64, "relu"), layers.Dense(10)])


def vgg8():
    import keras
    from keras import layers

    model = [keras.Input((32, 32, 3))]
    for place, filters in enumerate((32, 32, 64, 64, 128, 128)):
        model += [
            layers.Conv2D(filters, 3, padding="same", use_bias=False),
            layers.BatchNormalization(),
            layers.ReLU(),
        ]
        if place % 2:
            model.append(layers.MaxPooling2D())
    return keras.Sequential([*model, layers.Flatten(), layers.Dense(128, "relu"), layers.Dense(10)])


class Task:
    """A network, its data and its budgets.

    Args:
        options: The command's options.
        seed: For weights and the order of the data.
    """

    def __init__(self, options, seed):
        import keras
        from accuracy_tasks import compiled, data_set, mnist_cnn, small_resnet

        self.weights = options.network == "mnist"
        name = "mnist" if self.weights else "cifar10"
        (x, y), self.test = data_set(name, options.data)
        x, y = x[: options.images], y[: options.images]
        self.train_set = x[:-VALIDATION], y[:-VALIDATION]
        self.validation = x[-VALIDATION:], y[-VALIDATION:]
        self.seed, self.epochs, self.late = seed, options.epochs, max(1, options.epochs // 3)
        self.early = self.epochs - self.late
        self.evaluated = 0
        self.evaluations, self.steps = options.evaluations, options.steps
        self.steps_per_epoch = -(-len(self.train_set[0]) // BATCH)
        self._compiled = compiled
        make = {"cnn": small_cnn, "vgg": vgg8, "resnet": small_resnet, "mnist": mnist_cnn}
        kept = (
            options.networks
            / f"{options.network}_{options.images}_{options.dense_epochs}_{seed}.keras"
        )
        if options.networks != NOWHERE and kept.exists():
            self.dense = self.compiled(keras.saving.load_model(kept, compile=False))
            return
        keras.utils.set_random_seed(seed)
        self.dense = self.compiled(make[options.network]())
        self.fit(self.dense, 0, options.dense_epochs, options.dense_epochs)
        if options.networks != NOWHERE:
            options.networks.mkdir(parents=True, exist_ok=True)
            self.dense.save(kept)

    @property
    def pattern(self):
        return None if self.weights else "filter"

    def budget(self, share):
        return {"sparsity": share} if self.weights else {"macs": share}

    def compiled(self, model):
        import keras

        return self._compiled(model, keras.optimizers.Adam(2e-3))

    def fit(self, model, first, last, total=None, callbacks=()):
        """Trains from one epoch to another of a training along a cosine."""
        import keras

        total = total or self.epochs
        rate = keras.callbacks.LearningRateScheduler(
            lambda epoch: 2e-3 * (1 + math.cos(math.pi * epoch / total)) / 2
        )
        keras.utils.set_random_seed(1000 * (self.seed + 1) + first)
        model.fit(
            *self.train_set,
            batch_size=BATCH,
            initial_epoch=first,
            epochs=last,
            verbose=0,
            callbacks=[rate, *callbacks],
        )

    def accuracy(self, model, data=None):
        found = model.evaluate(*(data or self.test), batch_size=500, verbose=0, return_dict=True)
        return float(found["accuracy"])

    def judged(self, model):
        """Test accuracy, for filters also with statistics of BatchNormalization measured anew.

        After so few steps the moving statistics lag behind the weights, the more the later the
        filters go.
        """
        import tfprune

        found = {"accuracy": self.accuracy(model)}
        if not self.weights:
            fresh = self.compiled(tfprune.recalibrate(model, self.train_set[0], batch_size=BATCH))
            found["recalibrated"] = self.accuracy(fresh)
        return found

    def evaluate(self, model):
        self.evaluated += 1
        return model.evaluate(*self.validation, batch_size=500, verbose=0, return_dict=True)

    def gradual(self, sparsity, scope):
        """Masks rise over the early epochs; then the filters go, and the late ones follow."""
        import tfprune

        end = self.early * self.steps_per_epoch
        schedule = tfprune.PolynomialDecay(0.0, sparsity, 0, end, frequency=20)
        model = tfprune.prune_low_magnitude(self.dense, schedule, pattern=self.pattern, scope=scope)
        self.compiled(model)
        self.fit(model, 0, self.early, callbacks=[tfprune.UpdatePruningStep()])
        return self.finished(model)

    def finished(self, model):
        """The late epochs, of the smaller model where filters go."""
        import tfprune

        callbacks = [tfprune.UpdatePruningStep()]
        if not self.weights:
            model, callbacks = tfprune.shrink(model), []
        self.compiled(model)
        self.fit(model, self.early, self.epochs, callbacks=callbacks)
        return model

    def at_once(self, share, scope=None, distribution=None):
        import tfprune

        if self.weights:
            scope = distribution or scope
            model = tfprune.pruners.one_shot(self.dense, share, scope=scope)
            callbacks = [tfprune.UpdatePruningStep()]
        else:
            model, callbacks = tfprune.shrink(self.dense, {"macs": share}, scope=scope), []
        self.compiled(model)
        self.fit(model, 0, self.epochs, callbacks=callbacks)
        return model

    def uniform(self, share):
        """The sparsity everywhere at which the budget is met, and its distribution."""
        import tfprune

        if self.weights:
            return share, None
        plan = tfprune.plan_shrink(self.dense, {"macs": share})
        return plan.sparsity, plan.to_distribution()

    def search(self, kind, share, train=None, **options):
        from tfprune import pruners

        search = getattr(pruners, kind)(
            self.dense,
            self.budget(share),
            pattern=self.pattern,
            data=self.train_set[0],
            seed=self.seed,
            **options,
        )
        return search.run(self.evaluate, train=train, verbose=0)


def trained_once(task, found):
    """The model of a search, trained for all epochs after it."""
    import tfprune

    model = found.model
    callbacks = [tfprune.UpdatePruningStep()] if task.weights else []
    task.compiled(model)
    task.fit(model, 0, task.epochs, callbacks=callbacks)
    return model


def handed_over(task, found):
    return task.gradual(found.sparsity, found.to_distribution())


def training_in_parts(task, parts):
    """Returns a function that trains for one part of the early epochs at each call."""
    done = [0]

    def train(model, callback):
        before = task.early * done[0] / parts
        done[0] += 1
        epochs = task.early * done[0] / parts - before
        (x, y), batches = task.train_set, round(epochs * task.steps_per_epoch)
        order = np.random.default_rng(done[0]).permutation(len(x))[: batches * BATCH]
        passes = -(-batches * BATCH // len(x))
        order = np.resize(order, batches * BATCH) if passes > 1 else order
        model.optimizer.learning_rate = 1e-3 * (1 + math.cos(math.pi * before / task.epochs))
        model.fit(x[order], y[order], batch_size=BATCH, verbose=0, callbacks=[callback])

    return train


def netadapt_with_training(task, share):
    """Eight steps with training between them, as long in all as the early epochs."""
    found = task.search("NetAdapt", share, training_in_parts(task, 8), steps=8)
    return task.finished(found.pruned), found


def auto_compress(task, share):
    """Three rounds, as long in all as the early epochs; two thirds of each are ADMM's."""
    from tfprune import pruners

    search = pruners.AutoCompress(
        task.dense,
        task.budget(share),
        admm_steps=2 * task.early * task.steps_per_epoch // (3 * ROUNDS),
        rounds=ROUNDS,
        evaluations=task.evaluations // ROUNDS,
        data=task.train_set[0],
        seed=task.seed,
    )
    model = search.run(task.evaluate, training_in_parts(task, ROUNDS), verbose=0)
    task.fit(model, task.early, task.epochs)
    return model


def admm(task, share, scope):
    """ADMM for the early epochs, masks for the late ones."""
    from tfprune import pruners

    end = task.early * task.steps_per_epoch
    callback = pruners.ADMM(share, end, scope=scope, every=max(1, end // 20))
    model = task.compiled(callback.prune(task.dense))
    task.fit(model, 0, task.epochs, callbacks=[callback])
    return model


def methods(task):
    """`{name: function from a budget to a model and what the search found, or None}`."""

    def plain(function):
        return lambda share: (function(share), None)

    def searched(kind, after, **options):
        def run(share):
            found = task.search(kind, share, **options)
            return after(task, found), found

        return run

    wide = {"global": "global", "ERK": "erdos_renyi_kernel", "LAMP": "lamp"}
    found = {
        "uniform, at once": plain(lambda share: task.at_once(share)),
        "uniform, gradual": plain(lambda share: task.gradual(*task.uniform(share))),
        **{
            f"{name}, at once": plain(lambda share, scope=scope: task.at_once(share, scope))
            for name, scope in wide.items()
        },
    }
    kinds = {
        "sensitivity": ("SensitivitySearch", {}),
        "NetAdapt": ("NetAdapt", {"steps": task.steps}),
        "annealing": ("SimulatedAnnealing", {"evaluations": task.evaluations}),
    }
    for name, (kind, options) in kinds.items():
        found[f"{name}, at once"] = searched(kind, trained_once, **options)
        found[f"{name}, gradual"] = searched(kind, handed_over, **options)
    found["NetAdapt, 8 rounds"] = lambda share: netadapt_with_training(task, share)
    if not task.weights:
        found["AutoCompress, 3 rounds"] = plain(lambda share: auto_compress(task, share))
        return found
    for name in ("ERK", "LAMP"):
        scope = wide[name]
        found[f"{name}, gradual"] = plain(lambda share, scope=scope: task.gradual(share, scope))
        found[f"ADMM, {name}"] = plain(lambda share, scope=scope: admm(task, share, scope))
    found["ADMM, uniform"] = plain(lambda share: admm(task, share, None))
    return found


def cell(task, method, share):
    """One number of the table, with its cost."""
    import tfprune

    start, before = time.perf_counter(), task.evaluated
    model, _ = method(share)
    seconds = time.perf_counter() - start
    plain = tfprune.strip_pruning(model)
    macs = tfprune.model_cost(plain).macs / tfprune.model_cost(task.dense).macs
    kernels = [layer.kernel for layer in plain.layers if hasattr(layer, "kernel")]
    zeros = [float(np.mean(np.equal(np.asarray(kernel.numpy()), 0))) for kernel in kernels]
    return {
        **task.judged(model),
        "seconds": seconds,
        "evaluations": task.evaluated - before,
        "macs": macs,
        "sparsity": float(np.average(zeros, weights=[int(np.prod(k.shape)) for k in kernels])),
    }


def main():
    parser = arguments(__doc__.splitlines()[0])
    parser.add_argument("--network", default="cnn", choices=("cnn", "vgg", "resnet", "mnist"))
    parser.add_argument("--data", help="folder with cifar10.npz and mnist.npz")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--images", type=int, default=10000)
    parser.add_argument("--epochs", type=int, default=12, help="after the dense training")
    parser.add_argument("--dense-epochs", type=int, default=12)
    parser.add_argument("--evaluations", type=int, default=60, help="of annealing, in all")
    parser.add_argument("--steps", type=int, default=20, help="of NetAdapt without training")
    parser.add_argument("--networks", type=pathlib.Path, default=NOWHERE, help="keep networks here")
    parser.add_argument("--minutes", type=float, default=math.inf, help="begin no cell after them")
    parser.add_argument("--budgets", type=float, nargs="+")
    parser.add_argument("--methods", nargs="+", help="only those whose names contain one of these")
    options = parser.parse_args()
    budgets = options.budgets or ((0.95, 0.98) if options.network == "mnist" else (0.5, 0.3))
    name = f"search_{options.network}"
    path = options.output / f"{name}.json"
    keys = ("network", "images", "epochs", "dense_epochs", "evaluations", "steps")
    setting = {key: getattr(options, key) for key in keys}
    end = time.monotonic() + 60 * options.minutes
    cells = {}
    if path.exists():
        known = json.loads(path.read_text())
        if known["setting"] != setting:
            raise SystemExit(f"{path} is of another setting: {known['setting']}")
        cells = known["cells"]
    for seed in options.seeds:
        task = None
        for share in budgets:
            for method in ["dense", *methods(_Names(options.network))]:
                wanted = options.methods or [""]
                if method != "dense" and not any(part in method for part in wanted):
                    continue
                key = f"{method} | {share if method != 'dense' else ''} | {seed}"
                if key in cells or time.monotonic() > end:
                    continue
                task = task or Task(options, seed)
                if method == "dense":
                    cells[key] = task.judged(task.dense)
                else:
                    cells[key] = cell(task, methods(task)[method], share)
                print(key, cells[key], flush=True)
                write(name, options.output, {"setting": setting, "cells": cells})
    table(cells, budgets, options)


class _Names:
    """Stands for a task where only the names of methods are asked for."""

    def __init__(self, network):
        self.weights = network == "mnist"
        self.evaluations = self.steps = None


def table(cells, budgets, options):
    # Cells of earlier versions have no accuracy with fresh statistics; one table shows one kind.
    kinds = ("recalibrated", "accuracy")
    kind = next(kind for kind in kinds if all(kind in value for value in cells.values()))
    parsed = {
        tuple(key.split(" | ")): {**value, "accuracy": value[kind]} for key, value in cells.items()
    }
    names = list(dict.fromkeys(name for name, _, _ in parsed))
    rows = []
    for name in names:
        row = [name]
        found = []
        for share in [""] if name == "dense" else [str(budget) for budget in budgets]:
            found = [v for (n, s, _), v in parsed.items() if n == name and s == share]
            text = " ".join(f"{one['accuracy']:.3f}".lstrip("0") for one in found)
            row.append(text)
        row += [""] * (1 + len(budgets) - len(row))
        if found and "seconds" in found[0]:
            row += [f"{np.mean([one['evaluations'] for one in found]):.0f}"]
            row += [f"{np.mean([one['seconds'] for one in found]):.0f}"]
        else:
            row += ["", ""]
        rows.append(row)
    draw(parsed, names, budgets, options)
    title = f"{options.network}, {options.images} images, {options.epochs} epochs: test accuracy"
    show(title, ["method", *map(str, budgets), "evaluations", "seconds"], rows)


def draw(parsed, names, budgets, options):
    """A point for each cell: accuracy across, methods down, the dense networks as a line."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    shown = [b for b in budgets if any(share == str(b) for _, share, _ in parsed)]
    names = [name for name in names if name != "dense"]
    if not shown:
        return
    size = (1.8 + 3.4 * len(shown), 0.9 + 0.28 * len(names))
    figure, axes = pyplot.subplots(1, len(shown), figsize=size, sharey=True, squeeze=False)
    dense = [100 * v["accuracy"] for (name, _, _), v in parsed.items() if name == "dense"]
    colors = {seed: f"C{number}" for number, seed in enumerate(sorted({s for _, _, s in parsed}))}
    for axis, budget in zip(axes[0], shown, strict=True):
        axis.axvline(np.mean(dense), color="#909090", lw=1, label="dense, mean")
        for seed, color in colors.items():
            found = [
                (100 * parsed[name, str(budget), seed]["accuracy"], row)
                for row, name in enumerate(names)
                if (name, str(budget), seed) in parsed
            ]
            if found:
                axis.scatter(*zip(*found, strict=True), s=22, color=color, label=f"seed {seed}")
        left = "zeros" if options.network == "mnist" else "of the MACs left"
        axis.set_title(f"{budget:.0%} {left}", fontsize=9)
        axis.set_xlabel("test accuracy, %", fontsize=9)
        axis.tick_params(labelsize=8)
        axis.set_yticks(range(len(names)), names, fontsize=8)
        axis.grid(axis="x", alpha=0.3)
        axis.spines[["top", "right"]].set_visible(False)
    axes[0][0].invert_yaxis()
    # Each axis has only the seeds that ran for its budget.
    legends = (zip(*axis.get_legend_handles_labels(), strict=True) for axis in axes[0])
    labels = {label: handle for legend in legends for handle, label in legend}
    columns = {"ncol": len(labels), "fontsize": 8, "frameon": False}
    # Half an inch for the labels below the axes.
    place = {"loc": "upper center", "bbox_to_anchor": (0.5, 0.08 - 0.5 / size[1])}
    figure.legend(labels.values(), labels.keys(), **place, **columns)
    path = options.output / f"search_{options.network}.png"
    figure.savefig(path, dpi=120, bbox_inches="tight")
    pyplot.close(figure)


if __name__ == "__main__":
    main()
