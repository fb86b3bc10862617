"""Patterns: literal tables, and every pattern against units labelled weight by weight."""

import math

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

import tfprune
from tfprune import masks, patterns
from tfprune.patterns import (
    Block,
    Channel,
    Column,
    Filter,
    Kernel,
    KernelAxes,
    NOfM,
    Row,
    Slice,
    Unstructured,
)

T, F = True, False
DENSE = KernelAxes((-2,), (-1,))
TRANSPOSED = KernelAxes((-1,), (-2,))
DEPTHWISE = KernelAxes((-2,), (-2, -1))
ATTENTION = KernelAxes((0,), (1, 2))  # EinsumDense, "ab,bcd->acd"


def mask_of(weight, sparsity, pattern, axes=DENSE, mask=None):
    """The mask for a sparsity, or the nearest that the pattern can have."""
    one = masks.MaskRequest(np.asarray(weight), pattern, tfprune.Magnitude(), axes, mask)
    ((kept, _),) = tfprune.Local().masks([one], sparsity)
    return one.spread(kept)


# -- Literal tables --------------------------------------------------------------------------------

NINE = [[1, 2, 3], [5, 6, 7], [9, 10, 11]]


@pytest.mark.parametrize(
    ("pattern", "scores", "expected"),
    [
        (Unstructured(), NINE, [1, 2, 3, 5, 6, 7, 9, 10, 11]),
        # Blocks at the edge are smaller, and pooled over what they have.
        (Block((2, 2), "AVG"), NINE, [3.5, 5, 9.5, 11]),
        (Block((2, 2), "MAX"), NINE, [6, 7, 10, 11]),
        (Block((2, 2), "SUM"), NINE, [14, 10, 19, 11]),
        (Block((3, 1), "AVG"), NINE, [5, 6, 7]),
        (Block((1, 2), "MAX"), NINE, [2, 3, 6, 7, 10, 11]),
        (Block((2, 3), "SUM"), NINE, [24, 30]),
        (Filter(), NINE, [5, 6, 7]),
        (Filter("MAX"), NINE, [9, 10, 11]),
        (Filter("SUM"), NINE, [15, 18, 21]),
        (Channel(), NINE, [2, 6, 10]),
        (Channel("SUM"), NINE, [6, 18, 30]),
        (Kernel(), NINE, [1, 2, 3, 5, 6, 7, 9, 10, 11]),
        (Row(), NINE, [2, 6, 10]),
        (Column(), NINE, [5, 6, 7]),
        (Slice((0,)), NINE, [5, 6, 7]),
        (Slice((-1,), "MAX"), NINE, [3, 7, 11]),
        (Slice((0, 1), "MAX"), NINE, [11]),
        (Slice(), NINE, [1, 2, 3, 5, 6, 7, 9, 10, 11]),
    ],
)
def test_pool_table(pattern, scores, expected):
    pooled = pattern.pool(np.array(scores, dtype="float32"), DENSE)
    assert pooled.ravel().tolist() == expected
    assert pattern.unit_count((3, 3), DENSE) == len(expected)


