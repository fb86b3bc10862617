"""Two epochs, a file, a new process, two more epochs: the same as four, bit for bit."""

import pathlib
import subprocess
import sys
import zipfile

import keras
import numpy as np
import pytest
from keras import layers, ops

import tfprune
from tfprune._wrapping.wrapper import mask_owners

SCRIPT = pathlib.Path(__file__).with_name("resume_truth.py")


WAYS = ("keras", "weights", "checkpoint", "backup")


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """`{way: all weights}`: one process trains half and saves, another loads and continues."""
    folder = tmp_path_factory.mktemp("trained")
    for part, ways in {"whole": ["none"], "first": WAYS, "second": WAYS}.items():
        command = [sys.executable, str(SCRIPT), str(folder), part, *ways]
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr[-3000:]

    def read(path):
        with np.load(path) as arrays:
            return [arrays[name] for name in arrays.files]

    found = {way: read(folder / way / "second.npz") for way in WAYS}
    return {"whole": read(folder / "none" / "whole.npz"), **found}


@pytest.mark.slow
@pytest.mark.parametrize("way", WAYS)
def test_resumed_training_equals_uninterrupted_training(way, trained):
    whole, resumed = trained["whole"], trained[way]
    assert len(resumed) == len(whole)
    for expected, value in zip(whole, resumed, strict=True):
        np.testing.assert_array_equal(expected, value)
    masks = [value for value in resumed if value.dtype == bool]
    assert masks and 0 < sum(int(mask.sum()) for mask in masks) < sum(m.size for m in masks)


def pruned_model(sparsity=0.5):
    keras.utils.set_random_seed(1)
    model = keras.Sequential(
        [
            keras.Input((16,)),
            layers.Dense(32, activation="relu"),
            layers.Dropout(0.5),
            layers.Dense(4),
        ]
    )
    model = tfprune.prune_low_magnitude(model, tfprune.ConstantSparsity(sparsity, 0))
    model.compile("adam", "mse")
    return model


def fit(model, *callbacks, epochs=1):
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(40, 16)).astype("float32"), np.ones((40, 4), "float32")
    callbacks = [*callbacks, tfprune.UpdatePruningStep()]
    return model.fit(x, y, batch_size=8, epochs=epochs, verbose=0, callbacks=callbacks)


def assert_file_is_sparse(model):
    for owner in mask_owners(model):
        for weight in owner.pruned_weights:
            value, mask = (ops.convert_to_numpy(v) for v in (weight.variable, weight.mask))
            assert (~mask).sum() == value.size - round(value.size * 0.5)
            assert not value[~mask].any()


@pytest.mark.parametrize("before", [True, False])
def test_every_file_saved_at_any_batch_is_sparse_and_knows_its_step(tmp_path, before):
    model = pruned_model()
    save = keras.callbacks.ModelCheckpoint(str(tmp_path / "{epoch}-{batch}.keras"), save_freq=1)
    callbacks = [save] if before else []
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(40, 16)).astype("float32"), np.ones((40, 4), "float32")
    callbacks = [*callbacks, tfprune.UpdatePruningStep(), *([] if before else [save])]
    model.fit(x, y, batch_size=8, epochs=2, verbose=0, callbacks=callbacks)
    files = sorted(tmp_path.iterdir())
    assert len(files) == 10
    for file in files:
        epoch, batch = (int(part) for part in file.stem.split("-"))
        saved = keras.models.load_model(file)
        assert_file_is_sparse(saved)
        assert mask_owners(saved)[0].pruning_step == (epoch - 1) * 5 + batch


def test_a_wrapped_file_is_hardly_larger_than_a_plain_one(tmp_path):
    plain = keras.Sequential([keras.Input((512,)), layers.Dense(512), layers.Dense(512)])
    wrapped = tfprune.prune_low_magnitude(plain, tfprune.ConstantSparsity(0.5, 0))
    sizes = []
    for name, model in (("plain", plain), ("wrapped", wrapped)):
        model.save(tmp_path / f"{name}.keras")
        sizes.append((tmp_path / f"{name}.keras").stat().st_size)
    assert sizes[1] <= 1.3 * sizes[0]
    with zipfile.ZipFile(tmp_path / "wrapped.keras") as archive:
        assert "model.weights.h5" in archive.namelist()


def test_compiling_again_does_not_reset_the_step():
    model = pruned_model()
    fit(model)
    model.compile("sgd", "mse")
    assert int(ops.convert_to_numpy(model.optimizer.iterations)) == 0
    fit(model)
    assert mask_owners(model)[0].pruning_step == 10


def test_the_random_state_is_saved_without_another_training_run(tmp_path):
    model = pruned_model()
    fit(model)
    model.save(tmp_path / "a.keras")
    keras.models.load_model(tmp_path / "a.keras").save(tmp_path / "b.keras")
    loaded = keras.models.load_model(tmp_path / "b.keras")
    fit(loaded)
    fit(model)
    for expected, value in zip(model.weights, loaded.weights, strict=True):
        np.testing.assert_array_equal(ops.convert_to_numpy(expected), ops.convert_to_numpy(value))


def test_a_file_loaded_between_two_epochs_sets_the_step(tmp_path):
    model = pruned_model()
    fit(model)
    model.save_weights(tmp_path / "five.weights.h5")
    fit(model, epochs=2)
    assert mask_owners(model)[0].pruning_step == 15

    class Restore(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            if batch == 1:
                self.model.load_weights(tmp_path / "five.weights.h5")

    fit(model, Restore())
    # Two batches, then back to step 5, then the other three.
    assert mask_owners(model)[0].pruning_step == 8
