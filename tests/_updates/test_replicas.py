"""Where replicas hold copies of the weights, each chooses its masks from its own copy."""

import pathlib
import subprocess
import sys

import numpy as np
import pytest


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Arrays of two replicas whose weights differ, before and after an update to 50 %."""
    folder = tmp_path_factory.mktemp("replicas")
    # TensorFlow starts with two logical devices there.
    script = pathlib.Path(__file__).parents[1].joinpath("replicas_truth.py")
    words = [sys.executable, str(script), str(folder)]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "overhead" not in done.stderr
    return folder


def copies(folder, case, replica):
    """`(weights before, weights after, masks)` of one replica."""
    with np.load(folder / f"{case}.npz") as arrays:
        number = sum(name.startswith("after-mask-") for name in arrays) // 2
        return [
            [arrays[f"{kind}-{place}-{replica}"] for place in range(number)]
            for kind in ("before-weight", "after-weight", "after-mask")
        ]


def largest(scores, kept):
    """bool array that marks so many of the largest scores."""
    order = np.argsort(-scores, axis=None)
    mask = np.zeros(scores.size, bool)
    mask[order[:kept]] = True
    return mask.reshape(scores.shape)


@pytest.mark.parametrize("replica", [0, 1])
def test_each_weight_by_itself(folder, replica):
    before, after, masks = copies(folder, "local", replica)
    assert len(masks) == 2
    for old, new, mask in zip(before, after, masks, strict=True):
        np.testing.assert_array_equal(mask, largest(abs(old), old.size // 2))
        np.testing.assert_array_equal(new, np.where(mask, old, 0))


@pytest.mark.parametrize("replica", [0, 1])
def test_all_weights_together(folder, replica):
    before, after, masks = copies(folder, "global", replica)
    scores = np.concatenate([abs(old).ravel() for old in before])
    found = np.concatenate([mask.ravel() for mask in masks])
    np.testing.assert_array_equal(found, largest(scores, scores.size // 2))
    for old, new, mask in zip(before, after, masks, strict=True):
        np.testing.assert_array_equal(new, np.where(mask, old, 0))


@pytest.mark.parametrize("replica", [0, 1])
def test_filters(folder, replica):
    before, after, masks = copies(folder, "filter", replica)
    (kernel,) = (place for place, mask in enumerate(masks) if mask.shape == (3, 3, 4, 8))
    kept = largest(abs(before[kernel]).mean(axis=(0, 1, 2)), 4)
    for old, new, mask in zip(before, after, masks, strict=True):
        np.testing.assert_array_equal(mask, np.broadcast_to(kept, mask.shape))
        np.testing.assert_array_equal(new, np.where(mask, old, 0))


def test_the_replicas_chose_differently(folder):
    for case in ("local", "global", "filter"):
        first, second = (copies(folder, case, replica)[2] for replica in (0, 1))
        assert any(not np.array_equal(a, b) for a, b in zip(first, second, strict=True))
