"""Accuracy on real data, by method and sparsity.

    python benchmarks/accuracy.py mnist|cifar10|lottery|schedules [--data FOLDER] [--seeds 0 1 2]

`mnist`: local, global and Erdos-Renyi-Kernel compared with tfmot, which runs in its own process on
the same dense weights. `cifar10`: everything on a small ResNet. `lottery`: winning tickets against
controls. `schedules`: all schedules at the same budget. `cifar10` adds to the results in its file.
"""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import functools
import json
import pathlib
import subprocess
import sys
import tempfile
import time

import numpy as np
from harness import arguments, show, write

TARGETS = {0.9: 0.988, 0.95: 0.986, 0.98: 0.980}


def spread(values):
    """Mean of some accuracies, and the lowest and highest."""
    return f"{np.mean(values):.4f} ({min(values):.4f} to {max(values):.4f})"


def fitted(model, data, epochs, seed, callbacks=(), batch=128):
    """Trains a compiled model and returns its accuracy on the test set."""
    import keras

    keras.utils.set_random_seed(seed)
    (x, y), test = data
    model.fit(x, y, batch_size=batch, epochs=epochs, verbose=0, callbacks=list(callbacks))
    return float(model.evaluate(*test, batch_size=500, verbose=0, return_dict=True)["accuracy"])


# -- MNIST, compared with tfmot --------------------------------------------------------------------


def mnist(options):
    options.sparsities = options.sparsities or list(TARGETS)
    import keras
    from accuracy_tasks import compiled, data_set, mnist_cnn

    import tfprune

    data = data_set("mnist", options.data)
    scopes = {"local": "local", "global": "global", "ERK": "erdos_renyi_kernel"}
    methods = chosen(options.methods, scopes)
    found = {"dense": []}
    with tempfile.TemporaryDirectory() as folder:
        for seed in options.seeds:
            keras.utils.set_random_seed(seed)
            dense = compiled(mnist_cnn(), "adam")
            found["dense"].append(fitted(dense, data, 2, seed))
            np.savez(pathlib.Path(folder) / f"{seed}.npz", *dense.get_weights())
            for name, scope in methods.items():
                for sparsity in options.sparsities:
                    schedule = tfprune.PolynomialDecay(0.0, sparsity, 0, 700, frequency=50)
                    model = tfprune.prune_low_magnitude(dense, schedule, scope=scope)
                    update = tfprune.UpdatePruningStep()
                    compiled(model, "adam")
                    value = fitted(model, data, 2, seed + 100, [update])
                    found.setdefault(f"{name} {sparsity}", []).append(value)
                    report = tfprune.sparsity_report(model)
                    assert abs(update.sparsity - sparsity) < 1e-4, report
                    print(seed, name, sparsity, value, flush=True)
        command = [sys.executable, __file__, "tfmot", "--weights", folder, "--seeds"]
        command += [str(seed) for seed in options.seeds]
        command += ["--sparsities", *map(str, options.sparsities)]
        if options.data:
            command += ["--data", str(options.data)]
        done = subprocess.run(command, stdout=subprocess.PIPE, check=True)
        found.update(json.loads(done.stdout.splitlines()[-1]))
    columns = ["method", *map(str, options.sparsities)]
    rows = [["dense", spread(found["dense"]), *[""] * (len(columns) - 2)]]
    for name in (*methods, "tfmot"):
        rows.append([name, *(spread(found[f"{name} {s}"]) for s in options.sparsities)])
    rows.append(["goal for global", *(TARGETS[s] for s in options.sparsities)])
    show(f"MNIST CNN, test accuracy over {len(options.seeds)} seeds: mean (range)", columns, rows)
    write(
        options.name or "accuracy_mnist",
        options.output,
        {"seeds": options.seeds, "accuracy": found},
    )