@pytest.mark.parametrize(
    ("pattern", "weight", "sparsity", "expected"),
    [
        (
            Block((2, 2)),
            [[1, 1, 9, 9], [1, 1, 9, 9], [5, 5, 3, 3], [5, 5, 3, 3]],
            0.5,
            [[F, F, T, T], [F, F, T, T], [T, T, F, F], [T, T, F, F]],
        ),
        # Sizes that the block does not divide.
        (Block((2, 2)), NINE, 0.5, [[F, F, F], [F, F, F], [T, T, T]]),
        (Block((2, 2)), NINE, 0.75, [[F, F, F], [F, F, F], [F, F, T]]),
        # One large weight saves a block under MAX, not under AVG.
        (Block((2, 1), "MAX"), [[8, 3], [0, 4]], 0.5, [[T, F], [T, F]]),
        (Block((2, 1), "AVG"), [[6, 3], [0, 4]], 0.5, [[F, T], [F, T]]),
        (Block((1, 2)), [[1, 1], [1, 1]], 0.5, [[T, T], [F, F]]),
        (Filter(), [[1, -9, 2], [1, -9, 2]], 1 / 3, [[F, T, T], [F, T, T]]),
        (Filter("MAX"), [[3, 2], [0, 2]], 0.5, [[T, F], [T, F]]),
        (Channel(), [[1, 1], [-9, -9], [2, 2]], 2 / 3, [[F, F], [T, T], [F, F]]),
        (Row(), [[1, 1], [-9, -9], [2, 2]], 2 / 3, [[F, F], [T, T], [F, F]]),
        (Column(), [[1, -9, 2], [1, -9, 2]], 1 / 3, [[F, T, T], [F, T, T]]),
        (Kernel(), [[1, -9], [4, 2]], 0.5, [[F, T], [T, F]]),
        (Filter(), [[1, 1, 1, 1]], 0.5, [[T, T, F, F]]),
        (Slice((0, 1)), [[1, 1], [1, 1]], 0.9, [[T, T], [T, T]]),  # the only unit stays
        # Two zeros in four, down the column: inputs are what is summed over.
        (NOfM(2, 4), [[1, 8], [4, 7], [3, 6], [2, 5]], 0.5, [[F, T], [T, T], [T, F], [F, F]]),
        (NOfM(1, 4), [[1, 8], [4, 7], [3, 6], [2, 5]], 0.25, [[F, T], [T, T], [T, T], [T, F]]),
        (NOfM(3, 4), [[1, 8], [4, 7], [3, 6], [2, 5]], 0.75, [[F, T], [T, F], [F, F], [F, F]]),
        (NOfM(2, 4), [[1], [1], [1], [1]], 0.5, [[T], [T], [F], [F]]),
        # On the way there: 9 and 8 stand among the smallest of their group, but 1 goes first.
        (NOfM(1, 2), [[1], [2], [8], [9]], 0.25, [[F], [T], [T], [T]]),
        (NOfM(1, 2), [[1], [2], [8], [9]], 0.5, [[F], [T], [F], [T]]),
        # A cut-off group counts as filled up with zeros: of 1 or 2 left none goes, of 3 one.
        (NOfM(2, 4), [[4], [3], [2], [1], [0.1]], 0.5, [[T], [T], [F], [F], [T]]),
        (NOfM(2, 4), [[4], [3], [2], [1], [0.1], [0.2]], 0.5, [[T], [T], [F], [F], [T], [T]]),
        (NOfM(2, 4), [[3], [1], [2]], 0.5, [[T], [F], [T]]),
        (NOfM(2, 4), [[3], [1]], 0.5, [[T], [T]]),
    ],
)
def test_mask_table(pattern, weight, sparsity, expected):
    assert mask_of(np.array(weight, dtype="float32"), sparsity, pattern).tolist() == expected


# A window of two rows and two columns, two inputs, two outputs; [row][column][input][output].
WINDOW = np.array(
    [
        [[[1, 16], [2, 15]], [[3, 14], [4, 13]]],
        [[[5, 12], [6, 11]], [[7, 10], [8, 9]]],
    ],
    dtype="float32",
)


@pytest.mark.parametrize(
    ("pattern", "sums"),
    [
        (Filter("SUM"), [36, 100]),
        (Channel("SUM"), [1 + 16 + 3 + 14 + 5 + 12 + 7 + 10, 2 + 15 + 4 + 13 + 6 + 11 + 8 + 9]),
        (Kernel("SUM"), [16, 52, 20, 48]),
        (Row("SUM"), [4, 30, 6, 28, 12, 22, 14, 20]),
        (Column("SUM"), [6, 28, 8, 26, 10, 24, 12, 22]),
        (Slice((2,), "SUM"), [3, 31, 7, 27, 11, 23, 15, 19]),
        (Slice((2, 3), "SUM"), [34, 34, 34, 34]),
        (Block((2, 1), "SUM"), [3, 31, 7, 27, 11, 23, 15, 19]),
        (Block((1, 2), "SUM"), [17, 17, 17, 17, 17, 17, 17, 17]),
        (Block((2, 2), "SUM"), [34, 34, 34, 34]),
    ],
)
def test_pool_table_of_a_convolution(pattern, sums):
    assert pattern.pool(WINDOW, DENSE).ravel().tolist() == sums


