"""Files that are damaged, or crafted: they never load as something else."""

import errno
import io
import json
import os
import shutil
import time
import zipfile

import h5py
import keras
import numpy as np
import pytest
from keras import layers

import tfprune
from tfprune._base import files
from tfprune._wrapping.wrapper import mask_owners

SAMPLES = 16


def make(seed=0):
    keras.utils.set_random_seed(seed)
    model = keras.Sequential(
        [
            keras.Input((6,)),
            layers.Dense(8, name="first"),
            layers.BatchNormalization(name="norm"),
            layers.Dropout(0.3, seed=1),
            layers.Dense(3, name="last"),
        ]
    )
    schedule = tfprune.PolynomialDecay(0.0, 0.75, begin_step=0, end_step=4, frequency=1)
    pruned = tfprune.prune_low_magnitude(model, schedule)
    pruned.compile("adam", "mse")
    pruned.optimizer.build(pruned.trainable_variables)
    return pruned


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A trained model, and the file of its weights."""
    pruned = make()
    random = np.random.default_rng(0)
    x, y = random.normal(size=(SAMPLES, 6)), random.normal(size=(SAMPLES, 3))
    pruned.fit(x, y, batch_size=4, verbose=0, callbacks=[tfprune.UpdatePruningStep()])
    path = tmp_path_factory.mktemp("whole") / "model.weights.h5"
    pruned.save_weights(path)
    return pruned, path


@pytest.fixture
def copy(whole, tmp_path):
    path = tmp_path / "copy.weights.h5"
    shutil.copy(whole[1], path)
    return path


def state(model):
    owners = mask_owners(model)
    return [
        *(keras.ops.convert_to_numpy(v) for v in [*model.weights, *model.optimizer.variables]),
        *(np.array(owner.pruning_step) for owner in owners),
        *(np.array(owner.mask_set.seeds or []) for owner in owners),
    ]


def same(one, other):
    return len(one) == len(other) and all(map(np.array_equal, one, other))


def entries(path, ending):
    """Names of the entries of a file that end in some way."""
    names = []
    with h5py.File(path) as file:
        file.visit(names.append)
    return [name for name in names if name.endswith(ending)]


def rewrite(path, name, change):
    """Replaces an entry of a file by another array."""
    with h5py.File(path, "r+") as file:
        array = change(file[name][()])
        del file[name]
        if array is not None:
            file[name] = array


def test_a_whole_file_gives_what_was_saved(whole):
    other = make(1)
    other.load_weights(whole[1])
    for one, two in zip(whole[0].weights, other.weights, strict=True):
        np.testing.assert_array_equal(one, two)


def test_no_changed_byte_loads_as_something_else(whole, tmp_path):
    """Bytes in the values of every entry, one at a time: an error, a warning, or no change."""
    other = make(1)
    other.load_weights(whole[1])
    expected = state(other)
    content = whole[1].read_bytes()
    places = {}
    with h5py.File(whole[1]) as file:
        file.visititems(
            lambda name, item: (
                places.update({name: item.id.get_offset()})
                if isinstance(item, h5py.Dataset) and item.id.get_offset() is not None
                else None
            )
        )
    assert {"optimizer", "layers"} <= {name.split("/")[0] for name in places}
    silent = []
    for number, (name, place) in enumerate(places.items()):
        damaged = bytearray(content)
        damaged[place] ^= 0x41
        path = tmp_path / f"{number}.weights.h5"
        path.write_bytes(damaged)
        try:
            other.load_weights(path)
        except (ValueError, OSError, UserWarning):
            continue
        if not same(state(other), expected):
            silent.append(name)
    assert silent == []


@pytest.mark.parametrize(
    ("ending", "change", "message"),
    [
        ("pruning_step", lambda _: np.int64(2**40), "Expected a pruning step of 'first' from 0"),
        ("pruning_step", lambda _: np.int64(-1), "Expected a pruning step of 'first' from 0"),
        ("pruning_step", lambda step: step + 1, "masks, the step or the random states changed"),
        ("pruning_step", lambda _: None, "Expected the pruning step of 'first' in the file"),
        ("mask_0", np.zeros_like, "masks, the step or the random states changed"),
        ("mask_0", lambda bits: bits ^ np.uint8(1), "masks, the step or the random states changed"),
        ("seed_states", lambda seeds: seeds + 1, "masks, the step or the random states changed"),
        ("inner/vars/0", lambda kernel: kernel * 2, "the weights changed"),
        ("inner/vars/1", lambda bias: bias + 1, "the weights changed"),
        ("checksum", lambda _: None, "masks, the step or the random states changed"),
    ],
)
def test_entries_that_are_not_those_that_were_written(ending, change, message, copy):
    rewrite(copy, sorted(entries(copy, ending))[0], change)
    other = make(1)
    before = [weight.mask.numpy() for weight in mask_owners(other)[0].pruned_weights]
    with pytest.raises(ValueError, match=message) as raised:
        other.load_weights(copy)
    # BackupAndRestore(double_checkpoint=True) goes back to its other copy on an OSError.
    assert "first" in str(raised.value)
    assert same([w.mask.numpy() for w in mask_owners(other)[0].pruned_weights], before)
    assert mask_owners(other)[0].pruning_step == 0


def sign(path):
    """Gives a crafted file the checksum that belongs to its entries."""
    from tfprune._base.damage import checksum_of_entries

    with h5py.File(path, "r+") as file:
        for name in [n for n in entries(path, "vars") if f"{n}/checksum" in file]:
            group = file[name]
            found = {key: group[key][()] for key in group if key != "checksum"}
            del group["checksum"]
            group["checksum"] = np.array(checksum_of_entries(found), dtype="int64")


def test_a_mask_that_prunes_everything(copy):
    rewrite(copy, sorted(entries(copy, "mask_0"))[0], np.zeros_like)
    sign(copy)
    with pytest.raises(ValueError, match="a mask of first/kernel in the file that keeps a weight"):
        make(1).load_weights(copy)


def test_numbers_under_a_mask(whole, tmp_path):
    """A model saved in mid-step loads unchanged, with a warning; a crafted file does not."""
    pruned = make()
    pruned.set_weights(whole[0].get_weights())
    weight = mask_owners(pruned)[0].pruned_weights[0]
    weight.variable.assign(np.ones(weight.variable.shape))
    path = tmp_path / "inexact.weights.h5"
    pruned.save_weights(path)
    with pytest.warns(UserWarning, match="pruned weights of first/kernel in the file to be zero"):
        make(1).load_weights(path)
    rewrite(path, sorted(entries(path, "inexact_0"))[0], lambda _: None)
    sign(path)
    with pytest.raises(ValueError, match="pruned weights of first/kernel in the file to be zero"):
        make(1).load_weights(path)


def test_weights_that_are_not_numbers(whole, tmp_path):
    pruned = make()
    pruned.set_weights(whole[0].get_weights())
    kernel = mask_owners(pruned)[1].pruned_weights[0]
    mask = keras.ops.convert_to_numpy(kernel.mask)
    kernel.variable.assign(np.where(mask, np.nan, 0))
    path = tmp_path / "nan.weights.h5"
    pruned.save_weights(path)
    with pytest.warns(UserWarning, match="finite weights of last/kernel in the file"):
        make(1).load_weights(path)


def test_sizes_are_looked_at_before_values(copy):
    """Two gigabytes of compressed zeros as random states."""
    name = sorted(entries(copy, "seed_states"))[0]
    with h5py.File(copy, "r+") as file:
        del file[name]
        file.create_dataset(name, shape=(2**27, 2), dtype="int64", chunks=(2**20, 2), compression=9)
        file[name][0] = 1
    begin = time.perf_counter()
    with pytest.raises(ValueError, match="seed_states"):
        make(1).load_weights(copy)
    assert time.perf_counter() - begin < 5


def test_a_file_without_checksums_loads_with_a_note(copy):
    with h5py.File(copy, "r+") as file:
        for ending in ("checksum", "_checksums"):
            for name in entries(copy, ending):
                if name in file:
                    del file[name]
    other = make(1)
    with pytest.warns(UserWarning, match="Expected a file with checksums"):
        other.load_weights(copy)


def test_both_formats_have_checksums(whole, tmp_path):
    path = tmp_path / "model.keras"
    whole[0].save(path)
    loaded = keras.saving.load_model(path)
    for one, two in zip(whole[0].weights, loaded.weights, strict=True):
        np.testing.assert_array_equal(one, two)
    with zipfile.ZipFile(path) as archive:
        content = io.BytesIO(archive.read("model.weights.h5"))
    with h5py.File(content) as file:
        names = []
        file.visit(names.append)
    assert sum(name.endswith("/checksum") for name in names) == 2


def test_a_model_beside_the_trained_one_is_no_damaged_file(whole, tmp_path):
    """Layers shared with a model that has other layers, and no optimizer."""
    trained = whole[0]
    part = keras.Model(trained.inputs, trained.layers[1].output)
    part.save(tmp_path / "part.keras")
    loaded = keras.saving.load_model(tmp_path / "part.keras")
    x = np.ones((2, 6), "float32")
    np.testing.assert_allclose(loaded.predict(x, verbose=0), part.predict(x, verbose=0))


def test_the_best_model_stays_until_the_next_is_whole(whole, tmp_path, monkeypatch):
    path = tmp_path / "best.keras"
    saving = tfprune.PruningCheckpoint(path)
    saving.set_model(whole[0])
    saving.model.save(path)
    content = path.read_bytes()

    def save_half(filepath, **kwargs):
        filepath.write_bytes(content[:100])
        raise KeyboardInterrupt

    monkeypatch.setattr(whole[0], "save", save_half)
    with pytest.raises(KeyboardInterrupt):
        saving.model.save(path)
    assert path.read_bytes() == content and list(tmp_path.iterdir()) == [path]


# -- Records ---------------------------------------------------------------------------------------


def test_records_of_sensitivity(tmp_path):
    from tfprune._analysis.sensitivity.record import Record

    path = tmp_path / "record.json"
    record = Record(path, {"a": 1}, ["dense"])
    record.keep_baseline(0.5, "loss")
    record.keep("dense", 0.5, 0.25)
    assert Record(path, {"a": 1}, ["dense"]).value("dense", 0.5) == 0.25
    found = json.loads(path.read_text())
    found["values"]["dense"]["0.5"] = 0.75
    path.write_text(json.dumps(found))
    with pytest.raises(ValueError, match=r"record\.json' to hold what sensitivity\(\) wrote"):
        Record(path, {"a": 1}, ["dense"])


def test_records_of_lottery_tickets(tmp_path):
    from tfprune.pruners.records import RecordStore

    store = RecordStore(tmp_path / "tickets", {"a": 1}, "lottery tickets")
    for name in ("round_01", "round_02"):
        store.save(name, {"next": [np.arange(3)]}, {"zeros": 1})
    assert store.data("round_01") == {"zeros": 1}
    first, second = (tmp_path / "tickets" / f"round_0{n}.npz" for n in (1, 2))
    shutil.copy(first, second)
    with pytest.raises(ValueError, match=r"round_02\.npz.*the record of another round"):
        store.arrays("round_02")
    with np.load(first) as file:
        arrays = dict(file)
    np.savez(first, **{**arrays, "next_size": np.array(0)})
    with pytest.raises(ValueError, match=r"round_01\.npz.*other numbers than were written"):
        store.data("round_01")
    second.write_bytes(second.read_bytes()[:100])
    with pytest.raises(ValueError, match=r"round_02\.npz.*cannot be read"):
        store.data("round_02")
    (tmp_path / "tickets" / "config.json").write_text("{")
    with pytest.raises(ValueError, match=r"config\.json.*cannot be read"):
        RecordStore(tmp_path / "tickets", {"a": 1}, "lottery tickets")


# -- The writer ------------------------------------------------------------------------------------


def of_a_dead_process(path):
    """The name that a killed process would have given a file it had not finished."""
    import subprocess
    import sys

    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    host = files._process_mark().partition("-")[0]
    mark = f"{files._UNFINISHED}{files._name_mark(path)}_{host}-{process.pid}_{'a' * 12}"
    return path.with_name(mark)


def test_what_a_killed_run_left_is_removed_by_the_next(tmp_path):
    path = tmp_path / "file.keras"
    left = of_a_dead_process(path)
    left.write_text("half")
    other = of_a_dead_process(tmp_path / "another.keras")
    other.write_text("half")
    with files.written_atomically(path) as unfinished:
        assert unfinished.parent == tmp_path
        unfinished.write_text("whole")
    assert path.read_text() == "whole" and not left.exists()
    assert other.exists()


def test_a_folder_that_was_set_aside_comes_back(tmp_path):
    path = tmp_path / "saved"
    left = of_a_dead_process(path)
    left = left.with_name(f"{left.name}-old")
    left.mkdir()
    (left / "data").write_text("old")
    with pytest.raises(RuntimeError), files.written_atomically(path):
        raise RuntimeError("nothing was written")
    assert (path / "data").read_text() == "old" and not left.exists()


def test_a_link_to_a_folder_stays_a_link(tmp_path):
    target, link = tmp_path / "target", tmp_path / "link"
    target.mkdir()
    (target / "data").write_text("old")
    link.symlink_to(target, target_is_directory=True)
    with files.written_atomically(link) as unfinished:
        unfinished.mkdir()
        (unfinished / "data").write_text("new")
    assert link.is_symlink() and (target / "data").read_text() == "new"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["link", "target"]


@pytest.mark.parametrize("ending", [".json", "-old"])
def test_a_planted_link_is_not_followed(ending, tmp_path, monkeypatch):
    """Under a name that the writer would have chosen."""
    chosen = [files.uuid.UUID(int=0), files.uuid.UUID(int=2**127)]
    monkeypatch.setattr(files.uuid, "uuid4", iter(chosen).__next__)
    path, victim = tmp_path / "file.json", tmp_path / "victim"
    path.write_text("old")
    victim.write_text("mine")
    mark = f"{files._UNFINISHED}{files._name_mark(path)}_{files._process_mark()}_{'0' * 12}"
    planted = tmp_path / f"{mark}{ending}"
    planted.symlink_to(victim)
    with files.written_atomically(path) as unfinished:
        assert unfinished.name.split("_")[-1].startswith("8" + "0" * 11)
        unfinished.write_text("new")
    assert path.read_text() == "new" and not path.is_symlink()
    assert victim.read_text() == "mine" and planted.is_symlink()


def test_two_writers_of_one_folder(tmp_path):
    path = tmp_path / "saved"
    path.mkdir()
    (path / "data").write_text("old")
    with files.written_atomically(path) as first:
        first.mkdir()
        (first / "data").write_text("first")
        with files.written_atomically(path) as second:
            second.mkdir()
            (second / "data").write_text("second")
        assert (path / "data").read_text() == "second"
    assert (path / "data").read_text() == "first"
    assert [p.name for p in tmp_path.iterdir()] == ["saved"]


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.EACCES, errno.EDQUOT])
def test_a_full_disk_or_a_read_only_folder_leaves_the_old_file(number, tmp_path):
    path = tmp_path / "file"
    path.write_text("old")
    with (
        pytest.raises(OSError, match=r"Expected a folder with room.*Received: .*Free some room"),
        files.written_atomically(path) as unfinished,
    ):
        unfinished.write_text("half")
        raise OSError(number, os.strerror(number))
    assert path.read_text() == "old" and len(list(tmp_path.iterdir())) == 1


def test_a_read_only_folder_is_refused_before_anything_is_computed(tmp_path, monkeypatch):
    monkeypatch.setattr(files.os, "access", lambda path, mode: mode != os.W_OK)
    with pytest.raises(ValueError, match="a path in a folder that can be written to"):
        files.check_target(tmp_path / "model.keras")
    with pytest.raises(ValueError, match="a path in a folder that can be written to"):
        tfprune.PruningBackup(tmp_path / "run.weights.h5")


def test_a_file_in_the_place_of_a_folder(tmp_path):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(ValueError, match="a path in a folder that can be written to"):
        files.check_target(tmp_path / "file" / "model.keras")
    with pytest.raises(ValueError, match="a path in a folder that can be written to"):
        tfprune.PruningBackup(tmp_path / "file" / "run.weights.h5")
    assert (tmp_path / "file").read_text() == "mine"


@pytest.mark.parametrize("name", ["a" * 256, "é" * 128])
def test_names_that_are_too_long(name, tmp_path):
    with pytest.raises(ValueError, match="at most 255 bytes"):
        files.check_target(tmp_path / name)
    with pytest.raises(ValueError, match="at most 255 bytes"):
        tfprune.PruningCheckpoint(tmp_path / f"{name}.keras")


def test_the_longest_name_is_written(tmp_path):
    path = tmp_path / ("a" * 249 + ".keras")
    with files.written_atomically(path) as unfinished:
        unfinished.write_text("whole")
    assert path.read_text() == "whole"


def test_the_largest_step_is_quick():
    """The look-ahead would walk back through two thousand million steps."""
    from tfprune._base.validation import MOST_STEPS
    from tfprune.callbacks.lookahead import Lookahead

    schedule = tfprune.PolynomialDecay(0.0, 0.75, begin_step=0, end_step=4, frequency=1)
    begin = time.perf_counter()
    assert Lookahead().held(schedule, MOST_STEPS - 1) == 0.75
    assert time.perf_counter() - begin < 5
