"""Files made to mislead: each loader raises an error of the library's form."""

import json
import re
import zipfile

import keras
import numpy as np
import pytest
from keras import layers

import tfprune
from tfprune._analysis.sensitivity.record import Record
from tfprune._wrapping.preset_files import read_preset, write_preset
from tfprune._wrapping.wrapper import mask_owners
from tfprune.pruners.records import RecordStore

FORM = r"Expected [\s\S]*\. Received: [\s\S]*\. "
DEEP = "[" * 100_000 + "]" * 100_000
NESTED = "[" * 400 + "]" * 400


def refused(function):
    with pytest.raises((ValueError, TypeError, OSError), match=FORM) as told:
        function()
    return str(told.value)


# -- Records of tickets and searches ---------------------------------------------------------------


@pytest.fixture
def folder(tmp_path):
    store = RecordStore(tmp_path / "records", {"a": {"b": 1}}, "records")
    store.save("one", {"masks": [np.arange(3)]}, {"zeros": 1})
    return tmp_path / "records"


def opened(folder):
    return RecordStore(folder, {"a": {"b": 1}}, "records")


@pytest.mark.parametrize(
    "text", ["", "{", "3", "[1]", DEEP, NESTED, f'{{"a": {NESTED}}}', "\x00", "null"]
)
def test_configs_of_records(text, folder):
    (folder / "config.json").write_text(text)
    said = refused(lambda: opened(folder))
    assert "config.json" in said or "records of this configuration" in said


def entries(folder):
    with np.load(folder / "one.npz") as file:
        return {key: file[key] for key in file.files if key not in ("checksum", "record")}


@pytest.mark.parametrize(
    "change",
    [
        {"masks_size": np.array(5)},
        {"masks_size": np.array("x")},
        {"masks_0_dtype": np.array("no type")},
        {"masks_0_shape": np.array([7])},
        {"masks_0": np.array(["text"])},
        {"checksum": np.array("x")},
        {"checksum": np.zeros(3)},
    ],
    ids=str,
)
def test_arrays_of_a_record(change, folder):
    """Without a checksum, as version 0.1 wrote them."""
    np.savez(folder / "one.npz", **{**entries(folder), **change})
    assert "one.npz" in refused(lambda: opened(folder).arrays("one"))


@pytest.mark.parametrize("text", ["{", DEEP, ""])
def test_data_of_a_record(text, folder):
    np.savez(folder / "one.npz", **{**entries(folder), "data": np.array(text)})
    assert "one.npz" in refused(lambda: opened(folder).data("one"))


def test_a_record_that_would_fill_the_memory(folder):
    with zipfile.ZipFile(folder / "one.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("data.npy", bytes(50_000_000))
    assert "50000000 bytes" in refused(lambda: opened(folder).data("one"))


class Judged:
    def __call__(self, model):
        return {"loss": float(len(model.weights))}


def searched(path):
    model = keras.Sequential([keras.Input((6,)), layers.Dense(4), layers.Dense(2)])
    model.set_weights([np.ones(array.shape) for array in model.get_weights()])
    model.compile("sgd", "mse")
    search = tfprune.pruners.SensitivitySearch(
        model, {"sparsity": 0.5}, pattern="unstructured", levels=2
    )
    return search.run(Judged(), path=path, verbose=0)


@pytest.mark.parametrize("data", [None, 3, [], {}, {"zeros": 3}, {"metrics": 3}, {"metrics": {}}])
def test_records_of_a_search(data, tmp_path):
    searched(tmp_path / "search")
    path = tmp_path / "search" / "trial_00000.npz"
    with np.load(path) as file:
        before = json.loads(str(file["data"]))
    whole = {**before, **data} if isinstance(data, dict) and data else data
    np.savez(path, data=np.array(json.dumps(whole)))
    refused(lambda: searched(tmp_path / "search"))


# -- Sensitivity -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "change",
    [
        {"values": 3},
        {"values": {"a": 3}},
        {"values": {"a": {"0.5": "x"}}},
        {"values": [1, 2]},
        {"baseline": "x"},
        {"checksum": "x"},
        {"settings": 3},
        {"settings": {}},
        {"layers": 3},
        {"layers": "a"},
        {"layers": [["a"]]},
    ],
    ids=str,
)
def test_records_of_sensitivity(change, tmp_path):
    path = tmp_path / "record.json"
    Record(path, {"a": 1}, ["a"]).keep_baseline(0.5, "loss")
    found = json.loads(path.read_text())
    found.pop("checksum")
    path.write_text(json.dumps({**found, **change}))
    refused(lambda: Record(path, {"a": 1}, ["a"]))


# -- Presets ---------------------------------------------------------------------------------------


class Small(keras.Model):
    def __init__(self):
        super().__init__()
        self.dense = layers.Dense(4)

    def call(self, inputs):
        return self.dense(inputs)

    def get_config(self):
        return {}


@pytest.mark.parametrize("name", ["pruning.json", "pruning.npz"])
@pytest.mark.parametrize("content", ["", "{", "[]", '{"config": 3}', DEEP])
def test_presets(name, content, tmp_path):
    model = Small()
    model(np.ones((1, 3)))
    model = tfprune.prune_low_magnitude(model, copy=False)
    (owner,) = mask_owners(model)
    write_preset(tmp_path, "Small", owner)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["pruning.json", "pruning.npz"]
    assert read_preset(str(tmp_path))[0] == "Small"
    (tmp_path / name).write_text(content)
    assert "a preset as save_to_preset" in refused(lambda: read_preset(str(tmp_path)))


# -- Configs of models -----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    path = tmp_path_factory.mktemp("saved") / "model.keras"
    model = keras.Sequential([keras.Input((6,)), layers.Dense(4), layers.Dense(2)])
    tfprune.prune_low_magnitude(model).save(path)
    return path


def without(key):
    return lambda config: config.pop(key)


def having(key, value):
    return lambda config: config.update({key: value})


DENSE = keras.saving.serialize_keras_object(layers.Dense(3))


@pytest.mark.parametrize(
    "change",
    [
        without("layer"),
        without("pruning_schedule"),
        having("pruning_schedule", DENSE),
        having("pruning_schedule", 3),
        having("criterion", DENSE),
        having("scope", {"a": 1}),
        having("pattern", [1]),
        having("zz", 1),
        having("overrides", 3),
        having("followers", {"a": 1}),
        having("weights", "zz"),
        having("weights", [["zz", 1]]),
        having("reasons", 3),
    ],
)
def test_configs_of_wrappers(change, saved, tmp_path):
    path = tmp_path / "model.keras"
    with zipfile.ZipFile(saved) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    config = json.loads(parts["config.json"])
    change(config["config"]["layers"][1]["config"])
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in {**parts, "config.json": json.dumps(config)}.items():
            archive.writestr(name, content)
    # Keras rewords errors of a type that it expects.
    with pytest.raises((ValueError, TypeError)) as told:
        keras.saving.load_model(path)
    assert re.search(FORM, str(told.value)), str(told.value)
