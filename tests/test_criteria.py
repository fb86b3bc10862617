"""Criteria: scores on literal tables, and what a criterion of one's own has to do."""

from dataclasses import dataclass

import ml_dtypes
import numpy as np
import pytest

import tfprune
from tfprune import criteria

T, F = True, False


@pytest.mark.parametrize(
    ("weight", "scores"),
    [
        ([-2.0, 1.0, 0.0], [2.0, 1.0, 0.0]),
        ([[-0.5], [3.0]], [[0.5], [3.0]]),
        ([-0.0], [0.0]),
    ],
)
@pytest.mark.parametrize("dtype", ["float16", ml_dtypes.bfloat16, "float32", "float64"])
def test_magnitude(weight, scores, dtype):
    weight = np.array(weight, dtype=dtype)
    found = tfprune.Magnitude()(weight)
    assert found.dtype == weight.dtype
    assert not np.shares_memory(found, weight)
    assert found.tolist() == scores
    assert not np.signbit(found.astype("float32")).any()


@dataclass(frozen=True)
class Nearest(criteria.Criterion):
    """Keeps what lies nearest to `center`."""

    center: float = 0.0
    elementwise = True

    def __call__(self, weight):
        return -np.abs(weight - self.center)


@dataclass(frozen=True)
class ShareOfColumn(criteria.Criterion):
    """Needs the whole weight at once."""

    def __call__(self, weight):
        return np.abs(weight) / np.abs(weight).sum(axis=0)


@dataclass(frozen=True)
class Inverse(criteria.Criterion):
    elementwise = True

    def __call__(self, weight):
        with np.errstate(divide="ignore"):
            return 1 / weight


@pytest.mark.parametrize(
    ("criterion", "weight", "expected"),
    [
        ("magnitude", [[1, -8], [2, 4]], [[F, T], [F, T]]),
        (Nearest(), [[1, -8], [2, 4]], [[T, F], [T, F]]),
        (Nearest(4.0), [[1, -8], [2, 4]], [[F, F], [T, T]]),
        (ShareOfColumn(), [[1, 80], [2, 10]], [[F, T], [T, F]]),
    ],
)
def test_criterion_decides(criterion, weight, expected):
    weight = np.array(weight, dtype="float32")
    assert tfprune.compute_mask(weight, 0.5, criterion=criterion).tolist() == expected


def test_elementwise_scores_do_not_depend_on_pieces():
    weight = np.random.default_rng(0).normal(size=(600, 700)).astype("float32")
    mask = tfprune.compute_mask(weight, 0.7, criterion=Nearest(0.5))
    expected = np.sort(np.abs(weight - np.float32(0.5)), axis=None)[: mask.sum()]
    np.testing.assert_array_equal(np.sort(np.abs(weight - np.float32(0.5))[mask]), expected)


@pytest.mark.parametrize("size", [4, 200_000])
@pytest.mark.parametrize("pattern", ["unstructured", "filter"])
def test_scores_have_to_be_finite(size, pattern):
    weight = np.ones((size // 2, 2), dtype="float32")
    weight[-1, -1] = 0
    with pytest.raises(ValueError, match=r"Expected finite weights and scores"):
        tfprune.compute_mask(weight, 0.5, criterion=Inverse(), pattern=pattern)


def test_criterion_without_call_says_so():
    with pytest.raises(NotImplementedError, match=r"`__call__\(weight\)`, and Criterion does not"):
        criteria.Criterion()(np.ones(3))
