"""`tfprune finetune`: trains a pruned model further, and keeps its zeros."""

import json

import keras
import numpy as np
import pytest
from keras import layers

import tfprune
from tfprune.cli import main

MODELS = ("plain.keras", "wrapped.keras")


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A pruned model, stripped and with wrappers in mid-schedule, a dense one, and data."""
    folder = tmp_path_factory.mktemp("finetune")
    keras.utils.set_random_seed(0)
    dense = keras.Sequential(
        [
            keras.Input((6, 6, 1)),
            layers.DepthwiseConv2D(3, depth_multiplier=4, name="depthwise"),
            layers.Flatten(),
            layers.Dense(8, "relu", name="dense"),
            layers.Dense(3, "softmax", name="last"),
        ]
    )
    # Depthwise kernels are pruned only where a rule names them.
    rules = [tfprune.Rule("depthwise"), tfprune.Rule("last", prune=False)]
    schedule = tfprune.PolynomialDecay(0.5, 0.9, begin_step=0, end_step=100, frequency=1)
    wrapped = tfprune.prune_low_magnitude(dense, schedule, rules=rules)
    x = np.random.default_rng(0).normal(size=(40, 6, 6, 1)).astype("float32")
    y = np.arange(40) % 3
    wrapped.compile(
        keras.optimizers.Adam(0.01), "sparse_categorical_crossentropy", metrics=["accuracy"]
    )
    with pytest.warns(UserWarning, match="to reach the schedule's sparsity"):
        wrapped.fit(x, y, batch_size=10, verbose=0, callbacks=[tfprune.UpdatePruningStep()])
    wrapped.save(folder / "wrapped.keras")
    tfprune.strip_pruning(wrapped).save(folder / "plain.keras")
    dense.save(folder / "dense.keras")
    np.savez(folder / "data.npz", x_train=x, y_train=y, x_test=x[:9], y_test=y[:9])
    return folder


def kernels(model):
    model = tfprune.strip_pruning(model)
    found = (model.get_layer(name).get_weights()[0] for name in ("depthwise", "dense", "last"))
    return list(found)


def words(files, name, target, *others):
    data = ["--data", str(files / "data.npz"), "-o", str(target)]
    return ["finetune", str(files / name), *data, *map(str, others)]


@pytest.mark.parametrize("name", MODELS)
def test_it_trains_and_keeps_exactly_the_zeros(files, tmp_path, capsys, name):
    target = tmp_path / "out.keras"
    rate = ["--learning-rate", 0.01, "--batch-size", 8, "--json"]
    assert main(words(files, name, target, "--epochs", 2, *rate)) == 0
    printed = capsys.readouterr()
    assert "epoch 2/2" in printed.err
    found = json.loads(printed.out)
    old, new = (keras.saving.load_model(path) for path in (files / name, target))
    assert type(new.get_layer("dense")) is layers.Dense
    for before, after in zip(kernels(old), kernels(new), strict=True):
        np.testing.assert_array_equal(before == 0, after == 0)
        assert (before[before != 0] != after[before != 0]).all()
    assert [int((kernel == 0).sum()) > 0 for kernel in kernels(new)] == [True, True, False]
    x, y = (np.load(files / "data.npz")[name] for name in ("x_test", "y_test"))
    for number, model in enumerate((old, new)):
        model.compile("sgd", "sparse_categorical_crossentropy")
        truth = model.evaluate(x, y, batch_size=8, verbose=0, return_dict=True)
        assert found["metrics"]["loss"][number] == pytest.approx(truth["loss"], rel=1e-5)
    assert found["bytes"] == target.stat().st_size
    zeros = sum(int((kernel == 0).sum()) for kernel in kernels(old))
    assert found["sparsity"]["prunable"]["zeros"] == zeros


def test_a_seed_repeats_it_and_a_wrapped_model_keeps_its_own_loss(files, tmp_path, capsys):
    found = []
    for number, seed in enumerate((5, 5, 6)):
        target = tmp_path / f"{number}.keras"
        assert main(words(files, "wrapped.keras", target, "--epochs", 1, "--seed", seed)) == 0
        found.append(kernels(keras.saving.load_model(target))[2])
    assert "accuracy: " in capsys.readouterr().out
    assert np.array_equal(found[0], found[1]) and not np.array_equal(found[0], found[2])


@pytest.mark.parametrize(
    ("name", "options", "expected"),
    [
        ("dense.keras", [], "zeros among its weights"),
        ("plain.keras", ["--epochs", "0"], "`--epochs` to be at least 1"),
        ("plain.keras", ["--seed", "-1"], "--seed"),
        ("plain.keras", ["--loss", "beauty"], "beauty"),
        ("missing.keras", [], "which does not exist"),
    ],
)
def test_errors_are_one_line_and_write_nothing(files, tmp_path, capsys, name, options, expected):
    assert main(words(files, name, tmp_path / "out.keras", *options)) == 1
    printed = capsys.readouterr()
    (line,) = printed.err.splitlines()
    assert line.startswith("tfprune: error: ") and expected in line and printed.out == ""
    assert list(tmp_path.iterdir()) == []
