"""Writes files.zip. It was run once, with version 0.1 of tfprune.

    PYTHONPATH=<a checkout of version 0.1> python tests/saved_by_0_1/write.py FOLDER
    PYTHONPATH=<a checkout of version 0.1> python tests/saved_by_0_1/write.py FOLDER last

The archive shows what version 0.1 saved, so later versions must not write it again. Keras reads
the files of its older versions: the first command ran with Keras 3.10, the oldest one that tfprune
takes. The second one adds the model that needs `ReversibleEmbedding`, ran with Keras 3.15, and
packs the folder. `expected*.npz` holds the weights, masks and steps when a file was saved, and
after the same model had trained for another epoch without it.
"""

import contextlib
import json
import pathlib
import shutil
import sys

sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))

import keras
import numpy as np
import saved_files_support as support
import tensorflow as tf
from keras import layers
from saved_files_support import schedule

import tfprune

EXPECTED = {}


def keep(kind, moment, model):
    for path, value in support.state(model).items():
        EXPECTED[f"{kind}:{moment}:{path}"] = np.packbits(value) if value.dtype == bool else value


def compiled(model, optimizer=None, **arguments):
    model.compile(optimizer or keras.optimizers.SGD(0.05), "mse", run_eagerly=True, **arguments)
    return model


def filled(model):
    for weight in model.weights:
        values = support.numbers(*weight.shape) / 2
        weight.assign(np.abs(values) if "variance" in weight.name else values)
    return model


# -- Models, by the name of their file -------------------------------------------------------------


def sequential():
    return support.sequential()


def compiled_graph():
    model = support.sequential()
    model.compile(keras.optimizers.Adam(0.05), "mse")
    return model


def n_of_m():
    inputs = keras.Input((5,), dtype="int32")
    x = layers.Embedding(8, 4, name="embedding")(inputs)
    shared = layers.Dense(4, name="shared")
    x = layers.Add(name="add")([x, shared(shared(x))])
    x = layers.Conv1D(4, 2, name="conv")(x)
    outputs = layers.Dense(2, name="out")(layers.Flatten(name="flat")(x))
    model = filled(keras.Model(inputs, outputs, name="n_of_m"))
    return compiled(tfprune.prune_low_magnitude(model, schedule(0.5), sparsity_m_by_n=(2, 4)))


def block():
    model = keras.Sequential(
        [
            keras.Input((8,)),
            layers.Dense(8, activation="relu", name="hidden"),
            layers.Dense(4, name="out"),
        ],
        name="block",
    )
    return compiled(
        tfprune.prune_low_magnitude(filled(model), schedule(), (4, 1), "MAX"),
        keras.optimizers.SGD(0.05, momentum=0.5),
    )


def coupled():
    inputs = keras.Input((5, 5, 2))
    x = layers.Conv2D(4, 3, padding="same", name="first")(inputs)
    y = layers.BatchNormalization(name="norm")(x)
    y = layers.Conv2D(4, 3, padding="same", name="second")(layers.ReLU(name="relu")(y))
    x = layers.Add(name="add")([x, y])
    x = layers.GlobalAveragePooling2D(name="pool")(x)
    model = filled(keras.Model(inputs, layers.Dense(2, name="out")(x), name="coupled"))
    return compiled(tfprune.prune_low_magnitude(model, schedule(0.5), pattern="filter"))


def global_scope():
    model = support.plain("global_scope")
    pruned = tfprune.prune_low_magnitude(
        model, schedule(), scope=tfprune.Global(max_sparsity=0.9), criterion="movement"
    )
    return compiled(pruned)


def distribution():
    model = support.plain("distribution")
    return compiled(tfprune.prune_low_magnitude(model, schedule(), scope="erdos_renyi_kernel"))


def rigl():
    model = support.plain("rigl")
    return compiled(support.rigl(model).prune(model), keras.optimizers.SGD(0.05, momentum=0.5))


def subclassed():
    model = support.Subclassed(6, name="subclassed")
    model(np.zeros((1, 4), "float32"))
    rules = [tfprune.Rule("out", schedule=schedule(0.25))]
    return compiled(tfprune.prune_low_magnitude(filled(model), schedule(), rules=rules))


def convolutions():
    inputs = keras.Input((6, 6, 2))
    x = layers.Conv2D(4, 3, name="conv")(inputs)
    x = layers.DepthwiseConv2D(3, padding="same", name="depthwise")(x)
    x = layers.SeparableConv2D(4, 3, padding="same", name="separable")(x)
    x = layers.Conv2DTranspose(2, 2, name="transposed")(x)
    x = layers.GlobalAveragePooling2D(name="pool")(x)
    model = filled(keras.Model(inputs, layers.Dense(2, name="out")(x), name="convolutions"))
    return compiled(tfprune.prune_low_magnitude(model, schedule()))


