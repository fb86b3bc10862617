"""Scopes: who competes with whom, counted exactly and checked against one sort over everything."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import tfprune
from tfprune import masks, scopes
from tfprune.patterns import KernelAxes

T, F = True, False


def requests(weights, pattern=None, before=None):
    before = before or [None] * len(weights)
    return [
        masks.MaskRequest(
            np.asarray(weight, dtype="float32"),
            tfprune.patterns.get(pattern),
            tfprune.Magnitude(),
            KernelAxes(),
            mask,
            f"layer_{position}/kernel",
        )
        for position, (weight, mask) in enumerate(zip(weights, before, strict=True))
    ]


def masks_of(scope, weights, sparsity, pattern=None, before=None):
    asked = requests(weights, pattern, before)
    results = scope.masks(asked, sparsity)
    found = [one.spread(kept) for one, (kept, _) in zip(asked, results, strict=True)]
    pruned = sum(kept.size - np.count_nonzero(kept) for kept, _ in results)
    assert pruned == scope.zeros(asked, sparsity)
    return found


def drawn(seed, sizes, spread=1.0):
    """Weights of different sizes; each layer's are `spread` times as large as the one before."""
    random = np.random.default_rng(seed)
    return [random.normal(size=size) * spread**n for n, size in enumerate(sizes)]


@pytest.mark.parametrize(
    ("scope", "weights", "sparsity", "expected"),
    [
        (scopes.Local(), [[1, 2], [8, 9]], 0.5, [[F, T], [F, T]]),
        (scopes.Global(), [[1, 2], [8, 9]], 0.5, [[F, T], [F, T]]),  # one of layer 0 must stay
        (scopes.Global(), [[1, 2, 7], [8, 9, 3]], 0.5, [[F, F, T], [T, T, F]]),
        (scopes.Local(), [[1, 2, 7, 6], [8, 9]], 0.5, [[F, F, T, T], [F, T]]),
        (scopes.Global(), [[1, 2, 3, 4], [8, 9, 7, 6]], 0.25, [[F, F, T, T], [T, T, T, T]]),
        (scopes.Global(0.25), [[1, 2, 3, 4], [8, 9, 7, 6]], 0.25, [[F, T, T, T], [T, T, T, F]]),
        # More than all caps together: what they allow.
        (scopes.Global(0.25), [[1, 2, 3, 4], [8, 9, 7, 6]], 0.9, [[F, T, T, T], [T, T, T, F]]),
        (scopes.Global(), [[1, 1], [1, 1, 1]], 0.4, [[T, T], [T, F, F]]),  # ties: the later go
        (scopes.Global(), [[1, 1], [1, 1, 1]], 0.6, [[T, F], [T, F, F]]),  # and one stays
        (scopes.Global(), [[5], [5]], 0.5, [[T], [T]]),
        (scopes.Global(), [[1, 2]], 0.0, [[T, T]]),
    ],
)
def test_table(scope, weights, sparsity, expected):
    assert [mask.tolist() for mask in masks_of(scope, weights, sparsity)] == expected


@pytest.mark.parametrize("sparsity", [0.0, 0.3, 0.5, 0.9, 0.999])
def test_local_is_each_weight_on_its_own(sparsity):
    weights = drawn(0, [1, 7, 1000, 200_000], spread=100)
    found = masks_of(scopes.Local(), weights, sparsity)
    for mask, weight in zip(found, weights, strict=True):
        np.testing.assert_array_equal(mask, tfprune.compute_mask(weight, sparsity))
        assert mask.sum() == masks.kept_count(weight.size, sparsity)


@pytest.mark.parametrize("sparsity", [0.1, 0.5, 0.9])
@pytest.mark.parametrize("sizes", [[50, 70, 200], [100_000, 3000, 250_000]])
def test_global_is_one_sort_over_everything(sizes, sparsity):
    weights = [weight.astype("float32") for weight in drawn(1, sizes, spread=1.1)]
    whole = np.concatenate(weights)
    expected = np.zeros(whole.size, dtype=bool)
    kept = masks.kept_count(whole.size, sparsity)
    expected[np.argsort(-np.abs(whole), kind="stable")[:kept]] = True
    found = masks_of(scopes.Global(), weights, sparsity)
    np.testing.assert_array_equal(np.concatenate(found), expected)


