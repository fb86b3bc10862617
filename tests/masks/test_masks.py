"""The mask kernel, against literal tables, NumPy's stable sort and tfmot."""

import ml_dtypes
import numpy as np
import pytest
import tfmot_truth
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from mask_support import DTYPES, F, T, by_sorting, exact_count, finite

import tfprune
from tfprune import masks
from tfprune.patterns import KernelAxes


def request(weight, pattern=None, mask=None, name="the weight"):
    return masks.MaskRequest(
        np.asarray(weight),
        tfprune.patterns.get(pattern),
        tfprune.Magnitude(),
        KernelAxes(),
        mask,
        name,
    )


# -- The rule for the count ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("units", "sparsity", "kept"),
    [
        (10, 0.9, 1),
        (10, 0.0, 10),
        (10, 0.99, 1),  # never nothing
        (1, 0.999, 1),
        (5, 0.5, 2),  # 2.5: to even
        (7, 0.5, 4),  # 3.5: to even
        (2, 0.25, 2),  # 1.5: to even
        (10, 0.25, 8),  # 7.5: to even
        (10, 0.75, 2),  # 2.5: to even
        (5, 0.9, 1),  # 0.5 rounds to 0: one stays
        (15, 0.9, 2),  # 1.5, though float32 0.9 is below 0.9
        (25, 0.9, 2),  # 2.5, though float32 0.9 is below 0.9
        (10**9, 0.9, 10**8),  # 100,000,002 with 0.89999998
    ],
)
@pytest.mark.parametrize("kind", [float, np.float32])
def test_kept_count_table(units, sparsity, kept, kind):
    assert masks.kept_count(units, kind(sparsity)) == kept


@pytest.mark.parametrize(
    "sparsity",
    ["0", "0.001", "0.05", "0.1", "0.25", "0.3", "0.5", "0.625", "0.7", "0.75", "0.8", "0.9"]
    + ["0.95", "0.98", "0.99", "0.999", "0.00001", "0.3333333", "0.123457"],
)
def test_kept_count_is_exact(sparsity):
    numbers = [*range(1, 2001), 10**6 + 5, 8_000_005, 2**31 + 15, 10**11 + 25]
    as_float32 = np.float32(sparsity)
    wrong = [
        n
        for n in numbers
        if not exact_count(n, sparsity)
        == masks.kept_count(n, as_float32)
        == masks.kept_count(n, float(sparsity))
    ]
    assert wrong == []


@pytest.mark.parametrize(
    ("weight", "sparsity", "expected"),
    [
        ([[0.1, -3.0], [2.0, 0.5]], 0.5, [[F, T], [T, F]]),
        ([[0.1, -3.0], [2.0, 0.5]], 0.0, [[T, T], [T, T]]),
        ([[0.1, -3.0], [2.0, 0.5]], 0.99, [[F, T], [F, F]]),
        ([[2.0, -2.0], [2.0, -2.0]], 0.5, [[T, T], [F, F]]),
        ([0.0, 0.0, 0.0, 0.0], 0.75, [T, F, F, F]),
        ([-1.0, 4.0, -3.0, 2.0], 0.75, [F, T, F, F]),
        ([-1.0, 4.0, -3.0, 2.0], 0.25, [F, T, T, T]),
        ([5.0], 0.9, [T]),
        (5.0, 0.9, T),
        ([], 0.5, []),
    ],
)
def test_compute_mask_table(weight, sparsity, expected):
    mask = tfprune.compute_mask(np.array(weight), sparsity)
    assert mask.dtype == bool
    assert mask.tolist() == expected


@pytest.mark.parametrize(
    "view",
    [
        lambda a: a.T,
        lambda a: a[::2],
        lambda a: a[:, ::-3],
        lambda a: np.broadcast_to(a[:1], a.shape),
        np.asfortranarray,
    ],
    ids=["transposed", "rows", "reversed_columns", "broadcast", "fortran"],
)
@pytest.mark.parametrize("dtype", ["float32", ml_dtypes.bfloat16])
def test_memory_layout_does_not_matter(view, dtype):
    weight = view(np.random.default_rng(2).normal(size=(300, 400)).astype(dtype))
    kept = exact_count(weight.size, "0.7")
    np.testing.assert_array_equal(
        tfprune.compute_mask(weight, 0.7), by_sorting(np.abs(weight), kept)
    )


@pytest.mark.parametrize("pattern", ["unstructured", "n_of_m", "filter", tfprune.Block((3, 2))])
def test_read_only_weights_and_masks_are_left_alone(pattern):
    weight = np.random.default_rng(2).normal(size=(8, 6))
    half = tfprune.compute_mask(weight, 0.25, pattern=pattern)
    for array in (weight, half):
        array.setflags(write=False)
    mask = tfprune.compute_mask(weight, 0.5, pattern=pattern, mask=half)
    assert not np.shares_memory(mask, half)
    assert not mask[~half].any()