def tokens():
    inputs = keras.Input((5,), dtype="int32")
    x = layers.Embedding(8, 4, name="embedding")(inputs)
    x = layers.Add(name="add")([x, layers.MultiHeadAttention(2, 2, name="attention")(x, x)])
    x = layers.EinsumDense("abc,cd->abd", (None, 4), bias_axes="d", name="einsum")(x)
    x = support.Scale(name="scale")(layers.LSTM(4, name="lstm")(x))
    x = support.Experts(2, 4, name="experts")(x)
    model = filled(keras.Model(inputs, layers.Dense(2, name="out")(x), name="tokens"))
    return compiled(tfprune.prune_low_magnitude(model, schedule()))


def rules():
    inputs = keras.Input((5, 4))
    nested = keras.Sequential(
        [keras.Input((5, 4)), layers.Dense(4, "relu", name="inner"), layers.Dense(4, name="left")],
        name="nested",
    )
    x = layers.MultiHeadAttention(2, 2, name="attention")(inputs, inputs)
    x = layers.Flatten(name="flat")(nested(x))
    model = filled(keras.Model(inputs, layers.Dense(2, name="out")(x), name="rules"))
    rules = [
        tfprune.Rule("attention/query", prune=False),
        tfprune.Rule("attention/value", schedule=tfprune.ConstantSparsity(0.25, 1, frequency=2)),
        tfprune.Rule("nested/left", prune=False),
        tfprune.Rule("nested/inner", pattern="row", scope="global"),
        tfprune.Rule("out", pattern=tfprune.NOfM(zeros=2, group=4), criterion="small_final"),
    ]
    return compiled(tfprune.prune_low_magnitude(model, schedule(0.5), rules=rules))


def tied():
    inputs = keras.Input((5,), dtype="int32")
    embedding = layers.ReversibleEmbedding(8, 4, name="embedding")
    x = layers.Dense(4, name="hidden")(embedding(inputs))
    model = filled(keras.Model(inputs, embedding(x, reverse=True), name="tied"))
    return compiled(tfprune.prune_low_magnitude(model, schedule(0.5), sparsity_m_by_n=(2, 4)))


WHOLE = (compiled_graph, n_of_m, block, coupled, global_scope, distribution, rigl, subclassed)
WHOLE += (convolutions, tokens, rules)


# -- Other files -----------------------------------------------------------------------------------


class Killed(Exception):
    pass


class KillBeforeSecondEpoch(keras.callbacks.Callback):
    def on_epoch_begin(self, epoch, logs=None):
        if epoch == 1:
            raise Killed


def write_whole(folder, make):
    model = make()
    callback = support.rigl(model) if make is rigl else None
    support.train(model, 0, 1, callback)
    model.save(folder / f"{make.__name__}.keras")
    keep(make.__name__, "saved", model)
    support.train(model, 1, 2, support.rigl(model) if make is rigl else None)
    keep(make.__name__, "trained", model)


def write_states(folder):
    """One training, saved in all ways that hold no model."""
    model = sequential()
    support.train(model, 0, 1)
    model.save_weights(folder / "sequential.weights.h5")
    tf.train.Checkpoint(model=model, optimizer=model.optimizer).save(
        str(folder / "checkpoint" / "ckpt")
    )
    keep("sequential", "saved", model)
    support.train(model, 1, 2)
    keep("sequential", "trained", model)
    backup = keras.callbacks.BackupAndRestore(str(folder / "backup"))
    with contextlib.suppress(Killed):
        support.train(sequential(), 0, 2, before=[KillBeforeSecondEpoch(), backup])


def write_legacy(folder):
    model = block()
    # Keras does not find "mse" again in this format.
    model.compile(keras.optimizers.SGD(0.05, momentum=0.5), keras.losses.MeanSquaredError())
    support.train(model, 0, 1)
    model.save(folder / "legacy.h5")
    keep("legacy", "saved", model)


