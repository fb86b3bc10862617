"""PruningBackup: an interrupted training ends as one that was left alone."""

import os

import h5py
import keras
import numpy as np
import pytest
from keras import layers, ops

import tfprune
from tfprune._base import files
from tfprune._base.damage import DamagedFileError
from tfprune._wrapping.wrapper import mask_owners

EPOCHS, STEPS, BATCH = 3, 4, 4


def data():
    random = np.random.default_rng(0)
    x, y = random.normal(size=(STEPS * BATCH, 6)), random.normal(size=(STEPS * BATCH, 2))
    return x.astype("float32"), y.astype("float32")


def plain(units=16):
    keras.utils.set_random_seed(3)
    dense = [layers.Dense(units, "relu"), layers.Dropout(0.3, seed=5), layers.Dense(2)]
    return keras.Sequential([keras.Input((6,)), *dense])


def make(units=16, optimizer="adam"):
    # The end of an epoch is a due step too.
    schedule = tfprune.PolynomialDecay(0.0, 0.75, 0, 8, frequency=2)
    model = tfprune.prune_low_magnitude(plain(units), schedule)
    model.compile(optimizer, "mse", run_eagerly=True)
    return model


def scheduled():
    return make(), tfprune.UpdatePruningStep()


def rigl():
    callback = tfprune.RigL(0.5, update_every=2, stop=1.0, data=data())
    model = callback.prune(plain())
    model.compile("adam", "mse", run_eagerly=True)
    return model, callback


def fit(model, *callbacks):
    x, y = data()
    return model.fit(
        x, y, batch_size=BATCH, epochs=EPOCHS, shuffle=False, verbose=0, callbacks=list(callbacks)
    )


def state(model):
    found = [ops.convert_to_numpy(v) for v in [*model.weights, *model.optimizer.variables]]
    return [*found, np.array([owner.pruning_step for owner in mask_owners(model)])]


@pytest.fixture(scope="module")
def expected():
    found = {}
    for way in (scheduled, rigl):
        model, callback = way()
        fit(model, callback)
        found[way] = state(model)
    return found


class Killed(BaseException):
    pass


class KillIn(keras.callbacks.Callback):
    def __init__(self, epoch, batch):
        super().__init__()
        self.at, self.epoch = (epoch, batch), None

    def on_epoch_begin(self, epoch, logs=None):
        self.epoch = epoch

    def on_train_batch_begin(self, batch, logs=None):
        if (self.epoch, batch) == self.at:
            raise Killed


def assert_same(found, expected):
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_array_equal(one, other)


def sparsity_of(model):
    weights = [weight for owner in mask_owners(model) for weight in owner.pruned_weights]
    masks = [ops.convert_to_numpy(weight.mask) for weight in weights]
    return 1 - sum(mask.sum() for mask in masks) / sum(mask.size for mask in masks)


@pytest.mark.parametrize("way", [scheduled, rigl])
@pytest.mark.parametrize("first", [True, False])
def test_training_goes_on_exactly(way, first, expected, tmp_path):
    path = tmp_path / "run.weights.h5"

    def start(*more):
        model, callback = way()
        both = [tfprune.PruningBackup(path), callback]
        return model, fit(model, *(both if first else both[::-1]), *more)

    for moment in ((1, 2), (2, 0)):
        with pytest.raises(Killed):
            start(KillIn(*moment))
        assert path.exists()
    model, history = start()
    assert history.epoch == [2]
    assert history.history["sparsity"] == [pytest.approx(sparsity_of(model))]
    assert_same(state(model), expected[way])
    assert not list(tmp_path.iterdir())


def test_a_further_fit_begins_with_its_own_epoch(tmp_path):
    path = tmp_path / "run.weights.h5"
    with pytest.raises(Killed):
        fit(make(), tfprune.PruningBackup(path), tfprune.UpdatePruningStep(), KillIn(2, 0))
    model = make()
    fit(model, tfprune.PruningBackup(path), tfprune.UpdatePruningStep())
    # keras.callbacks.BackupAndRestore lets it begin with epoch 2 again.
    assert fit(model, tfprune.UpdatePruningStep()).epoch == [0, 1, 2]


@pytest.mark.parametrize("done", [True, False])
def test_a_training_that_ends_while_it_saves(done, expected, tmp_path, monkeypatch):
    path = tmp_path / "run.weights.h5"
    replace, count = os.replace, []

    def killed(source, target):
        count.append(target)
        if len(count) == 2:
            if done:
                replace(source, target)
            raise Killed
        replace(source, target)

    with monkeypatch.context() as patched:
        patched.setattr(files.os, "replace", killed)
        with pytest.raises(Killed):
            fit(make(), tfprune.PruningBackup(path), tfprune.UpdatePruningStep())
    model = make()
    history = fit(
        model, tfprune.PruningBackup(path, delete_checkpoint=False), tfprune.UpdatePruningStep()
    )
    assert history.epoch == ([2] if done else [1, 2])
    assert_same(state(model), expected[scheduled])
    # A program that is started once more has nothing to do.
    model = make()
    fit(model, tfprune.PruningBackup(path), tfprune.UpdatePruningStep())
    assert_same(state(model), expected[scheduled])