def tfmot_side(options):
    """The same in tfmot, on tf_keras; prints JSON."""
    import tensorflow_model_optimization as tfmot
    import tf_keras
    from accuracy_tasks import compiled, data_set, mnist_cnn

    prune = tfmot.sparsity.keras
    (x, y), test = data_set("mnist", options.data)
    found: dict = {}
    for seed in options.seeds:
        for sparsity in options.sparsities:
            model = mnist_cnn(tf_keras)
            with np.load(options.weights / f"{seed}.npz") as weights:
                model.set_weights([weights[name] for name in weights.files])
            schedule = prune.PolynomialDecay(0.0, sparsity, 0, 700, frequency=50)
            model = prune.prune_low_magnitude(model, schedule)
            compiled(model, "adam", tf_keras)
            tf_keras.utils.set_random_seed(seed + 100)
            model.fit(
                x, y, batch_size=128, epochs=2, verbose=0, callbacks=[prune.UpdatePruningStep()]
            )
            value = float(model.evaluate(*test, batch_size=500, verbose=0)[1])
            found.setdefault(f"tfmot {sparsity}", []).append(value)
            print(seed, "tfmot", sparsity, value, file=sys.stderr, flush=True)
    print(json.dumps(found))


# -- CIFAR-10 --------------------------------------------------------------------------------------


