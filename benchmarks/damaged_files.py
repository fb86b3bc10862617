"""Damages files of a wrapped model, one place at a time, and records whether loading notices.

    python benchmarks/damaged_files.py --places 500

A file is noticed to be damaged if loading raises or warns. It is silent if it loads with weights,
masks, steps, random states or optimizer values other than those that were written.
"""

import argparse
import collections
import json
import os
import pathlib
import sys
import tempfile
import warnings

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import h5py
import harness
import keras
import numpy as np
from keras import layers
from rich.console import Console
from rich.table import Table

import tfprune
from tfprune._wrapping.wrapper import mask_owners


def make(seed):
    keras.utils.set_random_seed(seed)
    model = keras.Sequential(
        [
            keras.Input((6, 6, 2)),
            layers.Conv2D(4, 3),
            layers.BatchNormalization(),
            layers.Flatten(),
            layers.Dropout(0.3, seed=1),
            layers.Dense(8),
            layers.Dense(1),
        ]
    )
    model = tfprune.prune_low_magnitude(model, tfprune.PolynomialDecay(0, 0.75, 0, 6, frequency=1))
    model.compile("adam", "mse")
    model.optimizer.build(model.trainable_variables)
    return model


def state(model):
    owners = mask_owners(model)
    variables = [*model.weights, *model.optimizer.variables]
    return [
        *(keras.ops.convert_to_numpy(variable) for variable in variables),
        *(np.array(owner.pruning_step) for owner in owners),
        *(np.array(owner.mask_set.seeds or []) for owner in owners),
    ]


def same(one, other):
    pairs = zip(one, other, strict=True)
    return all(np.array_equal(a, b, equal_nan=a.dtype.kind == "f") for a, b in pairs)


def places(path):
    """`[(kind, first byte, last byte)]` of the values in an HDF5 file."""
    found = []

    def visit(name, item):
        if not isinstance(item, h5py.Dataset) or item.id.get_offset() is None:
            return
        own = name.rpartition("/")[2]
        kind = "weights"
        if name.startswith("optimizer"):
            kind = "optimizer"
        elif own.startswith("mask_"):
            kind = "masks"
        elif own in ("pruning_step", "seed_states", "epoch"):
            kind = "step and random states"
        elif own.endswith(("checksum", "checksums")):
            kind = "checksums"
        begin = item.id.get_offset()
        found.append((kind, begin, begin + item.id.get_storage_size()))

    with h5py.File(path) as file:
        file.visititems(visit)
    return found


def kind_of(known, place):
    return next((kind for kind, begin, end in known if begin <= place < end), "structure")


def load(model, path):
    if path.suffix == ".keras":
        return keras.saving.load_model(path)
    model.load_weights(path)
    return model


def try_all(path, number, random, model, folder):
    """`{(kind, outcome): count}` for damaged copies of a file."""
    content = path.read_bytes()
    known = places(path) if path.suffix == ".h5" else []
    expected = state(load(model, path))
    counts = collections.Counter()
    for turn in range(number):
        # Every second one in the values, which are the smaller part of a small file.
        if known and turn % 2:
            _, begin, end = known[random.integers(len(known))]
            place = int(random.integers(begin, end))
        else:
            place = int(random.integers(len(content)))
        damaged = bytearray(content)
        damaged[place] ^= int(random.integers(1, 256))
        copy = folder / f"{turn}{''.join(path.suffixes)}"
        copy.write_bytes(damaged)
        kind = kind_of(known, place) if known else "archive"
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            warnings.simplefilter("error", UserWarning)
            try:
                loaded = load(model, copy)
                outcome = "no change" if same(state(loaded), expected) else "silent"
            except Exception:
                # Whatever HDF5, Keras or tfprune says of it: it was noticed.
                outcome = "noticed"
        counts[kind, outcome] += 1
        copy.unlink()
    return counts


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--places", type=int, default=500, help="in each file (500)")
    parser.add_argument("--output", type=pathlib.Path, default=harness.RESULTS)
    arguments = parser.parse_args()
    random = np.random.default_rng(0)
    trained = make(0)
    x, y = random.normal(size=(16, 6, 6, 2)), random.normal(size=(16, 1))
    trained.fit(x, y, batch_size=2, verbose=0, callbacks=[tfprune.UpdatePruningStep()])
    table = Table("file", "place", "tried", "noticed", "no change", "silent", title="Damaged files")
    results = {}
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        for path in (folder / "model.weights.h5", folder / "model.keras"):
            save = trained.save if path.suffix == ".keras" else trained.save_weights
            save(path)
            counts = try_all(path, arguments.places, random, make(1), folder)
            for kind in sorted({kind for kind, _ in counts}):
                row = [counts[kind, outcome] for outcome in ("noticed", "no change", "silent")]
                table.add_row(path.name, kind, str(sum(row)), *map(str, row))
                results[f"{path.name}: {kind}"] = dict(
                    zip(("noticed", "no change", "silent"), row, strict=True)
                )
    Console().print(table)
    arguments.output.mkdir(exist_ok=True, parents=True)
    text = json.dumps(results, indent=1)
    (arguments.output / "damaged_files.json").write_text(text + "\n")
    sys.exit(any(row["silent"] for row in results.values()))


if __name__ == "__main__":
    main()
