"""The kernel that finds the lowest scores, against sorting."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from mask_support import DTYPES, F, T, by_sorting, exact_count, finite

import tfprune
from tfprune import masks
from tfprune.masks import selection


@pytest.mark.parametrize(
    ("scores", "zeros", "expected", "threshold"),
    [
        ([3, 1, 2], 0, [T, T, T], -np.inf),
        ([3, 1, 2], 1, [T, F, T], 1),
        ([3, 1, 2], 2, [T, F, F], 2),
        ([3, 1, 2], 3, [F, F, F], 3),
        ([1, 1, 1, 1], 1, [T, T, T, F], 1),
        ([1, 1, 1, 1], 3, [T, F, F, F], 1),
        ([2, 1, 1, 1], 2, [T, T, F, F], 1),
        ([0, 5, 0, 5, 0], 2, [T, T, F, T, F], 0),
        ([0, 5, 0, 5, 0], 4, [F, T, F, F, F], 5),
        ([0.0, -0.0, 0.0], 1, [T, T, F], 0),
        ([-1, -3, -2], 1, [T, F, T], -3),
        ([7], 0, [T], -np.inf),
        ([7], 1, [F], 7),
        ([1, 1 + 1e-15, 1], 2, [F, T, F], 1),
        ([5e-324, 0, 1e-323], 2, [F, F, T], 5e-324),
    ],
)
def test_keep_masks_table(scores, zeros, expected, threshold):
    (mask,), found = masks.keep_masks([np.array(scores, dtype="float64")], zeros)
    assert mask.tolist() == expected
    assert found == threshold


@pytest.mark.parametrize(
    ("scores", "zeros", "expected"),
    [
        ([[3, 1], [2, 4]], 2, [[T, F], [F, T]]),
        ([[3, 1], [2, 4]], 3, [[F, F], [F, T]]),
        ([[1, 1], [1, 1]], 1, [[T, T], [T, F]]),  # ties: the earlier array, the earlier place
        ([[1, 1], [1, 1]], 3, [[T, F], [F, F]]),
        ([[0], [9, 0], [0]], 2, [[T], [T, F], [F]]),
    ],
)
def test_keep_masks_of_several_arrays(scores, zeros, expected):
    found, _ = masks.keep_masks([np.array(part, dtype="float32") for part in scores], zeros)
    assert [mask.tolist() for mask in found] == expected


@pytest.mark.parametrize("zeros", [-1, 4])
def test_keep_masks_rejects_impossible_counts(zeros):
    with pytest.raises(
        ValueError, match=rf"Expected `zeros` from 0 to 3\. Received: zeros={zeros}"
    ):
        masks.keep_masks([np.ones(3)], zeros)


def test_scores_that_cannot_be_chosen_stay_marked():
    scores = masks.Scores(np.array([1.0, 2.0, 3.0, 4.0]), candidates=np.array([F, T, T, T]))
    assert masks.keep_masks([scores], 2)[0][0].tolist() == [T, F, F, T]
    with pytest.raises(ValueError, match="at least `zeros` units to choose from"):
        masks.keep_masks([scores], 4)


random = np.random.default_rng(3)


ARRAYS = {
    "random": random.normal(size=(300, 700)),
    "random_cube": random.normal(size=(7, 11, 13)),
    "constant": np.full((301, 999), -0.25),
    "all_zero": np.zeros((500, 500)),
    "many_ties": random.integers(-3, 4, size=(400, 400)) / 4,
    "half_pruned": random.normal(size=200_000) * (random.random(200_000) < 0.5),
    "two_values": np.where(random.random(100_001) < 0.1, 1.0, 0.5),
    "one_outlier": np.eye(1, 150_000, 149_999),
    "sorted": np.linspace(-1, 1, 130_001),
    "wide_range": 2.0 ** random.uniform(-14, 15, 90_000),
    "one_element": np.array([0.5]),
    "two_elements": np.array([[0.5], [-0.5]]),
}


SPARSITIES = [0.0, 0.1, 0.5, 0.9, 0.999]


@pytest.mark.parametrize("dtype", DTYPES, ids=lambda dtype: np.dtype(dtype).name)
@pytest.mark.parametrize("sparsity", SPARSITIES)
@pytest.mark.parametrize("name", ARRAYS)
def test_same_as_sorting(name, sparsity, dtype):
    weight = ARRAYS[name].astype(dtype)
    before = weight.copy()
    mask = tfprune.compute_mask(weight, sparsity)
    np.testing.assert_array_equal(
        mask, by_sorting(np.abs(weight), exact_count(weight.size, str(sparsity)))
    )
    np.testing.assert_array_equal(weight, before)


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("sparsity", [0.0, 0.003, 0.5, 0.98])
def test_huge_array_same_as_sorting(sparsity, ties):
    weight = np.random.default_rng(0).normal(size=10_000_000).astype("float32")
    if ties:
        weight = np.round(weight, 2)
    kept = exact_count(weight.size, str(sparsity))
    np.testing.assert_array_equal(
        tfprune.compute_mask(weight, sparsity), by_sorting(np.abs(weight), kept)
    )


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("sparsity", ["0.602", "0.7"])
def test_huge_array_with_an_earlier_mask(sparsity, ties):
    weight = np.random.default_rng(0).normal(size=10_000_000).astype("float32")
    if ties:
        weight = np.round(weight, 2)
    before = np.random.default_rng(1).random(weight.size) < 0.4
    kept = exact_count(weight.size, sparsity)
    np.testing.assert_array_equal(
        tfprune.compute_mask(weight, float(sparsity), mask=before),
        by_sorting(np.where(before, np.abs(weight), -1), kept),
    )


@pytest.mark.parametrize("bracket", [(-np.inf, -1), (-1, 0), (0.5, 0.5), (5, np.inf), (0, 1e-3)])
@pytest.mark.parametrize("zeros", [1, 50_000, 99_999, 100_000])
def test_a_missed_bracket_costs_time_only(monkeypatch, bracket, zeros):
    scores = np.abs(np.round(np.random.default_rng(1).normal(size=100_000), 3))
    monkeypatch.setattr(selection, "_bracket", lambda scores, k: bracket)
    (mask,), _ = masks.keep_masks([scores], zeros)
    np.testing.assert_array_equal(mask, by_sorting(scores, scores.size - zeros))


@given(st.lists(hnp.arrays("float32", st.integers(1, 40), elements=finite), min_size=1), st.data())
def test_several_arrays_are_as_one(arrays, data):
    whole = np.concatenate(arrays)
    zeros = data.draw(st.integers(0, whole.size))
    (expected,), threshold = masks.keep_masks([whole], zeros)
    found, also = masks.keep_masks(arrays, zeros)
    np.testing.assert_array_equal(np.concatenate(found), expected)
    assert also == threshold


@settings(max_examples=20)
@given(st.integers(0, 2**32), st.lists(st.integers(1, 200_000), min_size=2, max_size=4), st.data())
def test_several_large_arrays_are_as_one(seed, sizes, data):
    drawn = np.random.default_rng(seed)
    levels = data.draw(st.sampled_from([1, 3, 1000, 10**9]))
    arrays = [drawn.integers(0, levels, size).astype("float32") for size in sizes]
    whole = np.concatenate(arrays)
    zeros = data.draw(st.integers(0, whole.size))
    found, _ = masks.keep_masks(arrays, zeros)
    np.testing.assert_array_equal(np.concatenate(found), by_sorting(whole, whole.size - zeros))