@pytest.mark.parametrize("pattern", ["filter", "channel", tfprune.Block((2, 2))])
def test_global_competes_by_units(pattern):
    weights = [weight.reshape(-1, 4) for weight in drawn(2, [32, 64, 16])]
    before, asked = masks_of(scopes.Global(), weights, 0.5, pattern), requests(weights, pattern)
    units = [one.pattern.collapse(mask, one.axes) for one, mask in zip(asked, before, strict=True)]
    pooled = [one.pattern.pool(np.abs(one.weight), one.axes) for one in asked]
    kept, scores = (np.concatenate([part.ravel() for part in parts]) for parts in (units, pooled))
    assert kept.sum() == masks.kept_count(kept.size, 0.5)
    assert scores[kept].min() > scores[~kept].max()


def test_no_weight_loses_its_last_unit():
    # All of layer 0 is smaller than anything else.
    weights = drawn(3, [10, 10, 1, 10], spread=1e4)
    found = masks_of(scopes.Global(), weights, 0.8)
    assert [int(mask.sum()) for mask in found] == [1, 1, 1, 3]
    for mask, weight in zip(found, weights, strict=True):
        assert mask[np.abs(weight).argmax()]


def test_global_on_equal_scores():
    found = masks_of(scopes.Global(), [np.ones(100), np.ones(50), np.ones(50)], 0.5)
    assert [int(mask.sum()) for mask in found] == [98, 1, 1]
    assert found[0][:98].all() and found[1][0] and found[2][0]


caps = st.none() | st.integers(1, 99).map(lambda percent: percent / 100)
layers = st.lists(st.integers(1, 30), min_size=1, max_size=5)


@given(layers, st.lists(st.integers(0, 99), min_size=1, max_size=4), caps, st.integers(0, 2**32))
def test_global_is_exact_capped_and_optimal(sizes, percents, cap, seed):
    scope, before = scopes.Global(cap), None
    units = sum(sizes)
    most = [
        size - 1 if cap is None else min(size - 1, size - masks.kept_count(size, cap))
        for size in sizes
    ]
    for percent in sorted(percents):
        weights = [np.round(weight, 1) for weight in drawn(seed, sizes, spread=2)]
        found = masks_of(scope, weights, percent / 100, before=before)
        zeros = [int((~mask).sum()) for mask in found]
        assert sum(zeros) == min(units - masks.kept_count(units, percent / 100), sum(most))
        assert all(number <= limit for number, limit in zip(zeros, most, strict=True))
        fresh = [
            np.abs(weight)[~mask if before is None else old & ~mask]
            for weight, mask, old in zip(weights, found, before or found, strict=True)
        ]
        highest_pruned = max((part.max() for part in fresh if part.size), default=-np.inf)
        for weight, mask, number, limit in zip(weights, found, zeros, most, strict=True):
            # Whoever could have given more had nothing lower to give.
            assert number == limit or np.abs(weight)[mask].min() >= highest_pruned
        if before is not None:
            assert not any(new[~old].any() for new, old in zip(found, before, strict=True))
        before, seed = found, seed + 1


def test_falling_global_sparsity_revives_only_pruned_units():
    weights = drawn(4, [40, 60], spread=3)
    before = masks_of(scopes.Global(), weights, 0.9)
    zeroed = [weight * mask for weight, mask in zip(weights, before, strict=True)]
    after = masks_of(scopes.Global(), zeroed, 0.3, before=before)
    assert sum(int((~mask).sum()) for mask in after) == 30
    assert all(new[old].all() for new, old in zip(after, before, strict=True))


@pytest.mark.parametrize("scope", [scopes.Local(), scopes.Global(), scopes.Global(0.8)])
def test_error_names_the_weight(scope):
    weights = [np.ones(10), np.full(10, np.nan)]
    with pytest.raises(ValueError, match=r"layer_1/kernel.*Received: NaN"):
        scope.masks(requests(weights), 0.5)