# -- Non-finite weights ----------------------------------------------------------------------------


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("sparsity", [0.0, 0.25, 0.5])
@pytest.mark.parametrize("dtype", DTYPES, ids=lambda dtype: np.dtype(dtype).name)
@pytest.mark.parametrize("pattern", ["unstructured", "n_of_m", "filter", tfprune.Block((2, 2))])
@pytest.mark.parametrize("quarter_pruned", [False, True])
def test_non_finite_weights_raise(pattern, dtype, sparsity, bad, quarter_pruned):
    weight = np.arange(1, 65, dtype="float32").reshape(8, 8).astype(dtype)
    mask = tfprune.compute_mask(weight, 0.25, pattern=pattern) if quarter_pruned else None
    weight[5, 7] = bad
    expected = r"Expected finite weights and scores in the weight\. Received: NaN or infinity"
    with pytest.raises(ValueError, match=expected):
        tfprune.compute_mask(weight, sparsity, pattern=pattern, mask=mask)


@pytest.mark.parametrize("size", [10, 1_000_000])
def test_non_finite_error_names_the_weight(size):
    bad = np.ones(size, dtype="float32")
    bad[-1] = np.nan
    requests = [request(np.ones(5)), request(bad, name="conv_1/kernel")]
    with pytest.raises(ValueError, match="in conv_1/kernel"):
        masks.masks_with_zeros(requests, size // 2)


# -- An earlier mask -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("weight", "mask", "sparsity", "expected"),
    [
        # Pruned stays pruned, however large.
        ([9, 1, 2, 3], [F, T, T, T], 0.25, [F, T, T, T]),
        ([9, 1, 2, 3], [F, T, T, T], 0.5, [F, F, T, T]),
        ([9, 9, 2, 3], [F, F, T, T], 0.75, [F, F, F, T]),
        # Falling: of the pruned ones the highest come back, of equal ones the earlier.
        ([0, 0, 2, 3], [F, F, T, T], 0.25, [T, F, T, T]),
        ([1, 5, 0, 3], [F, F, F, T], 0.5, [F, T, F, T]),
        ([0, 0, 0, 3], [F, F, F, T], 0.0, [T, T, T, T]),
        # As it is.
        ([9, 8, 1, 2], [F, F, T, T], 0.5, [F, F, T, T]),
    ],
)
def test_earlier_mask_table(weight, mask, sparsity, expected):
    weight = np.array(weight, dtype="float32")
    assert tfprune.compute_mask(weight, sparsity, mask=np.array(mask)).tolist() == expected


def test_rising_and_falling_on_a_large_array():
    weight = np.random.default_rng(5).normal(size=300_000).astype("float32")
    mask = None
    for sparsity in (0.1, 0.5, 0.9, 0.95):
        new = tfprune.compute_mask(weight, sparsity, mask=mask)
        if mask is not None:
            assert not new[~mask].any()
        assert new.sum() == exact_count(weight.size, str(sparsity))
        mask, weight = new, np.random.default_rng(6).normal(size=300_000).astype("float32")
    new = tfprune.compute_mask(weight, 0.3, mask=mask)
    assert new[mask].all()
    revived = by_sorting(
        np.where(mask, -1, np.abs(weight)), exact_count(300_000, "0.3") - mask.sum()
    )
    np.testing.assert_array_equal(new, mask | revived)


@pytest.mark.parametrize("sparsity", [0.0, 0.2, 0.5, 0.8])
def test_falling_with_a_pattern_revives_only_pruned_units(sparsity):
    weight = np.random.default_rng(5).normal(size=(12, 10))
    sparse = tfprune.compute_mask(weight, 0.9, pattern="filter")
    mask = tfprune.compute_mask(weight * sparse, sparsity, pattern="filter", mask=sparse)
    assert mask[sparse].all()
    assert mask.all(axis=0).sum() == 10 - round(10 * sparsity)


# -- tfmot -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", tfmot_truth.MASKS)
def test_same_masks_as_tfmot(tfmot, name):
    _, _, asked = tfmot_truth.MASKS[name]
    sparsity, pattern = asked.get("sparsity", 0.5), None
    if "m_by_n" in asked:
        pattern = tfprune.NOfM(*asked["m_by_n"])
        sparsity = pattern.zeros / pattern.group
    if "block" in asked:
        pattern = tfprune.Block(asked["block"], asked["pooling"])
    one = request(tfmot_truth.weight_of(name), pattern)
    # A cut-off last group cannot give its share of zeros; a scope asks for what there is.
    ((kept, _),) = tfprune.Local().masks([one], sparsity)
    np.testing.assert_array_equal(one.spread(kept), tfmot[f"{name}/mask"])


weights = hnp.arrays("float32", hnp.array_shapes(max_dims=3, max_side=9), elements=finite)


sparsities = st.integers(0, 99).map(lambda percent: percent / 100)


@given(weights, sparsities)
def test_exact_count_and_no_kept_score_below_a_pruned_one(weight, sparsity):
    mask = tfprune.compute_mask(weight, sparsity)
    scores = np.abs(weight)
    assert mask.shape == weight.shape
    assert mask.sum() == exact_count(weight.size, str(sparsity))
    assert mask.all() or scores[mask].min() >= scores[~mask].max()


@given(st.data(), hnp.array_shapes(max_dims=3, max_side=9), st.lists(sparsities, max_size=6))
def test_masks_of_a_rising_schedule_are_nested(data, shape, steps):
    mask = np.ones(shape, dtype=bool)
    for sparsity in sorted(steps):
        weight = data.draw(hnp.arrays("float32", shape, elements=finite))
        new = tfprune.compute_mask(weight, sparsity, mask=mask)
        assert not new[~mask].any()
        assert new.sum() == exact_count(mask.size, str(sparsity))
        mask = new
