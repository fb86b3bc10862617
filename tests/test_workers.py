"""Several processes with the same weights: TensorFlow workers and PyTorch ranks stay bit-equal."""

import json
import pathlib

import numpy as np
import pytest
from test_devices import run_together

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("workers")]

SCRIPT = pathlib.Path(__file__).with_name("workers_truth.py")


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A function that trains in two processes on a library, once, and returns their folder."""
    folder = tmp_path_factory.mktemp("workers")
    done = set()

    def train(library):
        pytest.importorskip(library)
        if library not in done:
            run_together(SCRIPT, folder, 2, library)
            done.add(library)
        return folder

    return train


def read_both(folder, name):
    """The arrays of both processes, and the sparsity that each reports."""
    files = [np.load(folder / f"{name}_{n}.npz") for n in (0, 1)]
    reports = [json.loads((folder / f"{name}_{n}.json").read_text()) for n in (0, 1)]
    return [(files[0][key], files[1][key]) for key in files[0].files], reports


@pytest.mark.parametrize("pattern", ["single", "filters"])
@pytest.mark.parametrize("library", ["tensorflow", "torch"])
def test_both_processes_end_with_the_same_weights_and_masks(library, pattern, trained):
    arrays, reports = read_both(trained(library), f"{library}_{pattern}")
    assert len(arrays) >= 6
    for first, second in arrays:
        np.testing.assert_array_equal(first, second)
    masks = [first for first, _ in arrays if first.dtype == bool]
    assert masks and not all(mask.all() for mask in masks)
    # The filters of the output stay.
    assert reports == ([0.75, 0.75] if pattern == "single" else [0.5, 0.5])


def test_tensorflow_workers_choose_the_same_masks_where_the_weights_are(trained):
    arrays, reports = read_both(trained("tensorflow"), "tensorflow_device")
    expected, _ = read_both(trained("tensorflow"), "tensorflow_single")
    for own, others in zip(arrays, expected, strict=True):
        for array in own:
            np.testing.assert_array_equal(array, others[0])
    assert reports == [0.75, 0.75]


def fit_without_pruning(folder):
    """What Keras says to `fit` on two workers; empty if it trains."""
    return [json.loads((folder / f"fit_{n}.json").read_text()) for n in (0, 1)]


@pytest.mark.xfail(strict=True, reason="keras#20585: fit hands PerReplica values to layers")
def test_keras_fits_on_two_tensorflow_workers_without_pruning(trained):
    # When Keras can, this test fails: then docs/guide/many_devices.md has to say so.
    assert fit_without_pruning(trained("tensorflow")) == ["", ""]


def test_fit_on_two_tensorflow_workers(trained):
    folder = trained("tensorflow")
    said = fit_without_pruning(folder)
    if any(said):
        assert all("PerReplica" in one for one in said)
        pytest.skip("this Keras cannot fit on two workers, without pruning either: keras#20585")
    arrays, reports = read_both(folder, "tensorflow_fit")
    for first, second in arrays:
        np.testing.assert_array_equal(first, second)
    assert reports == [0.75, 0.75]


def test_fully_shard_is_refused_with_the_reason(trained):
    folder = trained("torch")
    for process in (0, 1):
        found = json.loads((folder / f"sharded_{process}.json").read_text())
        # The reason: what trains is not what Keras's variables hold.
        assert "DTensor" in found["parameters"] and found["variable"] == "Parameter"
        assert "after fully_shard" in found["said"]
