"""From a trained CNN to a smaller and faster one: prune whole filters, shrink, tune, measure.

Trains a small residual CNN, prunes half of its filters while it trains on, removes them, tunes the
small model, folds its BatchNormalization, and measures all of them. Shows a table, and a picture of
which channels stand or fall together.

python tutorials/shrinking_filters.py                  handwritten digits, no download
python tutorials/shrinking_filters.py --data mnist     also fashion_mnist, cifar10
python tutorials/shrinking_filters.py --data FOLDER    as for quickstart.py
"""

import json
import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
from data_and_model import (
    BATCH_SIZE,
    argument_parser,
    check_epochs,
    fail,
    load_data,
    output_folder,
)
from rich.console import Console
from rich.table import Table

import tfprune

EPOCHS = {"digits": (15, 9)}  # Of the dense training, and of pruning and tuning. Others: 3 and 3.


def main():
    args = parse_arguments()
    data = load_data(args.data, args.name)
    output = output_folder(args.output)
    dense_epochs, epochs = EPOCHS.get(args.data, (3, 3))
    epochs = args.epochs or epochs
    steps = -(-len(data[0]) // BATCH_SIZE)
    keras.utils.set_random_seed(args.seed)

    print(f"1. Train the dense model on {len(data[0]):,} images")
    dense = build_resnet(data[0].shape[1:], classes=int(data[1].max()) + 1)
    train(dense, data, args.epochs or dense_epochs)

    print("2. See which channels stand or fall together")
    for group in tfprune.dependency_groups(dense):
        free = f"{group.removable} may go" if group.removable else next(iter(group.fixed.values()))
        print(f"   {group.size:3} channels of {', '.join(group.layers)}: {free}")

    print(f"3. Prune {args.sparsity:.0%} of the filters in {epochs} more epochs")
    schedule = tfprune.PolynomialDecay.from_epochs(
        0.0, args.sparsity, steps_per_epoch=steps, end_epoch=epochs * 2 / 3, frequency=steps // 4
    )
    # Coupled layers share one mask, and what belongs to a filter is masked with it: its bias, its
    # scale and its offset in the BatchNormalization.
    masked = tfprune.prune_low_magnitude(dense, schedule, pattern=tfprune.Filter())
    train(masked, data, epochs, [tfprune.UpdatePruningStep()])

    print("4. Remove them")
    plan = tfprune.plan_shrink(masked)
    plan.summary()
    small = plan.apply()
    tfprune.plot_groups(plan, output / "groups.png")
    off = np.abs(predicted(small, data) - predicted(masked, data)).max()
    print(f"   It computes the same: {off:.1e} is the largest difference of two probabilities")

    print(f"5. Tune the small model in {epochs} more epochs; the dense one too, to be fair")
    train(small, data, epochs, rate=5e-4)
    train(dense, data, epochs, rate=5e-4)
    folded = tfprune.fold_batch_norm(small)

    print("6. Measure")
    models = {
        "dense": dense,
        "masked": tfprune.strip_pruning(masked),
        "shrunk and tuned": small,
        "BatchNormalization folded": folded,
    }
    results = measure(models, data, output)
    show_table(results)
    (output / "results.json").write_text(json.dumps(results, indent=1))
    print(f"small.keras, groups.png and results.json are in {output}")
    print(ADVICE)


def parse_arguments():
    parser = argument_parser(__doc__)
    parser.add_argument("--epochs", type=int, help="of each training")
    parser.add_argument("--sparsity", type=float, default=0.5, help="share of filters that go")
    parser.add_argument("--seed", type=int, default=0, help="of all that is random")
    args = parser.parse_args()
    check_epochs(args.epochs)
    if args.seed < 0:
        fail(f"--seed has to be at least 0, not {args.seed}")
    try:
        tfprune.ConstantSparsity.one_shot(args.sparsity)
    except ValueError as error:
        fail(error)
    return args


def build_resnet(shape, classes):
    layers = keras.layers

    def convolution(x, filters, name, strides=1):
        x = layers.Conv2D(filters, 3, strides, "same", use_bias=False, name=name)(x)
        return layers.BatchNormalization(name=f"{name}_norm")(x)

    inputs = keras.Input(shape)
    x = layers.ReLU()(convolution(inputs, 32, "stem"))
    for stage, filters in enumerate((32, 64)):
        if stage:
            x = layers.ReLU()(convolution(x, filters, f"widen_{stage}", strides=2))
        for block in range(2):
            y = layers.ReLU()(convolution(x, filters, f"block_{stage}{block}_a"))
            y = convolution(y, filters, f"block_{stage}{block}_b")
            x = layers.ReLU()(layers.Add()([x, y]))
    x = layers.Dropout(0.2)(layers.GlobalAveragePooling2D()(x))
    return keras.Model(inputs, layers.Dense(classes, activation="softmax", name="output")(x))


def train(model, data, epochs, callbacks=None, rate=2e-3):
    x_train, y_train, *_ = data
    steps = epochs * -(-len(x_train) // BATCH_SIZE)
    decay = keras.optimizers.schedules.CosineDecay(rate, steps, alpha=0.05)
    loss = "sparse_categorical_crossentropy"
    model.compile(keras.optimizers.Adam(decay), loss, metrics=["accuracy"])
    fit = {"batch_size": BATCH_SIZE, "epochs": epochs, "verbose": 0}
    model.fit(x_train, y_train, callbacks=callbacks, **fit)


def predicted(model, data):
    return model.predict(data[2], batch_size=500, verbose=0)


def measure(models, data, output):
    """Returns `{model: its numbers}`; the models are timed in turn."""
    latency = tfprune.compare_latency(models, batch_size=32)
    results = {}
    for name, model in models.items():
        cost = tfprune.model_cost(model)
        file = output / "small.keras"
        model.save(file, include_optimizer=False)  # The last one stays.
        results[name] = {
            "accuracy": float(np.mean(predicted(model, data).argmax(axis=1) == data[3])),
            "parameters": cost.parameters,
            "macs": cost.macs,
            "file": file.stat().st_size,
            "milliseconds": 1000 * latency[name].median,
        }
    return results


def show_table(results):
    table = Table(title="What was gained")
    columns = ("model", "accuracy", "parameters", "MACs", "file, bytes", "ms, batch 32")
    for position, name in enumerate(columns):
        table.add_column(name, justify="right" if position else "left")
    for name, row in results.items():
        numbers = [f"{row[key]:,}" for key in ("parameters", "macs", "file")]
        table.add_row(name, f"{row['accuracy']:.2%}", *numbers, f"{row['milliseconds']:.2f}")
    Console().print(table)


ADVICE = """
What to take along:
- Masks alone save no time: a masked model multiplies by its zeros. Shrinking takes them out.
- Multiplications fall with about the square of the widths: half of the filters is a quarter of
  the work. Small batches on small models gain less, because other work stays.
- Prune gradually, then tune the small model. If you have no time to train, shrink at once:
  tfprune.shrink(model, {"macs": 0.5}) finds how many filters have to go.
- Many processors like multiples: Filter(round_to=8).
- Fold BatchNormalization last. The folded model predicts; it is not one to train on.
"""


if __name__ == "__main__":
    main()