# -- Units labelled weight by weight ---------------------------------------------------------------


def label(pattern, index, axes):
    """Which unit the weight at `index` belongs to, written down from the words alone."""
    known = axes.resolve(len(index))
    inputs = tuple(index[a] for a in known.inputs)
    outputs = tuple(index[a] for a in known.outputs)
    window = tuple(index[a] for a in axes.spatial(len(index)))
    match pattern:
        case Filter():
            return outputs
        case Channel():
            return inputs
        case Kernel():
            return inputs, outputs
        case Row():
            return (window[:-1], inputs, outputs) if window else inputs
        case Column():
            return (window[:-2], window[-1:], inputs, outputs) if window else outputs
        case Slice():
            pooled = {a % len(index) for a in pattern.axes}
            return tuple(n for a, n in enumerate(index) if a not in pooled)
    return index


def labels(pattern, shape, axes):
    return {index: label(pattern, index, axes) for index in np.ndindex(*shape)}


KERNELS = [
    ((5, 4), DENSE),
    ((3, 5, 4), DENSE),
    ((3, 2, 5, 4), DENSE),
    ((2, 3, 2, 3, 2), DENSE),
    ((3, 2, 5, 4), TRANSPOSED),
    ((3, 2, 5, 2), DEPTHWISE),
    ((5, 2, 3), ATTENTION),
]
SLICES = [
    Filter,
    Channel,
    Kernel,
    Row,
    Column,
    lambda p: Slice((0,), p),
    lambda p: Slice((0, -1), p),
]
POOLING = {"AVG": np.mean, "MAX": np.max, "SUM": np.sum}


@pytest.mark.parametrize("make", SLICES)
@pytest.mark.parametrize("pooling", POOLING)
@pytest.mark.parametrize(("shape", "axes"), KERNELS)
def test_slices_pool_and_spread_their_units(shape, axes, make, pooling):
    pattern = make(pooling)
    scores = np.random.default_rng(0).random(shape)
    units = labels(pattern, shape, axes)
    members = {}
    for index, unit in units.items():
        members.setdefault(unit, []).append(scores[index])
    expected = np.empty(shape)
    for index, unit in units.items():
        expected[index] = POOLING[pooling](members[unit])
    pooled = pattern.pool(scores, axes)
    assert pooled.size == pattern.unit_count(shape, axes) == len(members)
    np.testing.assert_allclose(pattern.expand(pooled, shape, axes), expected, rtol=1e-12)


@pytest.mark.parametrize("block", [(1, 1), (2, 1), (1, 2), (2, 3), (3, 4), (5, 4)])
@pytest.mark.parametrize("pooling", POOLING)
@pytest.mark.parametrize(
    ("shape", "axes", "as_window_inputs_outputs"),
    [
        ((5, 4), DENSE, lambda k: k[None]),
        ((3, 2, 5, 4), DENSE, lambda k: k.reshape(6, 5, 4)),
        ((3, 2, 4, 5), TRANSPOSED, lambda k: k.reshape(6, 4, 5).swapaxes(1, 2)),
        ((5, 2, 3), ATTENTION, lambda k: k.reshape(1, 5, 6)),
    ],
)
def test_blocks_pool_and_spread_their_units(shape, axes, as_window_inputs_outputs, block, pooling):
    pattern = Block(block, pooling)
    scores = np.random.default_rng(0).random(shape)
    expected = as_window_inputs_outputs(scores.copy())
    height, width = block
    for matrix in expected:
        for i in range(0, matrix.shape[0], height):
            for j in range(0, matrix.shape[1], width):
                part = matrix[i : i + height, j : j + width]
                part[...] = POOLING[pooling](part)
    pooled = pattern.pool(scores, axes)
    assert pooled.size == pattern.unit_count(shape, axes)
    found = as_window_inputs_outputs(pattern.expand(pooled, shape, axes))
    np.testing.assert_allclose(found, expected, rtol=1e-7)


