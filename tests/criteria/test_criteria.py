"""Criteria: scores on literal tables, and what a criterion of one's own has to do."""

import tracemalloc
from dataclasses import dataclass

import ml_dtypes
import numpy as np
import pytest

import tfprune
from tfprune import criteria
from tfprune.patterns import KernelAxes

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


# -- The formulas, in float64 ----------------------------------------------------------------------

RANDOM = np.random.default_rng(1)
SHAPE = (3, 2, 5, 7)
WEIGHT, OTHER = (RANDOM.normal(size=SHAPE).astype("float32") for _ in range(2))
SQUARE = np.abs(OTHER)


def of_filters(score):
    """A score of each filter of WEIGHT, at each of its weights."""
    filters = WEIGHT.reshape(-1, 7).T.astype("float64")
    return np.broadcast_to(score(filters), SHAPE)


def distances(filters):
    return [sum(np.linalg.norm(one - other) for other in filters) for one in filters]


def by_definition_of_lamp(weight):
    squares = np.square(weight.astype("float64")).ravel()
    return np.array([w / squares[squares >= w].sum() for w in squares]).reshape(weight.shape)


W, W0 = WEIGHT.astype("float64"), OTHER.astype("float64")
CASES = {
    "magnitude": (None, np.abs(W)),
    "large_final": (None, np.abs(W)),
    "squared_final": (None, W**2),
    "small_final": (None, -np.abs(W)),
    "large_init": (OTHER, np.abs(W0)),
    "small_init": (OTHER, -np.abs(W0)),
    "large_init_large_final": (OTHER, np.minimum(np.abs(W), np.abs(W0))),
    "small_init_small_final": (OTHER, -np.maximum(np.abs(W), np.abs(W0))),
    "magnitude_increase": (OTHER, np.abs(W) - np.abs(W0)),
    "movement": (OTHER, np.abs(W - W0)),
    "movmag": (OTHER, np.abs(W * (W - W0))),
    "random": (0, None),
    "lamp": (None, by_definition_of_lamp(WEIGHT)),
    "l1_filter": (KernelAxes(), of_filters(lambda f: np.abs(f).sum(axis=1))),
    "l2_filter": (KernelAxes(), of_filters(lambda f: np.linalg.norm(f, axis=1))),
    "fpgm": (KernelAxes(), of_filters(distances)),
    "batch_norm_scale": (OTHER, np.abs(W0)),
    "apoz": (SQUARE, -SQUARE.astype("float64")),
    "mean_activation": (OTHER, W0),
    "gradient": (OTHER, np.abs(W0)),
    "gradient_momentum": (OTHER, np.abs(W0)),
    "saliency": (OTHER, np.abs(W * W0)),
    "taylor": (SQUARE, W**2 * SQUARE),
    "hessian_diagonal": (SQUARE, W**2 * SQUARE / 2),
}


@pytest.mark.parametrize("name", criteria.built_in())
def test_formula(name):
    evidence, expected = CASES[name]
    criterion = criteria.get(name)
    assert len(criterion.needs) == (evidence is not None)
    scores = criterion(WEIGHT, *([] if evidence is None else [evidence]))
    assert scores.shape == SHAPE
    if expected is not None:
        np.testing.assert_allclose(scores, expected, rtol=2e-6, atol=1e-6)


@pytest.mark.parametrize(
    ("axes", "shape"),
    [
        (KernelAxes((-1,), (-2,)), (3, 2, 5, 7)),  # transposed
        (KernelAxes((-2,), (-2, -1)), (3, 2, 5, 2)),  # depthwise
        (KernelAxes((0,), (1, 2)), (6, 4, 3)),  # heads
    ],
)
@pytest.mark.parametrize("name", ["l1_filter", "l2_filter", "fpgm"])
def test_filters_of_other_kernels(axes, shape, name):
    weight = RANDOM.normal(size=shape)
    outputs = axes.resolve(weight.ndim).outputs
    rest = tuple(axis for axis in range(weight.ndim) if axis not in outputs)
    kept = np.moveaxis(weight, outputs, range(len(outputs)))
    filters = kept.reshape(int(np.prod(kept.shape[: len(outputs)])), -1)
    score = {
        "l1_filter": lambda f: np.abs(f).sum(axis=1),
        "l2_filter": lambda f: np.linalg.norm(f, axis=1),
        "fpgm": distances,
    }[name]
    expected = np.reshape(score(filters), kept.shape[: len(outputs)])
    found = criteria.get(name)(weight, axes)
    assert (found == found.max(axis=rest, keepdims=True)).all()
    np.testing.assert_allclose(found.max(axis=rest), expected, rtol=1e-6)


def test_near_filters_are_told_apart():
    """The squares of the distances cancel, all but a millionth of them."""
    weight = 1 + 1e-3 * RANDOM.normal(size=(50, 20)).astype("float32")
    expected = distances(weight.T.astype("float64"))
    np.testing.assert_allclose(criteria.FPGM()(weight, KernelAxes())[0], expected, rtol=1e-6)


@pytest.mark.parametrize("shape", [(4, 6000), (1500, 1500)])
def test_fpgm_takes_memory_linear_in_the_layer(shape):
    weight = RANDOM.normal(size=shape).astype("float32")
    tracemalloc.start()
    criteria.FPGM()(weight, KernelAxes())
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    # In float64, where the distances between all pairs take 288 MB and 18 MB.
    assert peak < 12 * weight.size * 8


def test_lamp_prunes_equal_weights_from_the_back():
    mask = tfprune.compute_mask(np.ones(10, dtype="float32"), 0.3, criterion="lamp")
    assert mask.tolist() == [T] * 7 + [F] * 3
    assert not criteria.LayerAdaptiveMagnitude()(np.zeros((2, 3))).any()


def test_random_depends_on_seed_position_and_shape_alone():
    random = criteria.Random(3)
    scores = random(WEIGHT, 4)
    np.testing.assert_array_equal(scores, random(OTHER, 4))
    for other in (random(WEIGHT, 5), criteria.Random(4)(WEIGHT, 4)):
        assert abs(np.corrcoef(scores.ravel(), other.ravel())[0, 1]) < 0.3
    big = random(np.empty((300, 400)), 0)
    assert abs(big.mean() - 0.5) < 0.005 and abs(big.var() - 1 / 12) < 0.002


@pytest.mark.parametrize("seed", [-1, 0.5, "0", None])
def test_random_rejects_other_seeds(seed):
    with pytest.raises((ValueError, TypeError), match=r"Expected `seed` to be"):
        criteria.Random(seed)


def test_elementwise_scores_of_two_arrays_do_not_depend_on_pieces():
    weight, initial = (RANDOM.normal(size=(600, 700)).astype("float32") for _ in range(2))
    mask = tfprune.compute_mask(weight, 0.7, criterion="movement", evidence={"initial": initial})
    scores = np.abs(weight - initial)
    assert scores[mask].min() >= scores[~mask].max()
    assert mask.sum() == 126_000


@pytest.mark.parametrize("size", [4, 200_000])
def test_weights_that_the_score_does_not_see_have_to_be_finite_too(size):
    weight = np.ones((size // 2, 2), dtype="float32")
    weight[-1, -1] = np.nan
    with pytest.raises(ValueError, match=r"Expected finite weights"):
        tfprune.compute_mask(
            weight, 0.5, criterion="large_init", evidence={"initial": np.ones_like(weight)}
        )