def write_best(folder):
    pruned = tfprune.prune_low_magnitude(
        support.plain("best"), tfprune.ConstantSparsity(0.5, 2, frequency=2)
    )
    model = compiled(pruned, keras.optimizers.Adam(0.05))
    best = tfprune.PruningCheckpoint(folder / "best.keras", monitor="loss")

    class Keep(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            keep("best", "saved" if epoch == 0 else "trained", model)

    support.train(model, 0, 1, before=[best, Keep()])
    support.train(model, 1, 2, before=[Keep()])


def write_tickets(folder):
    tickets = support.lottery().run(support.Rounds(), folder / "tickets")
    for round in range(3):
        keep("tickets", f"before_{round}", tickets.ticket(round))
        keep("tickets", f"trained_{round}", tickets.ticket(round, trained=True))
    EXPECTED["tickets:metrics"] = np.array([one.metrics["loss"] for one in tickets.rounds])
    (folder / "tickets" / "round_02.npz").unlink()


def write_sensitivity(folder):
    arguments = {"metric": support.total, "pattern": "row", "verbose": 0}
    path = folder / "sensitivity.json"
    tfprune.sensitivity(support.plain(), sparsities=(0.25, 0.5), path=path, **arguments)
    whole = tfprune.sensitivity(support.plain(), sparsities=(0.25, 0.5, 0.75), **arguments)
    EXPECTED["sensitivity"] = np.array([row.values for row in whole.rows])


SCHEDULES = [
    tfprune.ConstantSparsity(0.5, 2, 20, 3),
    tfprune.PolynomialDecay(0.25, 0.75, 2, 20, 2, 3),
    tfprune.schedules.Exponential(0.25, 0.75, 2, 20, 3),
    tfprune.schedules.Iterative(0.25, 0.75, 2, 20, n_steps=3, frequency=3),
    tfprune.schedules.Cosine(0.25, 0.75, 2, 20, 3),
    tfprune.schedules.OneCycle(0.25, 0.75, 2, 20, 3),
    tfprune.schedules.DenseSparseDense(0.25, 0.75, 2, 20, 3),
]
PATTERNS = [
    tfprune.Unstructured(),
    tfprune.NOfM(zeros=2, group=4),
    tfprune.Block((2, 2), "MAX"),
    tfprune.Filter(),
    tfprune.Filter(coupled=False),
    tfprune.Channel(),
    tfprune.Kernel(),
    tfprune.Row(),
    tfprune.Column(),
    tfprune.Slice((0, 2)),
]
CRITERIA = [
    kind()
    for kind in sorted(set(tfprune.criteria.built_in().values()), key=lambda kind: kind.__name__)
]
OTHERS = [
    tfprune.scopes.Local(),
    tfprune.scopes.Local(tfprune.LAMP()),
    tfprune.Global(0.75),
    tfprune.Uniform(),
    tfprune.FirstLayerDense(),
    tfprune.ErdosRenyi(),
    tfprune.ErdosRenyiKernel(),
    tfprune.LAMP(),
    tfprune.PerLayer({"conv*": 0.5}),
    tfprune.drop_fractions.ConstantDrop(0.25),
    tfprune.drop_fractions.CosineDrop(0.25),
    tfprune.drop_fractions.PowerDrop(0.25),
    tfprune.GroupLasso(0.125),
]


def write_configs(folder):
    serialize = keras.saving.serialize_keras_object
    parts = {"schedules": SCHEDULES, "patterns": PATTERNS, "criteria": CRITERIA, "others": OTHERS}
    configs = {name: [serialize(part) for part in kind] for name, kind in parts.items()}
    written = {config["registered_name"] for kind in configs.values() for config in kind}
    # AdoptedSchedule holds a schedule of tfmot's.
    known = {"PruneLowMagnitude", "PrunedModel", "AdoptedSchedule"}
    known = {f"tfprune>{name}" for name in known}
    missing = (
        {name for name in keras.saving.get_custom_objects() if name.startswith("tfprune>")}
        - written
        - known
    )
    if missing:
        raise ValueError(f"Without a config: {sorted(missing)}")
    steps = np.arange(30)
    for position, part in enumerate(SCHEDULES):
        due, sparsity = part.evaluate(steps)
        EXPECTED[f"schedules:{position}:due"] = due
        EXPECTED[f"schedules:{position}:sparsity"] = sparsity
    kernel = support.numbers(2, 2, 4, 8)
    for position, part in enumerate(PATTERNS):
        mask = tfprune.compute_mask(kernel, 0.5, pattern=part)
        EXPECTED[f"patterns:{position}"] = np.packbits(mask)
    layer = keras.saving.serialize_keras_object(
        tfprune.PruneLowMagnitude(layers.Dense(4, name="tfmot"), SCHEDULES[1])
    )
    # tfmot's form: the schedule's config holds its class and its arguments once more.
    own = layer["config"]["pruning_schedule"]
    own["config"] = {"class_name": own["class_name"], "config": own["config"]}
    configs["nested"] = layer
    (folder / "configs.json").write_text(json.dumps(configs, indent=1))


def main(folder, part=None):
    folder = pathlib.Path(folder)
    folder.mkdir(exist_ok=True, parents=True)
    tf.config.experimental.enable_op_determinism()
    if part == "last":
        write_whole(folder, tied)
        np.savez(folder / "expected_tied.npz", **EXPECTED)
        shutil.make_archive(str(pathlib.Path(__file__).with_name("files")), "zip", folder)
        return
    for name in ("backup", "checkpoint", "tickets"):
        shutil.rmtree(folder / name, ignore_errors=True)
    for make in WHOLE:
        write_whole(folder, make)
    write_states(folder)
    write_legacy(folder)
    write_best(folder)
    write_tickets(folder)
    write_sensitivity(folder)
    write_configs(folder)
    np.savez(folder / "expected.npz", **EXPECTED)


if __name__ == "__main__":
    main(*sys.argv[1:])