def test_depthwise_kernels_have_blocks_of_one_input():
    kernel = np.arange(2 * 2 * 3 * 2, dtype="float32").reshape(2, 2, 3, 2)
    pooled = Block((1, 2), "SUM").pool(kernel, DEPTHWISE)
    np.testing.assert_array_equal(pooled.ravel(), kernel.reshape(-1, 2).sum(axis=1))
    with pytest.raises(ValueError, match=r"1 inputs by 6 outputs"):
        Block((2, 1)).check(kernel.shape, DEPTHWISE)


kernels = st.sampled_from(KERNELS)
any_pattern = st.one_of(
    st.just(Unstructured()),
    st.just(NOfM(1, 2)),
    st.builds(
        lambda make, pooling: make(pooling), st.sampled_from(SLICES), st.sampled_from(list(POOLING))
    ),
    st.builds(Block, st.tuples(st.integers(1, 3), st.integers(1, 4))),
)


@given(kernels, any_pattern, st.data())
def test_collapse_undoes_expand(kernel, pattern, data):
    shape, axes = kernel
    count = pattern.unit_count(shape, axes)
    units = np.array(data.draw(st.lists(st.booleans(), min_size=count, max_size=count)))
    mask = pattern.expand(units, shape, axes)
    assert (mask.shape, mask.dtype) == (shape, bool)
    np.testing.assert_array_equal(pattern.collapse(mask, axes).ravel(), units)


@given(kernels, any_pattern)
def test_every_unit_has_weights(kernel, pattern):
    shape, axes = kernel
    count = pattern.unit_count(shape, axes)
    spread = pattern.expand(np.arange(count), shape, axes)
    assert sorted(set(spread.ravel().tolist())) == list(range(count))


@given(kernels, any_pattern, st.integers(0, 99), st.integers(0, 2**32))
def test_masks_consist_of_whole_units(kernel, pattern, percent, seed):
    shape, axes = kernel
    # Not every count is possible with N:M.
    assume(type(pattern) is not NOfM)
    if type(pattern) is Block:
        _, *sizes = (math.prod(shape[a] for a in part) for part in axes.as_matrices(len(shape)))
        assume(all(n <= size for n, size in zip(pattern.block_size, sizes, strict=True)))
    weight = np.random.default_rng(seed).normal(size=shape)
    mask = tfprune.compute_mask(weight, percent / 100, pattern=pattern, axes=axes)
    units = pattern.collapse(mask, axes)
    np.testing.assert_array_equal(pattern.expand(units, shape, axes), mask)
    assert units.sum() == masks.kept_count(units.size, percent / 100)
    pooled = pattern.pool(np.abs(weight), axes)
    assert units.all() or pooled[units].min() >= pooled[~units].max()


# -- N:M -------------------------------------------------------------------------------------------


def groups_along_inputs(mask, axes, group):
    """Pruned weights as (groups, group), filled up with True where a last group is cut off."""
    known = axes.resolve(mask.ndim)
    (along,) = known.inputs
    columns = np.moveaxis(~mask, along, -1).reshape(-1, mask.shape[along])
    return np.concatenate(
        [
            np.pad(
                columns[:, i : i + group],
                ((0, 0), (0, max(0, i + group - columns.shape[1]))),
                constant_values=True,
            )
            for i in range(0, columns.shape[1], group)
        ]
    )


