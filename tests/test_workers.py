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


@pytest.mark.parametrize("pattern", ["single", "filters"])
@pytest.mark.parametrize("library", ["tensorflow", "torch"])
def test_both_processes_end_with_the_same_weights_and_masks(library, pattern, trained):
    folder = trained(library)
    (one, other) = (np.load(folder / f"{library}_{pattern}_{n}.npz") for n in (0, 1))
    arrays = [(one[name], other[name]) for name in one.files]
    assert len(arrays) >= 6
    for first, second in arrays:
        np.testing.assert_array_equal(first, second)
    masks = [first for first, _ in arrays if first.dtype == bool]
    assert masks and not all(mask.all() for mask in masks)
    reports = [json.loads((folder / f"{library}_{pattern}_{n}.json").read_text()) for n in (0, 1)]
    # The filters of the output stay.
    assert reports == ([0.75, 0.75] if pattern == "single" else [0.5, 0.5])


def test_fully_shard_is_refused_with_the_reason(trained):
    folder = trained("torch")
    for process in (0, 1):
        found = json.loads((folder / f"sharded_{process}.json").read_text())
        # The reason: what trains is not what Keras's variables hold.
        assert "DTensor" in found["parameters"] and found["variable"] == "Parameter"
        assert "after fully_shard" in found["said"]
