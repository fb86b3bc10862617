"""Train a model that is sparse from the first step, while its connections move.

Compares RigL, SET and SNFS with connections that stay (static), with a model that is pruned while
it trains (gradual) and with a dense one, all on the same data and epochs; shows how many
connections each update moves, and how to resume.

python tutorials/dynamic_sparse_training.py                  handwritten digits, no download
python tutorials/dynamic_sparse_training.py --data mnist     also fashion_mnist, cifar10
python tutorials/dynamic_sparse_training.py --data FOLDER    as for quickstart.py
"""

import json
import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import matplotlib.pyplot as plt
import numpy as np
import tensorflow as tf
from data_and_model import (
    BATCH_SIZE,
    argument_parser,
    build_cnn,
    check_epochs,
    fail,
    load_data,
    output_folder,
)
from rich.console import Console
from rich.table import Table

import tfprune

EPOCHS = {"digits": 15}  # The others: 3.
METHODS = ("static", "SET", "SNFS", "RigL", "gradual")


def main():
    args = parse_arguments()
    data = load_data(args.data, args.name)
    output = output_folder(args.output)
    epochs = args.epochs or EPOCHS.get(args.data, 3)
    steps = epochs * -(-len(data[0]) // BATCH_SIZE)
    # Bit for bit the same each time, so that the resumed training can be compared.
    tf.config.experimental.enable_op_determinism()

    print(f"1. Train on {len(data[0]):,} images for {epochs} epochs, {steps} optimizer steps")
    dense = [train_dense(data, epochs, seed) for seed in range(args.seeds)]
    print(f"   {'dense':8}{percent(dense)}", flush=True)
    found = {}
    for sparsity in args.sparsities:
        for method in METHODS:
            runs = [
                train_sparse(method, sparsity, data, epochs, steps, seed)
                for seed in range(args.seeds)
            ]
            found.setdefault(method, []).append({"sparsity": sparsity, "runs": runs})
            accuracies = percent([run["accuracy"] for run in runs])
            print(f"   {method:8}{accuracies} at {sparsity:g}", flush=True)
    print()
    show_table(found, dense)
    plot_moves(found, output / "moves.png")
    (output / "results.json").write_text(json.dumps({"dense": dense, "sparse": found}, indent=1))
    print(f"moves.png and results.json are in {output}\n")

    print("2. Train RigL once more: for half of the epochs, save, load, and resume")
    resume(args.sparsities[0], data, epochs, steps, output / "half.keras")
    conclude(found)


def parse_arguments():
    parser = argument_parser(__doc__)
    parser.add_argument("--epochs", type=int, help="of each training")
    parser.add_argument("--seeds", type=int, default=2, help="trainings of each method")
    parser.add_argument(
        "--sparsities", type=float, nargs="+", default=[0.95, 0.99], metavar="SPARSITY"
    )
    args = parser.parse_args()
    check_epochs(args.epochs)
    if args.seeds < 1:
        fail(f"--seeds has to be at least 1, not {args.seeds}")
    try:
        for sparsity in args.sparsities:
            tfprune.SET(sparsity)
    except ValueError as error:
        fail(error)
    args.sparsities = sorted(set(args.sparsities))
    return args


def callback_for(method, sparsity, data, steps, seed):
    """All of them share the zeros out by ERK, and drop the smallest weights."""
    arguments = {
        # Some twenty updates in the training, of which the last quarter has none.
        "update_every": max(1, steps // 28),
        # `fit` would know it by itself, but not that a training is to be resumed: see `resume`.
        "total_steps": steps,
        "seed": seed,
    }
    images = {"data": data[:2], "batch_size": BATCH_SIZE}
    if method == "RigL":  # Grows where the gradient of the loss is largest, on one batch.
        return tfprune.RigL(sparsity, **arguments, **images)
    if method == "SNFS":  # Grows where its momentum is largest, over four batches.
        return tfprune.SNFS(sparsity, **arguments, **images)
    if method == "SET":  # Grows at random, and needs no data.
        return tfprune.SET(sparsity, **arguments)
    return tfprune.DynamicSparseTraining(sparsity, drop_fraction=0, **arguments)


class Moves(keras.callbacks.Callback):
    """Counts the connections that are new after each step; comes after the other callbacks."""

    def on_train_begin(self, logs=None):
        self.steps, self.moved = [], []
        self.before = None

    def on_train_batch_begin(self, batch, logs=None):
        if self.before is None:
            self.before = masks_of(self.model)

    def on_train_batch_end(self, batch, logs=None):
        masks = masks_of(self.model)
        pairs = zip(masks, self.before, strict=True)
        new = sum(int(np.count_nonzero(mask & ~before)) for mask, before in pairs)
        if new:
            self.steps.append(pruned_layers(self.model)[0].pruning_step)
            self.moved.append(new)
        self.before = masks


def pruned_layers(model):
    return [layer for layer in model.layers if isinstance(layer, tfprune.PruneLowMagnitude)]


def masks_of(model):
    """The masks as arrays: True where there is a connection."""
    weights = [weight for layer in pruned_layers(model) for weight in layer.pruned_weights]
    return [keras.ops.convert_to_numpy(weight.mask) for weight in weights]


def new_model(data, seed):
    keras.utils.set_random_seed(seed)
    return build_cnn(data[0].shape[1:], classes=int(data[1].max()) + 1)


def compile_model(model):
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])