NM_KERNELS = [((8, 3), DENSE), ((16, 5), DENSE), ((3, 2, 8, 4), DENSE), ((3, 3, 4, 16), TRANSPOSED)]


@pytest.mark.parametrize(("zeros", "group"), [(2, 4), (1, 4), (3, 4), (1, 2), (4, 8)])
@pytest.mark.parametrize(("shape", "axes"), NM_KERNELS)
def test_n_of_m_removes_the_smallest_of_each_group(shape, axes, zeros, group):
    weight = np.random.default_rng(0).normal(size=shape).astype("float32")
    mask = tfprune.compute_mask(weight, zeros / group, pattern=NOfM(zeros, group), axes=axes)
    along = np.moveaxis(np.abs(weight), axes.inputs[0], -1)
    ranks = along.reshape(-1, group).argsort(axis=1).argsort(axis=1)
    expected = np.moveaxis((ranks >= zeros).reshape(along.shape), -1, axes.inputs[0])
    np.testing.assert_array_equal(mask, expected)


@given(
    st.sampled_from([*NM_KERNELS, ((7, 3), DENSE), ((2, 1, 13, 3), DENSE), ((6, 2, 2), ATTENTION)]),
    st.sampled_from([(2, 4), (1, 4), (3, 4), (1, 2), (4, 8), (2, 3)]),
    st.lists(st.floats(0, 1), min_size=1, max_size=5),
    st.sampled_from([2, 3, 10**6]),
    st.integers(0, 2**32),
)
def test_n_of_m_follows_the_schedule(kernel, numbers, shares, levels, seed):
    """Exact count, nested masks, never more than `zeros` in a group, ties included."""
    (shape, axes), (zeros, group) = kernel, numbers
    pattern, size = NOfM(zeros, group), math.prod(shape)
    most = pattern.most_zeros(shape, axes)
    # What is cut off counts among the zeros.
    limit = np.maximum(zeros, groups_along_inputs(np.ones(shape, bool), axes, group).sum(axis=1))
    mask = None
    for share in [*sorted(shares), 1]:
        weight = np.random.default_rng(seed).integers(-levels, levels, shape) / levels
        new = mask_of(weight, share * zeros / group, pattern, axes, mask)
        asked = size - masks.kept_count(size, share * zeros / group)
        assert np.count_nonzero(~new) == min(asked, most)
        assert (groups_along_inputs(new, axes, group).sum(axis=1) <= limit).all()
        assert mask is None or not new[~mask].any()
        mask, seed = new, seed + 1
    np.testing.assert_array_equal(groups_along_inputs(mask, axes, group).sum(axis=1), limit)


def test_n_of_m_cannot_have_more_than_its_share():
    with pytest.raises(ValueError, match=r"Expected `sparsity` to be at most 0\.5.*sparsity=0\.75"):
        tfprune.compute_mask(np.ones((8, 2)), 0.75, pattern=NOfM(2, 4))


@pytest.mark.parametrize("target", [0.4, 0.9])
def test_n_of_m_says_which_target_it_has(target):
    NOfM(2, 4).check_target(0.5, "dense/kernel")
    with pytest.raises(ValueError, match=r"Expected the schedule of dense/kernel .* 2/4 = 0\.5"):
        NOfM(2, 4).check_target(target, "dense/kernel")


