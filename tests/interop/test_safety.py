"""Files bring no code that runs unasked; a model in memory is not changed for a moment."""

import json
import os
import subprocess
import sys
import threading
import zipfile

import h5py
import keras
import numpy as np
import pytest
from keras import layers

import tfprune
from tfprune.cli import main
from tfprune.interop.tfmot_reader import code_in

HALF = tfprune.ConstantSparsity(0.5, begin_step=0)


def planted(path):
    """A model whose Lambda layer writes a file when its code runs."""
    inputs = keras.Input((4,))
    x = layers.Dense(3, name="dense")(inputs)
    os.environ["PLANTED_MARK"] = str(path)
    x = layers.Lambda(
        lambda x: (open(__import__("os").environ["PLANTED_MARK"], "a").close(), x * 2.0)[1],
        output_shape=(3,),
    )(x)
    return keras.Model(inputs, layers.Dense(2, name="last")(x))


@pytest.fixture(params=[".keras", ".h5"])
def file(request, tmp_path):
    """A file with a planted Lambda, and the file that its code would write."""
    mark = tmp_path / "mark"
    path = tmp_path / f"planted{request.param}"
    planted(mark).save(path)
    mark.unlink(missing_ok=True)
    return path, mark


@pytest.mark.filterwarnings("ignore:You are saving your model as an HDF5 file")
@pytest.mark.parametrize("command", ["report", "shrink", "export"])
def test_a_planted_lambda_does_not_run(file, command, capsys):
    path, mark = file
    target = ["-o", str(path.with_name("out.keras"))] if command != "report" else []
    assert main([command, str(path), *target]) == 1
    assert "--unsafe" in capsys.readouterr().err
    assert not mark.exists()


def test_a_space_more_in_the_config_hides_nothing(tmp_path, capsys):
    """A check by literal bytes would be passed."""
    mark, path = tmp_path / "mark", tmp_path / "planted.h5"
    planted(mark).save(path)
    mark.unlink(missing_ok=True)
    with h5py.File(path, "r+") as file:
        text = file.attrs["model_config"]
        text = text if isinstance(text, str) else text.decode()
        text = text.replace('"class_name": "Lambda"', '"class_name" :  "\\u004cambda"')
        file.attrs["model_config"] = text
    assert main(["report", str(path)]) == 1
    assert "--unsafe" in capsys.readouterr().err and not mark.exists()


@pytest.mark.parametrize(
    "config",
    [
        {"class_name": "Lambda", "config": {}},
        {"class_name": "tf_keras>Lambda", "config": {}},
        {"config": {"layers": [{"config": {"layer": {"class_name": "Lambda"}}}]}},
        {"config": {"activation": {"class_name": "__lambda__", "config": {"value": "..."}}}},
        {"config": {"function_type": "lambda"}},
    ],
)
def test_code_is_found_wherever_it_is(config):
    assert code_in(json.loads(json.dumps(config)))


def test_plain_configs_hold_no_code():
    model = keras.Sequential([keras.Input((4,)), layers.Dense(2, activation="relu")])
    assert code_in(json.loads(model.to_json())) is None


def test_unsafe_is_honoured_by_every_command(tmp_path, capsys):
    path = tmp_path / "planted.keras"
    planted(tmp_path / "mark").save(path)
    data = tmp_path / "data.npz"
    random = np.random.default_rng(0)
    np.savez(data, x=random.normal(size=(16, 4)), y=random.integers(0, 2, 16))
    prune = ["prune", str(path), "--data", str(data), "--sparsity", "0.5", "--epochs", "1"]
    for words in (
        ["report", str(path)],
        ["export", str(path), "-o", str(tmp_path / "exported.keras")],
        ["shrink", str(path), "-o", str(tmp_path / "shrunk.keras")],
        [*prune, "-o", str(tmp_path / "pruned.keras")],
    ):
        assert main([*words, "--unsafe"]) == 0, capsys.readouterr().err


def test_a_live_model_needs_no_flag(tmp_path):
    model = planted(tmp_path / "mark")
    pruned = tfprune.prune_low_magnitude(model, HALF)
    tfprune.UpdatePruningStep(pruned)
    plain = tfprune.strip_pruning(pruned)
    x = np.ones((2, 4), "float32")
    np.testing.assert_allclose(plain(x), pruned(x))
    tfprune.export(pruned, tmp_path / "model.keras")


# -- SavedModels of tf_keras -----------------------------------------------------------------------

SAVE = """
import sys
import tensorflow as tf
import tf_keras

folder, mark = sys.argv[1:]

class Writing(tf_keras.layers.Layer):
    def call(self, x):
        tf.io.write_file(mark, "it ran")
        return x

inputs = tf_keras.Input((4,))
x = tf_keras.layers.Dense(3, name="dense")(inputs)
if folder.endswith("graph"):
    x = Writing()(x)
elif folder.endswith("lambda"):
    x = tf_keras.layers.Lambda(lambda x: x * 2.0)(x)
model = tf_keras.Model(inputs, tf_keras.layers.Dense(2, name="last")(x))
model.save(folder)
"""


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """SavedModels that tf_keras wrote: a plain one, one with a Lambda, one whose graph writes."""
    pytest.importorskip("tf_keras")
    folder = tmp_path_factory.mktemp("saved")
    code = SAVE + "\n"
    script = folder / "save.py"
    script.write_text(
        "import sys\nfor kind in ('plain', 'lambda', 'graph'):\n"
        "    sys.argv = ['', f'{sys.path[0]}/{kind}', f'{sys.path[0]}/mark']\n"
        f"    exec({code!r}, dict(__name__='saving'))\n"
    )
    done = subprocess.run(
        [sys.executable, str(script)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    (folder / "mark").unlink(missing_ok=True)
    return folder


@pytest.mark.parametrize("kind", ["lambda", "graph"])
def test_a_foreign_saved_model_is_not_executed(folders, kind, capsys):
    assert main(["report", str(folders / kind)]) == 1
    assert "Expected" in capsys.readouterr().err
    assert not (folders / "mark").exists()


def test_a_plain_saved_model_is_read_without_its_functions(folders):
    model = tfprune.interop.from_tf_keras(folders / "plain")
    assert [type(layer).__name__ for layer in model.layers] == ["InputLayer", "Dense", "Dense"]
    assert np.ptp(np.asarray(model.get_layer("dense").kernel)) > 0


# -- Threads ---------------------------------------------------------------------------------------


def test_another_thread_never_sees_the_model_changed():
    model = keras.Sequential(
        [keras.Input((4,)), *(layers.Dense(4, name=f"d{i}") for i in range(6)), layers.Dense(1)]
    )
    model.compile("sgd", "mse")
    seen, stop = set(), threading.Event()

    def watch():
        while not stop.is_set():
            seen.add(bool(model.compiled))

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        for _ in range(3):
            pruned = tfprune.prune_low_magnitude(model, HALF)
            tfprune.strip_pruning(pruned)
    finally:
        stop.set()
        thread.join()
    assert seen == {True} and not pruned.compiled


def test_archives_hold_what_they_did(tmp_path):
    """The config is read as JSON, whatever its order."""
    path = tmp_path / "model.keras"
    keras.Sequential([keras.Input((4,)), layers.Dense(2)]).save(path)
    with zipfile.ZipFile(path) as archive:
        assert code_in(json.loads(archive.read("config.json"))) is None
    assert main(["report", str(path)]) == 0
