"""Kills training at any moment, resumes it, and compares with a training that was left alone.

    python benchmarks/kill_and_resume.py --kills 100

Each training runs in a process of its own, which gets `kill -9` at a moment drawn from a fixed
seed: at a random time, or, for 4 in 10, just when a file is being written. The next process goes on
from what is on the disk. In the end weights, masks, steps, random states and the optimizer's values
have to be equal bit for bit. `keras.callbacks.BackupAndRestore`, which overwrites two files in
turn, is measured too; the program fails for the others alone. A run that was broken off goes on
from its own results.
"""

import argparse
import contextlib
import functools
import hashlib
import json
import multiprocessing
import os
import pathlib
import sys
import tempfile
import time
import traceback
import warnings

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import harness
import keras
import numpy as np
from keras import layers
from rich.console import Console
from rich.table import Table

import tfprune
from tfprune._wrapping.wrapper import mask_owners

EPOCHS, STEPS, BATCH = 6, 4, 4
LONGEST = 3000  # Seconds; a machine that does other things too may let a training wait.


def data():
    random = np.random.default_rng(0)
    samples = STEPS * BATCH
    x, y = random.normal(size=(samples, 6)), random.normal(size=(samples, 2))
    return x.astype("float32"), y.astype("float32")


def plain_model():
    keras.utils.set_random_seed(3)
    return keras.Sequential(
        [
            keras.Input((6,)),
            layers.Dense(32, activation="relu", name="first"),
            layers.Dropout(0.3, seed=5),
            layers.Dense(2, name="last"),
        ]
    )


def wrapped():
    schedule = tfprune.PolynomialDecay(0.0, 0.75, 0, EPOCHS * STEPS - 4, frequency=3)
    model = tfprune.prune_low_magnitude(plain_model(), schedule)
    model.compile("adam", "mse", run_eagerly=True)
    return model


def fit(model, callbacks, first=0):
    x, y = data()
    model.fit(
        x,
        y,
        batch_size=BATCH,
        epochs=EPOCHS,
        initial_epoch=first,
        shuffle=False,
        verbose=0,
        callbacks=callbacks,
    )


def digest(arrays):
    found = hashlib.sha256()
    for array in arrays:
        found.update(np.ascontiguousarray(array).tobytes())
    return found.hexdigest()


def digest_of(model):
    """Everything that a training leaves, as one text."""
    states = [np.array([owner.pruning_step for owner in mask_owners(model)])]
    variables = [*model.weights, *model.optimizer.variables]
    return digest([*states, *(keras.ops.convert_to_numpy(v) for v in variables)])


# -- Trainings: each goes on from `folder`, and returns a digest -----------------------------------


def backup(folder):
    """`fit` with PruningBackup."""
    model = wrapped()
    keeping = tfprune.PruningBackup(folder / "run.weights.h5", delete_checkpoint=False)
    fit(model, [keeping, tfprune.UpdatePruningStep()])
    return digest_of(model)


def rigl(folder):
    """The same with dynamic sparse training."""
    callback = tfprune.RigL(0.5, update_every=3, data=data())
    model = callback.prune(plain_model())
    model.compile("adam", "mse", run_eagerly=True)
    keeping = tfprune.PruningBackup(folder / "run.weights.h5", delete_checkpoint=False)
    fit(model, [keeping, callback])
    return digest_of(model)


def admm(folder):
    """The same with ADMM."""
    callback = tfprune.pruners.ADMM(0.75, EPOCHS * STEPS - 4, rho=0.1, every=3)
    model = callback.prune(plain_model())
    model.compile("adam", "mse", run_eagerly=True)
    keeping = tfprune.PruningBackup(folder / "run.weights.h5", delete_checkpoint=False)
    fit(model, [keeping, callback])
    return digest_of(model)


def keras_backup(folder):
    """`fit` with Keras's own callback, as careful as it can be."""
    model = wrapped()
    keeping = keras.callbacks.BackupAndRestore(
        str(folder / "backup"), double_checkpoint=True, delete_checkpoint=False
    )
    fit(model, [keeping, tfprune.UpdatePruningStep()])
    return digest_of(model)


