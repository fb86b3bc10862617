"""Which weights go, and how the layers share the zeros: what accuracy at high sparsity hangs on.

Trains a small CNN, prunes it by several criteria and scopes to several sparsities, and shows the
accuracies in a table and two plots.

python tutorials/choosing_a_criterion_and_scope.py                  handwritten digits, no download
python tutorials/choosing_a_criterion_and_scope.py --data mnist     also fashion_mnist, cifar10
python tutorials/choosing_a_criterion_and_scope.py --data FOLDER    as for quickstart.py
"""

import json
import math
import os
import textwrap

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import matplotlib.pyplot as plt
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

# A criterion says which weights go first. All of these compete under one threshold for the whole
# model, so that they differ in nothing else.
CRITERIA = {
    "magnitude": {"criterion": "magnitude", "scope": "global"},
    "LAMP": {"criterion": "lamp", "scope": "global"},
    "movement": {"criterion": "movement", "scope": "global"},
    "saliency": {"criterion": "saliency", "scope": "global"},
    "taylor": {"criterion": "taylor", "scope": "global"},
    "random": {"criterion": "random", "scope": "global"},
}
# A scope says how the layers share the zeros. All of these remove the smallest weights.
SCOPES = {
    "local": {"scope": "local"},
    "ERK": {"scope": "erdos_renyi_kernel"},
    "global": {"scope": "global"},
}
EPOCHS = {"digits": (20, 8)}  # Of the dense training and of each pruning. The others: 3 and 1.


def main():
    args = parse_arguments()
    data = load_data(args.data, args.name)
    output = output_folder(args.output)
    dense_epochs, epochs = EPOCHS.get(args.data, (3, 1))
    epochs = args.epochs or epochs
    keras.utils.set_random_seed(args.seed)

    print(f"1. Train the dense model on {len(data[0]):,} images")
    dense = build_cnn(data[0].shape[1:], classes=int(data[1].max()) + 1)
    dense_accuracy = train(dense, data, args.epochs or dense_epochs)
    print(f"   accuracy {dense_accuracy:.2%} on {len(data[2]):,} other images")

    print(f"2. Prune it in {epochs} more epochs, by each criterion and scope")
    by_criterion = compare(CRITERIA, dense, data, epochs, args)
    others = {name: parts for name, parts in SCOPES.items() if name != "global"}
    by_scope = compare(others, dense, data, epochs, args)
    by_scope["global"] = by_criterion["magnitude"]  # The same by both names.

    print()
    show_table("Criteria, in global scope", by_criterion, dense_accuracy)
    show_table("Scopes, by magnitude", by_scope, dense_accuracy)
    plot_accuracy(by_criterion, by_scope, dense_accuracy, output / "accuracy.png")
    plot_layers(by_scope, output / "layers.png")
    results = {"dense": dense_accuracy, "criteria": by_criterion, "scopes": by_scope}
    (output / "results.json").write_text(json.dumps(results, indent=1))
    print(f"accuracy.png, layers.png and results.json are in {output}\n")
    conclude(by_criterion, by_scope, len(data[2]))


def parse_arguments():
    parser = argument_parser(__doc__)
    parser.add_argument("--epochs", type=int, help="of the dense training and of each pruning")
    parser.add_argument(
        "--sparsities", type=float, nargs="+", default=[0.7, 0.9, 0.97, 0.99], metavar="SPARSITY"
    )
    parser.add_argument("--seed", type=int, default=0, help="of all that is random")
    args = parser.parse_args()
    check_epochs(args.epochs)
    if args.seed < 0:
        fail(f"--seed has to be at least 0, not {args.seed}")
    try:
        for sparsity in args.sparsities:
            tfprune.ConstantSparsity.one_shot(sparsity)
    except ValueError as error:
        fail(error)
    args.sparsities = sorted(set(args.sparsities))
    return args


def train(model, data, epochs, callbacks=None):
    x_train, y_train, x_test, y_test = data
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    fit = {"batch_size": BATCH_SIZE, "epochs": epochs, "verbose": 0}
    model.fit(x_train, y_train, callbacks=callbacks, **fit)
    return model.evaluate(x_test, y_test, verbose=0, return_dict=True)["accuracy"]


def compare(methods, dense, data, epochs, args):
    """Returns `{method: [result for each sparsity]}`."""
    found = {}
    for name, parts in methods.items():
        found[name] = []
        for sparsity in args.sparsities:
            keras.utils.set_random_seed(args.seed)
            found[name].append(prune(dense, data, epochs, sparsity, parts))
        accuracies = [f"{result['accuracy']:.2%} at {result['asked']:g}" for result in found[name]]
        print(f"   {name:10}{', '.join(accuracies)}", flush=True)
    return found


