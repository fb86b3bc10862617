"""`tfprune sensitivity`: the table of the function, on files."""

import json

import keras
import numpy as np
import pytest
from keras import layers

import tfprune
from tfprune.cli import main


@pytest.fixture
def files(tmp_path):
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [keras.Input((6,)), layers.Dense(8, name="first"), layers.Dense(3, "softmax", name="last")]
    )
    model.compile("adam", "sparse_categorical_crossentropy")
    model.save(tmp_path / "model.keras")
    x = np.random.default_rng(0).normal(size=(40, 6)).astype("float32")
    # Sorted by class, as a folder of images is.
    y = np.arange(40) * 3 // 40
    np.savez(tmp_path / "data.npz", x_train=x, y_train=y, x_test=x[:5], y_test=y[:5])
    return model, x, y


def test_it_measures_what_the_function_measures(files, tmp_path, capsys):
    model, x, y = files
    words = ["sensitivity", str(tmp_path / "model.keras"), "--data", str(tmp_path / "data.npz")]
    words += ["--sparsities", "0.5", "0.9", "--held-out", "0.25"]
    assert main([*words, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    chosen = np.random.default_rng(0).permutation(40)[:10]
    held = x[chosen], y[chosen]
    assert set(held[1]) == {0, 1, 2}
    truth = tfprune.sensitivity(model, held, sparsities=[0.5, 0.9], verbose=0)
    assert found["sparsities"] == [0.5, 0.9]
    for row, expected in zip(found["layers"], truth.rows, strict=True):
        assert row["layer"] == expected.layer
        np.testing.assert_allclose(row["values"], expected.values, rtol=1e-5)
    assert main([*words, "--layer", "last"]) == 0
    shown = capsys.readouterr().out
    assert "last" in shown and "first" not in shown


def test_errors_are_one_line(files, tmp_path, capsys):
    words = ["sensitivity", str(tmp_path / "model.keras"), "--data", str(tmp_path / "data.npz")]
    assert main([*words, "--layer", "none"]) == 1
    assert "none" in capsys.readouterr().err
    assert main([*words, "--sparsities", "50"]) == 1
    assert "did you mean 0.5" in " ".join(capsys.readouterr().err.split())