@pytest.mark.parametrize("cap", [1, 1.0, 90, -0.1, float("nan"), True, "0.9"])
def test_bad_cap(cap):
    with pytest.raises((ValueError, TypeError), match=r"Expected `max_sparsity`.*Received: max_sp"):
        scopes.Global(cap)


@pytest.mark.parametrize(
    ("name", "scope"),
    [("local", scopes.Local()), ("global", scopes.Global()), (None, scopes.Local())],
)
def test_names(name, scope):
    assert scopes.get(name) == scope


# -- Layers of different scale ---------------------------------------------------------------------


def mean_of_filters(kernel):
    return np.abs(kernel.astype("float64")).mean(axis=0)


def by_lamp(scores):
    return np.array([score / scores[scores >= score].sum() for score in scores])


RELATIVE = {
    "mean": lambda scores: scores / scores.mean(),
    "max": lambda scores: scores / scores.max(),
    "lamp": by_lamp,
    None: lambda scores: scores,
}


@pytest.mark.parametrize("how", RELATIVE)
def test_scores_are_compared_on_one_scale(how):
    random = np.random.default_rng(5)
    weights = [random.normal(size=(6, n)) * scale for n, scale in ((8, 1), (12, 0.01), (5, 30))]
    scores = [RELATIVE[how](mean_of_filters(weight)) for weight in weights]
    threshold = np.sort(np.concatenate(scores))[9]
    pattern = tfprune.Filter(coupled=False)
    found = masks_of(scopes.Global(0.95, normalize=how), weights, 0.4, pattern)
    for mask, own, weight in zip(found, scores, weights, strict=True):
        np.testing.assert_array_equal(mask, np.broadcast_to(own > threshold, weight.shape))
    if how is None:
        # All go from the layer of small weights.
        assert [int((~mask[0]).sum()) for mask in found] == [0, 10, 0]


def test_filters_are_made_comparable_by_default_and_single_weights_are_not():
    random = np.random.default_rng(6)
    weights = [random.normal(size=(6, 20)), random.normal(size=(6, 20)) * 0.01]
    pruned = {
        pattern: [1 - mask.mean() for mask in masks_of(scopes.Global(), weights, 0.5, pattern)]
        for pattern in (tfprune.Filter(coupled=False), tfprune.Unstructured())
    }
    filters, single = pruned.values()
    assert abs(filters[0] - filters[1]) <= 0.3
    assert single[1] > 0.95


@pytest.mark.parametrize("sparsity", [0.3, 0.5, 0.8, 0.95])
def test_every_group_of_filters_keeps_a_share(sparsity):
    # One threshold would take all but one of the first layer: nearly all its filters are small.
    first = np.concatenate([np.full((4, 63), 0.001), np.full((4, 1), 100.0)], axis=1)
    weights = [first, np.random.default_rng(7).uniform(1, 2, size=(4, 64))]
    found = masks_of(scopes.Global(), weights, sparsity, tfprune.Filter(coupled=False))
    kept = [int(mask[0].sum()) for mask in found]
    uniform = masks.kept_count(64, sparsity)
    assert kept[0] >= max(1, round(uniform / 4))
    assert sum(kept) == masks.kept_count(128, sparsity)


def test_masks_stay_nested_where_scores_are_made_comparable():
    random = np.random.default_rng(8)
    weights = [random.normal(size=(6, 30)), random.normal(size=(6, 30)) * 0.1]
    pattern, before = tfprune.Filter(coupled=False), None
    for sparsity in (0.2, 0.5, 0.8):
        found = masks_of(scopes.Global(), weights, sparsity, pattern, before=before)
        if before is not None:
            assert not any((new & ~old).any() for new, old in zip(found, before, strict=True))
        weights = [np.where(mask, weight, 0) for mask, weight in zip(found, weights, strict=True)]
        before = found


def test_an_unknown_normalization():
    with pytest.raises(ValueError, match=r"Expected `normalize` to be one of 'auto', 'mean'"):
        scopes.Global(normalize="sum")