@pytest.mark.parametrize("every, epoch, steps", [(3, 1, 6), (4, 1, 4)])
def test_backups_every_few_batches(every, epoch, steps, tmp_path):
    path = tmp_path / "run.weights.h5"
    backup = tfprune.PruningBackup(path, save_freq=every)
    with pytest.raises(Killed):
        fit(make(), backup, tfprune.UpdatePruningStep(), KillIn(1, 3))
    model = make()
    started = []

    class Note(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            started.append((epoch, mask_owners(model)[0].pruning_step))

    callbacks = [tfprune.PruningBackup(path), tfprune.UpdatePruningStep(), Note()]
    if steps % STEPS:
        with pytest.warns(UserWarning, match="2 steps after the start of epoch 1"):
            fit(model, *callbacks)
    else:
        fit(model, *callbacks)
    assert started[0] == (epoch, steps)


def test_an_epoch_that_executions_do_not_divide_is_not_repeated(tmp_path):
    def several_steps():
        model = make()
        model.compile("adam", "mse", steps_per_execution=2)
        return model

    path, model = tmp_path / "run.weights.h5", several_steps()
    backup = tfprune.PruningBackup(path, save_freq=2)
    with pytest.raises(Killed):
        fit(model, backup, tfprune.UpdatePruningStep(), KillIn(1, 0))
    history = fit(several_steps(), tfprune.PruningBackup(path), tfprune.UpdatePruningStep())
    assert history.epoch[0] == 1


@pytest.fixture(scope="module")
def backup(tmp_path_factory):
    path = tmp_path_factory.mktemp("backup") / "run.weights.h5"
    with pytest.raises(Killed):
        fit(make(), tfprune.PruningBackup(path), tfprune.UpdatePruningStep(), KillIn(1, 0))
    return path


@pytest.mark.parametrize(
    "other, difference",
    [
        ({"units": 20}, r"other weights: bool \[6, 16\] where this one has bool \[6, 20\]"),
        ({"optimizer": "sgd"}, "other optimizer: Adam where this one has SGD"),
    ],
)
def test_a_backup_of_another_model_is_refused(other, difference, backup):
    model, content = make(**other), backup.read_bytes()
    before = state(model)
    with pytest.raises(ValueError, match=rf"a backup of this model.*{difference}.*another path"):
        fit(model, tfprune.PruningBackup(backup), tfprune.UpdatePruningStep())
    assert_same(state(model)[: len(model.weights)], before[: len(model.weights)])
    assert backup.read_bytes() == content


def test_a_file_of_something_else_is_refused_and_kept(tmp_path):
    path = tmp_path / "mine.weights.h5"
    model = make()
    model.save_weights(path)
    content = path.read_bytes()
    with pytest.raises(ValueError, match="one that PruningBackup wrote"):
        fit(model, tfprune.PruningBackup(path), tfprune.UpdatePruningStep())
    assert path.read_bytes() == content


def flip_a_value(path):
    with h5py.File(path, "r+") as file:
        matrices = []
        file.visititems(lambda _, item: matrices.append(item) if hasattr(item, "shape") else None)
        next(item for item in matrices if len(item.shape) == 2)[0, 0] += 1


def change_the_epoch(path):
    with h5py.File(path, "r+") as file:
        text = file["tfprune_backup"].asstr()[()]
        del file["tfprune_backup"]
        file["tfprune_backup"] = text.replace('"epoch": 1', '"epoch": 2')


def put(text):
    def change(path):
        with h5py.File(path, "r+") as file:
            del file["tfprune_backup"]
            file["tfprune_backup"] = text

    return change


@pytest.mark.parametrize(
    "change",
    [
        flip_a_value,
        change_the_epoch,
        lambda path: path.write_bytes(path.read_bytes()[:2000]),
        lambda path: path.write_bytes(b""),
        put("{"),
        put("[1]"),
        put("[" * 100000),
        put(3),
    ],
)
def test_a_damaged_backup_is_noticed(change, backup, tmp_path):
    path = tmp_path / "run.weights.h5"
    path.write_bytes(backup.read_bytes())
    change(path)
    model = make()
    before = state(model)
    with pytest.raises(DamagedFileError, match="Expected a backup as PruningBackup wrote it"):
        fit(model, tfprune.PruningBackup(path), tfprune.UpdatePruningStep())
    assert_same(state(model)[: len(model.weights)], before[: len(model.weights)])


@pytest.mark.parametrize(
    "arguments, error",
    [
        ({"path": 3}, TypeError),
        ({"path": "run"}, ValueError),
        ({"path": "run.h5"}, ValueError),
        ({"path": "missing/run.weights.h5"}, ValueError),
        ({"path": "a" * 250 + ".weights.h5"}, ValueError),
        ({"path": "run.weights.h5", "save_freq": 0}, ValueError),
        ({"path": "run.weights.h5", "save_freq": "batch"}, TypeError),
    ],
)
def test_bad_arguments(arguments, error, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(error, match=r"Expected .*\. Received: .*\. "):
        tfprune.PruningBackup(**arguments)
