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
    # TensorFlow warns of slow ways to run functions.
    assert not any(word in done.stderr for word in ("overhead", "retracing"))
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
    assert len(masks) == 3
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
    kernels = [old for old in before if old.ndim > 1]
    means = {len(old.T): abs(old.reshape(-1, len(old.T))).mean(axis=0) for old in kernels}
    assert sorted(means) == [8, 12] and len(masks) == 4
    for old, new, mask in zip(before, after, masks, strict=True):
        filters = mask.shape[-1]
        kept = largest(means[filters], filters // 2)
        np.testing.assert_array_equal(mask, np.broadcast_to(kept, mask.shape))
        np.testing.assert_array_equal(new, np.where(mask, old, 0))


def test_the_replicas_chose_differently(folder):
    for case in ("local", "global", "filter"):
        first, second = (copies(folder, case, replica)[2] for replica in (0, 1))
        assert any(not np.array_equal(a, b) for a, b in zip(first, second, strict=True))


def test_connections_are_dropped_and_grown_as_on_the_host(folder):
    host, device = (np.load(folder / f"rigl-{place}.npz") for place in ("host", "device"))
    with host, device:
        assert len(host.files) == 8
        for name in host.files:
            np.testing.assert_array_equal(device[name], host[name])
            np.testing.assert_array_equal(device[name], device[f"{name[:-1]}0"])
