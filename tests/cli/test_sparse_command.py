"""`tfprune sparse`: from a pruned file to a sparse one."""

import json

import keras
import numpy as np
import pytest
from keras_support import outputs
from sparse_support import with_zeros

import tfprune
from tfprune.cli import main


@pytest.fixture
def pruned(tmp_path):
    model = keras.Sequential([keras.Input((40,)), keras.layers.Dense(30, name="wide")])
    with_zeros(model).save(tmp_path / "pruned.keras")
    return model


def test_it_writes_a_sparse_model_and_says_what_it_did(pruned, tmp_path, capsys):
    target = tmp_path / "small.keras"
    words = ["sparse", str(tmp_path / "pruned.keras"), "-o", str(target)]
    options = ["--prefer", "size", "--batch-size", "2"]
    assert main([*words, *options]) == 0
    shown = capsys.readouterr().out
    assert "sparse: fewer bytes" in shown and f"{target.stat().st_size:,} bytes" in shown
    model = keras.saving.load_model(target)
    assert isinstance(model.get_layer("wide"), tfprune.sparse.SparseDense)
    x = np.ones((3, 40), "float32")
    np.testing.assert_allclose(outputs(model, x), outputs(pruned, x), rtol=1e-4, atol=1e-5)
    assert main([*words, *options, "--force", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["bytes"] == target.stat().st_size and found["layers"][0]["sparse"]


def test_it_times_on_given_inputs(pruned, tmp_path, capsys):
    np.savez(tmp_path / "data.npz", x=np.ones((9, 40), "float32"), y=np.zeros(9))
    words = ["sparse", str(tmp_path / "pruned.keras"), "-o", str(tmp_path / "small.keras")]
    assert main([*words, "--data", str(tmp_path / "data.npz"), "--json"]) == 0
    (row,) = json.loads(capsys.readouterr().out)["layers"]
    assert row["gain"] > 0 and row["sparse_seconds"] > 0


def test_its_errors_come_before_any_work(pruned, tmp_path, capsys):
    words = ["sparse", str(tmp_path / "pruned.keras"), "-o", str(tmp_path / "small.tflite")]
    assert main(words) == 1
    assert "ends with .keras" in " ".join(capsys.readouterr().err.split())
    words[-1] = str(tmp_path / "small.keras")
    assert main([*words, "--batch-size", "0"]) == 1
    assert "`--batch-size` to be at least 1" in " ".join(capsys.readouterr().err.split())
    assert not (tmp_path / "small.keras").exists()