def fit(model, data, epochs, callbacks=None, initial_epoch=0):
    # The order of the images has to depend on the epoch alone for a resumed training to be the
    # same. They are in random order already, so they need not be shuffled.
    arguments = {"batch_size": BATCH_SIZE, "shuffle": False, "verbose": 0}
    arguments |= {"epochs": epochs, "initial_epoch": initial_epoch, "callbacks": callbacks}
    model.fit(*data[:2], **arguments)


def accuracy_of(model, data):
    return model.evaluate(*data[2:], verbose=0, return_dict=True)["accuracy"]


def train_dense(data, epochs, seed):
    model = new_model(data, seed)
    compile_model(model)
    fit(model, data, epochs)
    return accuracy_of(model, data)


def train_sparse(method, sparsity, data, epochs, steps, seed):
    model, moves = new_model(data, seed), Moves()
    if method == "gradual":  # For comparison: dense at first, sparse after two thirds.
        end_step = max(1, steps * 2 // 3)
        schedule = tfprune.PolynomialDecay(0.0, sparsity, 0, end_step, frequency=10)
        model = tfprune.prune_low_magnitude(model, schedule, scope="erdos_renyi_kernel")
        callback = tfprune.UpdatePruningStep()
    else:
        callback = callback_for(method, sparsity, data, steps, seed)
        model = callback.prune(model)
    compile_model(model)
    fit(model, data, epochs, [callback, moves])
    masks = masks_of(model)
    connections = sum(int(np.count_nonzero(mask)) for mask in masks)
    parameters = sum(mask.size for mask in masks)
    return {
        "accuracy": accuracy_of(model, data),
        "parameters": parameters,
        "connections": connections,
        # Connections start at zero. Those between dead neurons get no gradient and stay there;
        # `tfprune.sparsity_report` counts them among the zeros.
        "idle": connections - (parameters - tfprune.sparsity_report(model).prunable.zeros),
        "steps": moves.steps,
        "moved": moves.moved,
    }


def percent(accuracies):
    return " ".join(f"{accuracy:.2%}" for accuracy in accuracies)


def show_table(found, dense):
    table = Table(title=f"dense: {percent(dense)}")
    for name in ("sparsity", "method"):
        table.add_column(name)
    for name in ("accuracies", "mean", "connections", "idle", "moved"):
        table.add_column(name, justify="right")
    for results in zip(*found.values(), strict=True):
        for method, result in zip(found, results, strict=True):
            runs = result["runs"]
            accuracies = [run["accuracy"] for run in runs]
            table.add_row(
                f"{result['sparsity']:g}",
                method,
                percent(accuracies),
                f"{np.mean(accuracies):.2%}",
                *(f"{number:,}" for number in (runs[0]["connections"], runs[0]["idle"])),
                f"{sum(runs[0]['moved']):,}",
            )
        table.add_section()
    Console().print(table)


def plot_moves(found, path):
    columns = list(zip(*found.values(), strict=True))
    figure, panels = plt.subplots(
        1, len(columns), figsize=(4.5 * len(columns), 4), layout="constrained", squeeze=False
    )
    for panel, results in zip(panels[0], columns, strict=True):
        for method, result, marker in zip(found, results, "xsD^o", strict=True):
            run = result["runs"][0]
            if run["steps"]:
                panel.plot(run["steps"], run["moved"], marker=marker, label=method)
        panel.set_title(f"sparsity {result['sparsity']:g}: {run['connections']:,} connections")
        panel.set_xlabel("optimizer step")
        panel.set_ylim(bottom=0)
        panel.grid(alpha=0.3)
        if panel.lines:
            panel.legend()
    panels[0][0].set_ylabel("connections moved by the update")
    figure.savefig(path, dpi=120)
    plt.close(figure)


def resume(sparsity, data, epochs, steps, file):
    """Trains in one go and in two, and compares."""
    half = epochs // 2

    def rigl():
        # `total_steps` counts the whole training. Without it, `fit(epochs=half)` would take its
        # own end for the end of the training, and RigL would move less and stop early.
        return callback_for("RigL", sparsity, data, steps, 0)

    whole = rigl().prune(new_model(data, 0))
    compile_model(whole)
    fit(whole, data, epochs, [rigl()])

    first = rigl().prune(new_model(data, 0))
    compile_model(first)
    fit(first, data, half, [rigl()])
    first.save(file)  # With its masks, its step and the optimizer's state.

    loaded = keras.saving.load_model(file)
    fit(loaded, data, epochs, [rigl()], initial_epoch=half)
    pairs = zip(whole.get_weights(), loaded.get_weights(), strict=True)
    if not all(np.array_equal(a, b) for a, b in pairs):
        fail("the resumed training differs from the uninterrupted one")
    print("   The weights and masks are those of an uninterrupted training, bit for bit.")


def conclude(found):
    """Says what these numbers show, and what to do about it."""
    print("\nWhat these trainings show, against connections that stay:")
    for results in zip(*found.values(), strict=True):
        means = {
            method: np.mean([run["accuracy"] for run in result["runs"]])
            for method, result in zip(found, results, strict=True)
        }
        spread = max(np.ptp([run["accuracy"] for run in result["runs"]]) for result in results)
        gains = [
            f"{method} {100 * (mean - means['static']):+.1f}"
            for method, mean in means.items()
            if method != "static"
        ]
        print(
            f"- at {results[0]['sparsity']:g}: {', '.join(gains)} points; seeds differ by up to "
            f"{100 * spread:.1f}."
        )
    print(ADVICE)


ADVICE = """
What to choose:
- Gradual pruning, if the dense model can be trained at all: see the other tutorial,
  choosing_a_criterion_and_scope.py. Dynamic sparse training is for models whose dense form never
  fits, on kernels that gain from zeros. On dense kernels it saves neither memory nor time.
- RigL or SNFS among the dynamic ones: they grow where the loss asks for it. SNFS looks at four
  batches for each update, RigL at one.
- SET where gradients of all weights cannot be had. It finds good connections by chance, which takes
  many updates: train longer.
- The sparser the model, the more moving the connections helps. At a moderate sparsity it may give
  nothing: run the static control, drop_fraction=0, with it.
- Idle connections: those that an update grew between neurons that never act stay at zero. They are
  connections all the same, but tfprune.sparsity_report counts them among the zeros.
"""


if __name__ == "__main__":
    main()
