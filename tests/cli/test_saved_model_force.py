"""`tfprune export` replaces a SavedModel with --force alone, and nothing else at all."""

import keras
import pytest
from keras import layers

from tfprune.cli import main

tf = pytest.importorskip("tensorflow")


def files_of(folder):
    return {
        path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()
    }


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="SavedModels are TensorFlow's")
def test_a_saved_model_is_replaced_with_force_alone(tmp_path, capsys):
    model, target = tmp_path / "model.keras", tmp_path / "exported"
    for units in (2, 3):
        keras.Sequential([keras.Input((4,)), layers.Dense(units)]).save(model)
        command = ["export", str(model), "-o", str(target), "--format", "saved_model"]
        if units == 3:
            before = files_of(target)
            assert main(command) != 0
            assert "Pass --force to replace it." in capsys.readouterr().err
            assert files_of(target) == before
        assert main([*command, *(["--force"] if units == 3 else [])]) == 0
        capsys.readouterr()
    assert tf.saved_model.load(str(target)).serve(tf.ones((1, 4))).shape == (1, 3)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["exported", "model.keras"]
    # A folder of something else is not a SavedModel to replace.
    own = tmp_path / "own"
    own.mkdir()
    (own / "notes").write_text("mine")
    command[3] = str(own)
    assert main([*command, "--force"]) != 0
    assert "which holds something else" in capsys.readouterr().err
    assert (own / "notes").read_text() == "mine"
