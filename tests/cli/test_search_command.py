"""`tfprune search`, as a user types it."""

import json

import keras
import numpy as np
import pytest
from keras import layers
from sklearn.datasets import load_digits

import tfprune
from tfprune.cli import main
from tfprune.cli.choices import SEARCHES


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("command")
    x, y = load_digits(return_X_y=True)
    x = (x / 16).astype("float32")
    np.savez(path / "data.npz", x_train=x[:900], y_train=y[:900], x_test=x[900:], y_test=y[900:])
    keras.utils.set_random_seed(0)
    hidden = [layers.Dense(16, activation="relu", name=name) for name in ("one", "two")]
    model = keras.Sequential([keras.Input((64,)), *hidden, layers.Dense(10, "softmax")])
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    model.fit(x[:900], y[:900], epochs=3, verbose=0)
    model.save(path / "dense.keras")
    return path


OPTIONS = {
    "sensitivity": [],
    "netadapt": ["--steps", "2"],
    "anneal": ["--evaluations", "4"],
}


def test_each_method_is_tried():
    assert set(OPTIONS) == set(SEARCHES)


@pytest.mark.parametrize("method", OPTIONS)
def test_each_method_makes_the_model_smaller(method, folder, capsys):
    target = folder / f"{method}.keras"
    words = ["search", method, str(folder / "dense.keras"), "--data", str(folder / "data.npz")]
    words += ["--macs", "0.5", "-o", str(target), "--json", *OPTIONS[method]]
    assert main(words) == 0
    result = json.loads(capsys.readouterr().out)
    small = keras.saving.load_model(target)
    dense = keras.saving.load_model(folder / "dense.keras")
    assert tfprune.model_cost(small).macs <= 0.5 * tfprune.model_cost(dense).macs
    assert result["search"]["costs"]["macs"] == tfprune.model_cost(small).macs


@pytest.mark.parametrize(
    ("words", "line"),
    [
        ([], "Expected a budget. Received: none. Give for instance --macs 0.5"),
        (["--macs", "50"], "Did you mean 0.5|can be reached"),
        (["--macs", "0.5", "--evaluations", "3"], "--evaluations with anneal alone"),
        (["--macs", "0.5", "--runtime", "litert"], "a target in latency where `runtime` is given"),
    ],
    ids=["no budget", "percentage", "option of another method", "runtime without a latency"],
)
def test_mistakes_in_one_line(words, line, folder, capsys):
    start = ["search", "sensitivity", str(folder / "dense.keras")]
    start += ["--data", str(folder / "data.npz"), "-o", str(folder / "never.keras")]
    assert main([*start, *words]) == 1
    said = capsys.readouterr().err.strip()
    assert said.startswith("tfprune: error: ") and len(said.splitlines()) == 1
    assert any(part in said for part in line.split("|"))
    assert not (folder / "never.keras").exists()