def cifar10(options):
    import keras
    from accuracy_tasks import compiled, data_set, small_resnet

    import tfprune
    from tfprune import pruners

    (x, y), test = data_set("cifar10", options.data)
    data = (x[: options.images], y[: options.images]), test
    sparsities = options.sparsities or (0.8, 0.9)
    batch, late = 64, max(1, options.epochs // 3)
    early = options.epochs - late
    steps = -(-len(data[0][0]) // batch)

    def adam(epochs):
        return keras.optimizers.Adam(keras.optimizers.schedules.CosineDecay(2e-3, epochs * steps))

    def run(model, epochs, seed, *callbacks):
        return fitted(compiled(model, adam(epochs)), data, epochs, seed, callbacks, batch)

    def after_dense(prune):
        def method(seed, sparsity, dense):
            return run(prune(dense(seed), sparsity), late, seed, tfprune.UpdatePruningStep())

        return method

    def gradual(scope):
        end = late * steps * 3 // 4
        return after_dense(
            lambda dense, sparsity: tfprune.prune_low_magnitude(
                dense,
                tfprune.PolynomialDecay(0.0, sparsity, 0, end, frequency=max(1, end // 15)),
                scope=scope,
            )
        )

    def sparse(make):
        def method(seed, sparsity, dense):
            callback = make(sparsity, seed)
            keras.utils.set_random_seed(seed)
            return run(callback.prune(small_resnet()), early + late, seed, callback)

        return method

    moving = {"update_every": max(1, steps // 4), "batch_size": batch, "data": data[0]}
    methods = {
        "gradual, local": gradual("local"),
        "gradual, global": gradual("global"),
        "one-shot + fine-tuning": after_dense(lambda d, s: pruners.one_shot(d, s, scope="global")),
        "L1Filter + fine-tuning": after_dense(pruners.l1_filter),
        "FPGM + fine-tuning": after_dense(pruners.fpgm),
        "static, ERK": sparse(
            lambda s, seed: tfprune.DynamicSparseTraining(s, drop_fraction=0, seed=seed)
        ),
        "SET, ERK": sparse(
            lambda s, seed: tfprune.SET(s, update_every=moving["update_every"], seed=seed)
        ),
        "RigL, uniform": sparse(lambda s, seed: tfprune.RigL(s, "uniform", seed=seed, **moving)),
        "RigL, ERK": sparse(lambda s, seed: tfprune.RigL(s, seed=seed, **moving)),
    }
    setting = {"images": len(data[0][0]), "epochs": [early, late], "batch": batch}
    path = options.output / "accuracy_cifar10.json"
    found = known(path, setting)

    def keep(name, seed, make):
        """Runs the experiments that are missing, and records each at once."""
        if str(seed) in found.get(name, {}):
            return
        start = time.perf_counter()
        value = make()
        # Processes that share the methods out among them write to the same file.
        found.update(known(path, setting))
        found.setdefault(name, {})[str(seed)] = value
        write("accuracy_cifar10", options.output, {**setting, "accuracy": found})
        print(seed, name, value, f"{time.perf_counter() - start:.0f} s", flush=True)

    @functools.cache
    def base(seed):
        keras.utils.set_random_seed(seed)
        model = small_resnet()
        run(model, early, seed)
        return model

    def go_on(seed, sparsity, base):
        """The dense model itself, for as long as the others."""
        model = keras.models.clone_model(base(seed))
        model.set_weights(base(seed).get_weights())
        return run(model, late, seed)

    methods = chosen(options.methods, {"dense": go_on, **methods})
    for seed in options.seeds:
        for sparsity in sparsities:
            for name, method in methods.items():
                key = name if name == "dense" else f"{name} {sparsity}"
                keep(key, seed, functools.partial(method, seed, sparsity, base))

    def cell(key):
        return spread(list(found[key].values())) if key in found else ""

    rows = [["dense", cell("dense"), *[""] * (len(sparsities) - 1)]]
    rows += [[n, *(cell(f"{n} {s}") for s in sparsities)] for n in methods if n != "dense"]
    title = f"CIFAR-10, ResNet-20, {len(data[0][0])} images, {early} + {late} epochs"
    show(title, ["method", *map(str, sparsities)], rows)


def known(path, setting):
    """The accuracies by method and seed in a file that was written with the same setting."""
    if not path.exists():
        return {}
    result = json.loads(path.read_text())
    same = all(result.get(key) == value for key, value in setting.items())
    return result["accuracy"] if same else {}


def chosen(asked, methods):
    """The methods whose names begin with one of those asked for; all if none was."""
    found = {name: methods[name] for name in methods if name.startswith(tuple(asked or [""]))}
    if not found:
        raise SystemExit(f"--methods: expected some of {list(methods)}; got {asked}.")
    return found


# -- Lottery tickets -------------------------------------------------------------------------------


def lottery(options):
    import matplotlib

    matplotlib.use("Agg")
    import keras
    from accuracy_tasks import compiled, data_set, lenet
    from matplotlib import pyplot

    import tfprune

    data = data_set("mnist", options.data)
    epochs = 3
    found: dict = {}
    figure, ax = pyplot.subplots(figsize=(7, 4.5))
    for seed in options.seeds:
        keras.utils.set_random_seed(seed)
        tickets = tfprune.LotteryTicket(lenet(), 0.985, rounds=6, seed=1000 * (seed + 1))

        def train(model, callback):
            compiled(model, keras.optimizers.Adam(1.2e-3))
            (x, y), test = data
            model.fit(x, y, batch_size=60, epochs=epochs, verbose=0, callbacks=[callback])
            return model.evaluate(*test, batch_size=500, verbose=0, return_dict=True)

        for control in (None, "random_reinit", "random_masks"):
            result = tickets.run(train, control=control)
            for one in result.rounds:
                key = f"{control or 'winning'} {one.zeros / one.parameters:.4f}"
                found.setdefault(key, []).append(float(one.metrics["accuracy"]))
            print(result, flush=True)
    sides = ("winning", "random_reinit", "random_masks")
    levels = list(dict.fromkeys(key.split()[1] for key in found))
    rows = [[level, *(spread(found[f"{side} {level}"]) for side in sides)] for level in levels]
    show("LeNet-300-100 on MNIST", ["sparsity", *sides], rows)
    for side in sides:
        values = np.array([found[f"{side} {level}"] for level in levels])
        x = [1 - float(level) for level in levels]
        line = ax.plot(x, values.mean(axis=1), marker="o", label=side.replace("_", " "))
        ax.fill_between(
            x, values.min(axis=1), values.max(axis=1), color=line[0].get_color(), alpha=0.2
        )
    ax.set(xscale="log", xlabel="share of weights left", ylabel="test accuracy")
    ax.invert_xaxis()
    ax.legend()
    ax.grid(alpha=0.3)
    options.output.mkdir(parents=True, exist_ok=True)
    figure.savefig(options.output / "lottery.png", dpi=120, bbox_inches="tight")
    write("accuracy_lottery", options.output, {"seeds": options.seeds, "accuracy": found})


# -- Schedules -------------------------------------------------------------------------------------


def schedules(options):
    import matplotlib

    matplotlib.use("Agg")
    import keras
    from accuracy_tasks import compiled, data_set, mnist_cnn
    from matplotlib import pyplot

    import tfprune

    data = data_set("mnist", options.data)
    sparsity, end = 0.98, 700
    ramp = {"initial_sparsity": 0.0, "final_sparsity": sparsity, "begin_step": 0, "end_step": end}
    sides = {
        "one-shot": tfprune.ConstantSparsity.one_shot(sparsity),
        "iterative": tfprune.Iterative(**ramp, n_steps=3, frequency=10),
        "AGP": tfprune.PolynomialDecay(**ramp, frequency=10),
        "cosine": tfprune.Cosine(**ramp, frequency=10),
        "one-cycle": tfprune.OneCycle(**ramp, frequency=10),
        "exponential": tfprune.Exponential(**ramp, frequency=10),
        # Back to half of it: what it ends with is less sparse than the others.
        "dense-sparse-dense": tfprune.DenseSparseDense(
            sparsity / 2, sparsity, begin_step=0, end_step=end, frequency=10
        ),
    }
    found: dict = {"dense": []}
    curves: dict = {}
    for seed in options.seeds:
        keras.utils.set_random_seed(seed)
        dense = compiled(mnist_cnn(), "adam")
        found["dense"].append(fitted(dense, data, 2, seed))
        for name, schedule in sides.items():
            model = tfprune.prune_low_magnitude(dense, schedule, scope="local")
            compiled(model, "adam")
            update, curve = tfprune.UpdatePruningStep(), []

            def note(batch, logs, update=update, curve=curve):
                curve.append(update.sparsity)

            look = keras.callbacks.LambdaCallback(on_train_batch_end=note)
            found.setdefault(name, []).append(fitted(model, data, 2, seed + 100, [update, look]))
            curves[name] = curve
            print(seed, name, found[name][-1], curve[-1], flush=True)
    rows = [["dense", spread(found["dense"]), 0]]
    rows += [[name, spread(found[name]), f"{curves[name][-1]:.4f}"] for name in sides]
    show("MNIST CNN, local, 938 steps", ["schedule", "accuracy", "sparsity at the end"], rows)
    figure, ax = pyplot.subplots(figsize=(7, 4.5))
    for name, curve in curves.items():
        ax.plot(curve, label=f"{name}: {np.mean(found[name]):.4f}")
    ax.set(xlabel="step", ylabel="sparsity", ylim=(0, 1))
    ax.legend(fontsize=8)
    ax.grid(alpha=0.3)
    options.output.mkdir(parents=True, exist_ok=True)
    figure.savefig(options.output / "schedules.png", dpi=120, bbox_inches="tight")
    every_tenth = {name: [round(s, 4) for s in curve[::10]] for name, curve in curves.items()}
    result = {"seeds": options.seeds, "sparsity": sparsity, "accuracy": found}
    write("accuracy_schedules", options.output, {**result, "every tenth step": every_tenth})


THEMES = {
    "mnist": mnist,
    "cifar10": cifar10,
    "lottery": lottery,
    "schedules": schedules,
    "tfmot": tfmot_side,
}


def main():
    parser = arguments(__doc__)
    parser.add_argument("theme", choices=THEMES)
    parser.add_argument("--data", type=pathlib.Path, help="folder with NAME.npz files")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--methods", nargs="+", help="mnist and cifar10: how their names begin")
    parser.add_argument("--sparsities", type=float, nargs="+", help="mnist and cifar10")
    parser.add_argument("--name", help="mnist: another name for the result")
    parser.add_argument("--images", type=int, default=50_000, help="cifar10: training images")
    parser.add_argument("--epochs", type=int, default=30, help="cifar10: epochs in all")
    parser.add_argument("--weights", type=pathlib.Path, help="tfmot: folder with dense weights")
    options = parser.parse_args()
    THEMES[options.theme](options)


if __name__ == "__main__":
    main()