def one_file(folder):
    """Saves the whole model after each epoch, each time in a new `.keras` file."""

    class Saving(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            path = folder / f"epoch_{epoch:02}.keras"
            self.model.save(path.with_name(f"half_{path.name}"))
            os.replace(path.with_name(f"half_{path.name}"), path)

    known = sorted(folder.glob("epoch_*.keras"))
    model = keras.saving.load_model(known[-1]) if known else wrapped()
    model.run_eagerly = True
    if len(known) < EPOCHS:
        fit(model, [tfprune.UpdatePruningStep(), Saving()], len(known))
    return digest_of(model)


def best(folder):
    """PruningCheckpoint over one name: the file that is there can always be loaded."""
    path = folder / "best.keras"
    if path.exists():
        keras.saving.load_model(path)
    schedule = tfprune.ConstantSparsity(0.5, 0, frequency=1)
    model = tfprune.prune_low_magnitude(plain_model(), schedule)
    model.compile("adam", "mse", run_eagerly=True)
    saving = tfprune.PruningCheckpoint(path, monitor="loss", save_best_only=False)
    fit(model, [tfprune.UpdatePruningStep(), saving])
    return digest_of(keras.saving.load_model(path))


def lottery(folder):
    """A lottery ticket of three rounds."""

    def train(model, callback):
        model.compile("adam", "mse", run_eagerly=True)
        x, y = data()
        model.fit(x, y, batch_size=BATCH, epochs=2, shuffle=False, verbose=0, callbacks=[callback])

    ticket = tfprune.LotteryTicket(plain_model(), 0.8, rounds=3)
    tickets = ticket.run(train, path=folder / "tickets")
    return digest(np.asarray(v) for v in tickets.ticket(trained=True).get_weights())


def sensitivity(folder):
    """A sensitivity analysis."""
    model = plain_model()
    model.compile("adam", "mse", run_eagerly=True)
    found = tfprune.sensitivity(
        model, data(), sparsities=(0.25, 0.5, 0.75), path=folder / "record.json", verbose=0
    )
    return hashlib.sha256(json.dumps(found.to_dict(), sort_keys=True).encode()).hexdigest()


def loss(model):
    return model.evaluate(*data(), verbose=0, return_dict=True)


def train_a_little(model, callback):
    x, y = data()
    model.fit(x, y, batch_size=BATCH, epochs=1, shuffle=False, verbose=0, callbacks=[callback])


def searched(search, folder):
    """Returns the result of a search that also trains."""
    model = plain_model()
    model.compile("adam", "mse", run_eagerly=True)
    found = search(model).run(loss, path=folder / "search", train=train_a_little, verbose=0)
    return digest(np.asarray(v) for v in found.model.get_weights())


SEARCHES = {
    "SensitivitySearch": lambda model: tfprune.pruners.SensitivitySearch(
        model, {"macs": 0.5}, levels=3
    ),
    "SimulatedAnnealing": lambda model: tfprune.pruners.SimulatedAnnealing(
        model, {"macs": 0.5}, evaluations=8
    ),
    "NetAdapt": lambda model: tfprune.pruners.NetAdapt(
        model, {"macs": 0.5}, steps=3, train_candidates=True
    ),
    "AutoCompress": lambda model: tfprune.pruners.AutoCompress(
        model, {"macs": 0.5}, admm_steps=STEPS, rounds=2, evaluations=4
    ),
}
WAYS = {
    "PruningBackup": backup,
    "RigL with PruningBackup": rigl,
    "ADMM with PruningBackup": admm,
    "a .keras file per epoch": one_file,
    "PruningCheckpoint": best,
    "LotteryTicket": lottery,
    "sensitivity": sensitivity,
    **{name: functools.partial(searched, search) for name, search in SEARCHES.items()},
    "keras.callbacks.BackupAndRestore": keras_backup,
}
# It may start from scratch or not at all; the library's own callback prevents this.
MEASURED = ("keras.callbacks.BackupAndRestore",)


# -- Processes -------------------------------------------------------------------------------------


def start(way, folder):
    """Starts a process that trains and writes its outcome to `result` in the folder."""
    # A fork spares the imports; this process itself computes nothing before.
    process = multiprocessing.get_context("fork").Process(target=train_here, args=(way, folder))
    process.start()
    return process


def train_here(way, folder):
    """Runs in such a process."""
    with open(os.devnull, "w") as nowhere:
        os.dup2(nowhere.fileno(), 1)
        os.dup2(nowhere.fileno(), 2)
    (folder / "began").touch()
    try:
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            found = WAYS[way](folder)
        said = [str(warning.message) for warning in told if "Expected" in str(warning.message)]
        (folder / "result").write_text(json.dumps({"digest": found, "warnings": said}))
    except BaseException:
        (folder / "error").write_text(traceback.format_exc())


def files(folder):
    """Names and sizes of all files: they change while one is written."""
    found = {}
    for path in folder.rglob("*"):
        with contextlib.suppress(OSError):
            found[path] = (path.stat().st_size, path.stat().st_mtime_ns)
    return found


def kill(child, folder, moment, at_a_save, limit):
    """Kills a process at a moment after its imports; returns whether it was still there."""
    begin = before = None
    while begin is None or time.monotonic() - begin < limit:
        if child.exitcode is not None:
            return False
        if begin is None:
            begin = time.monotonic() if (folder / "began").exists() else None
        elif time.monotonic() - begin >= moment:
            if not at_a_save:
                break
            now = files(folder)
            if before is not None and now != before:
                break
            before = now
        time.sleep(0.0005)
    child.kill()
    child.join()
    return True


def run_to_the_end(way, folder):
    """Trains in a process; returns what it wrote and the seconds after its imports."""
    child = start(way, folder)
    while not (folder / "began").exists() and child.exitcode is None:
        time.sleep(0.01)
    begin = time.monotonic()
    child.join(LONGEST)
    seconds = time.monotonic() - begin
    if child.exitcode is None:
        child.kill()
        return {"error": f"no end after {LONGEST} s"}, seconds
    if (folder / "result").exists():
        return json.loads((folder / "result").read_text()), seconds
    return {"error": (folder / "error").read_text().strip().splitlines()[-1]}, seconds


def tried(way, numbers):
    """Kills and resumes; yields an outcome for each number of a kill.

    Args:
        way: Name of the training.
        numbers: Numbers of the kills. Each is a seed, so that a run which was broken off can go on.

    Yields:
        `(counted, wrong)`: what to count, and what went wrong or `None`.
    """
    with tempfile.TemporaryDirectory() as place:
        whole = pathlib.Path(place) / "whole"
        whole.mkdir()
        expected, seconds = run_to_the_end(way, whole)
        if "error" in expected:
            raise RuntimeError(f"{way} fails when it is left alone: {expected['error']}")
        for number in numbers:
            random = np.random.default_rng(number)
            folder = pathlib.Path(place) / f"killed_{number}"
            folder.mkdir()
            child = start(way, folder)
            moment, at_a_save = random.uniform(0, 1) * seconds, random.random() < 0.4
            killed = kill(child, folder, moment, at_a_save, 2 * seconds + 5)
            for name in ("began", "result", "error"):
                (folder / name).unlink(missing_ok=True)
            found, _ = run_to_the_end(way, folder)
            equal = found.get("digest") == expected["digest"]
            counted = {"tried": 1, "killed": killed, "at a save": at_a_save, "bit-equal": equal}
            wrong = None if equal else found.get("error") or f"other values; {found['warnings']}"
            yield counted, wrong


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=100, help="of each way to train (100)")
    parser.add_argument("--ways", nargs="*", default=list(WAYS), choices=list(WAYS))
    parser.add_argument("--output", type=pathlib.Path, default=harness.RESULTS)
    arguments = parser.parse_args()
    columns = ("tried", "killed", "at a save", "bit-equal")
    table = Table("way", *columns, title="Killed and resumed")
    path = arguments.output / "kill_and_resume.json"
    arguments.output.mkdir(exist_ok=True, parents=True)
    # Kills of an earlier run count, because all of them take hours.
    results = json.loads(path.read_text()) if path.exists() else {}
    for way in arguments.ways:
        known = results.setdefault(way, {**dict.fromkeys(columns, 0), "wrong": []})
        for counted, wrong in tried(way, range(known["tried"], arguments.kills)):
            for column in columns:
                known[column] += int(counted[column])
            if wrong:
                known["wrong"].append(wrong)
                print(f"{way}: {wrong[:300]}", flush=True)
            path.write_text(json.dumps(results, indent=1) + "\n")
        table.add_row(way, *(str(known[column]) for column in columns))
    Console().print(table)
    required = set(arguments.ways) - set(MEASURED)
    sys.exit(any(results[way]["wrong"] for way in required))


if __name__ == "__main__":
    main()