# -- Errors and names ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("pattern", "shape", "axes", "message"),
    [
        (NOfM(), (1, 8), DENSE, r"conv/kernel to have input channels"),
        (NOfM(), (3, 3, 8, 1), DEPTHWISE, r"conv/kernel to have input channels"),
        (NOfM(), (3, 3, 1, 8), DENSE, r"shape=\(3, 3, 1, 8\)"),
        (Block((5, 1)), (4, 8), DENSE, r"no larger than conv/kernel, 4 inputs by 8 outputs"),
        (Block((1, 9)), (3, 3, 4, 8), DENSE, r"Received: block_size=\(1, 9\)"),
        (Block((5, 1)), (3, 3, 8, 4), TRANSPOSED, r"4 inputs by 8 outputs"),
        (Slice((2,)), (4, 8), DENSE, r"axes of conv/kernel, which has 2"),
        (Slice((-3,)), (4, 8), DENSE, r"Received: axes=\(-3,\)"),
        (Slice((1, -1)), (4, 8), DENSE, r"Received: axes=\(1, -1\)"),
    ],
)
def test_check_refuses_what_does_not_fit(pattern, shape, axes, message):
    with pytest.raises(ValueError, match=message):
        pattern.check(shape, axes, "conv/kernel")
    with pytest.raises(ValueError, match=r"Expected .* Received: "):
        tfprune.compute_mask(np.ones(shape), 0.5, pattern=pattern, axes=axes)


@pytest.mark.parametrize(
    ("pattern", "shape", "axes"),
    [
        (NOfM(), (2, 8), DENSE),
        (NOfM(2, 4), (3, 3, 2, 8), DENSE),
        (Block((4, 8)), (4, 8), DENSE),
        (Block((4, 8)), (3, 3, 8, 4), TRANSPOSED),
        (Slice((0, -1)), (4, 8), DENSE),
        (Row(), (4,), DENSE),
    ],
)
def test_check_accepts_what_fits(pattern, shape, axes):
    pattern.check(shape, axes)


@pytest.mark.parametrize(
    ("make", "name"),
    [
        (lambda: Block(4), "block_size"),
        (lambda: Block((1, 2, 3)), "block_size"),
        (lambda: Block((0, 1)), "block_size"),
        (lambda: Block((1.5, 1)), "block_size"),
        (lambda: Block("44"), "block_size"),
        (lambda: Block((2, 2), "MEAN"), "pooling"),
        (lambda: Filter("max"), "pooling"),
        (lambda: Slice((0,), None), "pooling"),
        (lambda: NOfM(0, 4), "zeros"),
        (lambda: NOfM(4, 4), "zeros"),
        (lambda: NOfM(-1, 4), "zeros"),
        (lambda: NOfM(True, 4), "zeros"),
        (lambda: NOfM(1, 1), "group"),
        (lambda: NOfM(2, 4.5), "group"),
        (lambda: NOfM(2, "4"), "group"),
        (lambda: Slice("0"), "axes"),
        (lambda: Slice((0.5,)), "axes"),
        (lambda: Slice((0, 0)), "axes"),
    ],
)
def test_bad_arguments(make, name):
    with pytest.raises((ValueError, TypeError), match=rf"Expected .* Received: .*{name}="):
        make()


@pytest.mark.parametrize(
    ("name", "pattern"),
    [
        ("unstructured", Unstructured()),
        ("block", Block((1, 1))),
        ("n_of_m", NOfM(2, 4)),
        ("filter", Filter()),
        ("channel", Channel()),
        ("kernel", Kernel()),
        ("row", Row()),
        ("column", Column()),
        ("slice", Slice()),
        (None, Unstructured()),
    ],
)
def test_names(name, pattern):
    assert patterns.get(name) == pattern


@pytest.mark.parametrize(
    ("axes", "ndim", "spatial", "matrices"),
    [
        (DENSE, 2, (), ((), (0,), (1,))),
        (DENSE, 4, (0, 1), ((0, 1), (2,), (3,))),
        (TRANSPOSED, 4, (0, 1), ((0, 1), (3,), (2,))),
        (DEPTHWISE, 4, (0, 1), ((0, 1), (), (2, 3))),
        (ATTENTION, 3, (), ((), (0,), (1, 2))),
    ],
)
def test_kernel_axes(axes, ndim, spatial, matrices):
    assert axes.spatial(ndim) == spatial
    assert axes.as_matrices(ndim) == matrices
    assert axes.resolve(ndim).resolve(ndim) == axes.resolve(ndim)