def prune(dense, data, epochs, sparsity, parts):
    """Prunes a copy of the dense model while it trains on; two epochs of three get it there."""
    schedule = tfprune.PolynomialDecay.from_epochs(
        0.0,
        sparsity,
        steps_per_epoch=-(-len(data[0]) // BATCH_SIZE),
        end_epoch=epochs * 2 / 3,
    )
    model = tfprune.prune_low_magnitude(dense, schedule, **parts)
    # Saliency and Taylor take gradients on this data at each update of the masks. The other
    # criteria do without: they would not read it.
    update = tfprune.UpdatePruningStep(data=data[:2], batches=4, batch_size=BATCH_SIZE)
    accuracy = train(model, data, epochs, callbacks=[update])
    report = tfprune.sparsity_report(model)
    layers = [row for row in report.rows if row.status == "pruned"]
    return {
        "asked": sparsity,
        "accuracy": accuracy,
        "zeros": report.prunable.zeros,
        "parameters": report.prunable.parameters,
        "layers": [[row.layer, row.zeros, row.parameters] for row in layers],
    }


def show_table(title, found, dense_accuracy):
    table = Table(title=f"{title} (dense: {dense_accuracy:.2%})")
    table.add_column("sparsity")
    columns = list(zip(*found.values(), strict=True))
    for results in columns:
        table.add_column(f"{results[0]['asked']:g}", justify="right")
    best = [max(result["accuracy"] for result in results) for results in columns]
    for name, results in found.items():
        cells = [
            f"[bold]{result['accuracy']:.2%}[/bold]"
            if result["accuracy"] == highest
            else f"{result['accuracy']:.2%}"
            for result, highest in zip(results, best, strict=True)
        ]
        table.add_row(name, *cells)
    table.add_section()
    left = [sorted({r["parameters"] - r["zeros"] for r in results}) for results in columns]
    table.add_row(
        "weights left", *("-".join(f"{n:,}" for n in (*c[:1], *c[1:][-1:])) for c in left)
    )
    Console().print(table)


def plot_accuracy(by_criterion, by_scope, dense_accuracy, path):
    figure, panels = plt.subplots(1, 3, figsize=(13, 4.5), layout="constrained")
    without_random = {name: r for name, r in by_criterion.items() if name != "random"}
    found = {
        "Criteria, in global scope": by_criterion,
        "The same, without random": without_random,
        "Scopes, by magnitude": by_scope,
    }
    for panel, (title, methods) in zip(panels, found.items(), strict=True):
        panel.axhline(dense_accuracy, color="grey", linestyle=":", label="dense")
        for (name, results), marker in zip(methods.items(), "osD^vx", strict=False):
            # Densities on a logarithmic axis: the high sparsities are where methods differ.
            densities = [1 - result["asked"] for result in results]
            accuracies = [result["accuracy"] for result in results]
            panel.plot(densities, accuracies, marker=marker, label=name)
        panel.set_xscale("log")
        panel.invert_xaxis()
        panel.set_xticks(densities, [f"{result['asked']:g}" for result in results])
        panel.minorticks_off()
        panel.set_title(title)
        panel.set_xlabel("sparsity")
        panel.grid(alpha=0.3)
        panel.legend()
    panels[0].set_ylabel("accuracy on the test images")
    figure.savefig(path, dpi=120)
    plt.close(figure)


def plot_layers(by_scope, path):
    """Shows the weights left, on a logarithmic axis: 99 % of zeros look like 99.9 %."""
    figure, panel = plt.subplots(figsize=(8, 4.5), layout="constrained")
    for number, (name, results) in enumerate(by_scope.items()):
        left = [(size - zeros) / size for _, zeros, size in results[-1]["layers"]]
        aside = (number - (len(by_scope) - 1) / 2) * 0.25
        positions = [layer + aside for layer in range(len(left))]
        panel.plot(positions, left, "osD"[number], markersize=9, label=name)
        for position, share in zip(positions, left, strict=True):
            panel.annotate(
                f"{1 - share:.1%}",
                (position, share),
                xytext=(0, 8),
                textcoords="offset points",
                ha="center",
                fontsize=8,
            )
    layers = [f"{layer}\n{size:,} weights" for layer, _, size in results[-1]["layers"]]
    panel.set_xticks(range(len(layers)), layers)
    panel.set_yscale("log")
    panel.margins(y=0.15)
    panel.set_ylabel("share of the weights left")
    panel.set_title(f"Sparsity of each layer, where {results[-1]['asked']:g} is asked of all")
    panel.grid(axis="y", alpha=0.3)
    panel.legend()
    figure.savefig(path, dpi=120)
    plt.close(figure)


def conclude(by_criterion, by_scope, images):
    """Says what these numbers show, and what to do about it."""
    print(
        f"What {images:,} test images can tell apart, in one run of each (--seed 1 gives another):"
    )
    for title, found in (("criteria", by_criterion), ("scopes", by_scope)):
        for results in zip(*found.values(), strict=True):
            pairs = sorted(zip(results, found, strict=True), key=lambda pair: -pair[0]["accuracy"])
            best = pairs[0][0]["accuracy"]
            # Two standard deviations of an accuracy that is counted on so many images.
            chance = 2 * math.sqrt(max(best * (1 - best), 1 / images) / images)
            level = [name for result, name in pairs if result["accuracy"] >= best - chance]
            worse = [
                f"{name} by {100 * (best - result['accuracy']):.1f}"
                for result, name in pairs
                if name not in level
            ]
            line = f"- {title} at {results[0]['asked']:g}, to {100 * chance:.1f} points: "
            if worse:
                lead = "lead" if len(level) > 1 else "leads"
                line += f"{', '.join(level)} {lead}; worse: {', '.join(worse)}."
            else:
                line += "all are level."
            print(textwrap.fill(line, 96, subsequent_indent="  "))
    print(ADVICE)


ADVICE = """
What to choose:
- Scope first: at high sparsity it matters more than the criterion. "local" takes the same share
  of a small layer as of a large one, and the small one becomes the bottleneck: see layers.png.
  Take "global", or "erdos_renyi_kernel" if the sparsity of each layer has to be known beforehand.
- With "global", watch that no layer is cut off: Global(max_sparsity=0.995) caps each one, and LAMP
  (criterion "lamp" with scope "global") makes the layers comparable.
- Criterion: begin with the magnitude. It costs nothing and is hard to beat. Saliency and Taylor
  need data at each update; try them when the magnitude falls off.
- Movement compares a weight with its value when the model was wrapped. Wrap a model before it is
  trained, or before it is tuned to a new task; where it only trains on, as here, it says little.
- Keep "random" as a control: a criterion that does no better tells nothing.
"""


if __name__ == "__main__":
    main()
