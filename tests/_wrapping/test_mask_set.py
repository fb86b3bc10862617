"""Masks in files: damaged ones are refused, and nothing changes."""

import io
import zipfile

import h5py
import keras
import pytest
from keras import layers
from pruned_models import at_once, equal, functional, masks_of, values

import tfprune

pytestmark = pytest.mark.usefixtures("fresh")


def rewrite_weights(path, change):
    """Changes the HDF5 file inside a .keras file."""
    with zipfile.ZipFile(path) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    content = io.BytesIO(parts["model.weights.h5"])
    with h5py.File(content, "r+") as file:
        names = []
        file.visit(names.append)
        mask = next(name for name in sorted(names) if name.endswith("mask_0"))
        change(file, mask)
    parts["model.weights.h5"] = content.getvalue()
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in parts.items():
            archive.writestr(name, data)


def cut_short(file, name):
    data = file[name][:-1]
    del file[name]
    file[name] = data


def other_type(file, name):
    data = file[name][:].astype("float32")
    del file[name]
    file[name] = data


def missing(file, name):
    del file[name]


@pytest.mark.parametrize(
    ("change", "received"),
    [
        (cut_short, r"uint8 data of shape \(5,\)"),
        (other_type, r"float32 data of shape \(6,\)"),
        (missing, "no mask"),
    ],
    ids=["cut short", "other type", "missing"],
)
def test_damaged_mask(change, received, tmp_path):
    path = tmp_path / "model.keras"
    plain = keras.Sequential([keras.Input((6,)), layers.Dense(8, name="only")])
    pruned = tfprune.prune_low_magnitude(plain, at_once())
    tfprune.UpdatePruningStep(pruned)
    pruned.save(path)
    rewrite_weights(path, lambda file, name: None)
    equal(values(keras.saving.load_model(path)), values(pruned))
    rewrite_weights(path, change)
    message = (
        "Expected the mask of only/kernel, 48 bits, in the file. "
        f"Received: {received}. The file is damaged"
    )
    with pytest.raises(ValueError, match=message):
        keras.saving.load_model(path)
    other = tfprune.prune_low_magnitude(plain, at_once())
    masks = masks_of(other)
    with pytest.raises(ValueError, match=message):
        other.load_weights(path)
    equal(masks_of(other), masks)


@pytest.mark.parametrize("kept", [0.3, 0.9])
def test_truncated_file(kept, tmp_path):
    path = tmp_path / "model.keras"
    pruned = tfprune.prune_low_magnitude(functional(), at_once())
    pruned.save(path)
    path.write_bytes(path.read_bytes()[: int(kept * path.stat().st_size)])
    before = values(pruned)
    for load in (pruned.load_weights, lambda p: tfprune.load_plain_weights(pruned, p)):
        with pytest.raises((ValueError, OSError, zipfile.BadZipFile)):
            load(path)
        equal(values(pruned), before)
