"""Distributions: held to the papers' formulas in NumPy, to exact sums, and to training."""

import keras
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from keras import ops

import tfprune
from tfprune import distributions, masks, scopes
from tfprune.patterns import KernelAxes

LENET = [(784, 300), (300, 100), (100, 10)]
RESNET = [(3, 3, 3, 16), (3, 3, 16, 16), (1, 1, 16, 32), (3, 3, 16, 32), (3, 3, 32, 32), (32, 10)]
EVERY = [cls() for cls in distributions.built_in().values()]
every = pytest.mark.parametrize("distribution", EVERY, ids=lambda d: type(d).__name__)


def request(weight, pattern=None, axes=None, mask=None, name="layer/kernel"):
    return masks.MaskRequest(
        np.asarray(weight, dtype="float32"),
        tfprune.patterns.get(pattern),
        tfprune.Magnitude(),
        axes or KernelAxes(),
        mask,
        name,
    )


def requests(shapes, pattern=None, seed=0):
    random = np.random.default_rng(seed)
    return [
        request(random.normal(size=shape) * (1 + n), pattern, name=f"layer_{n}/kernel")
        for n, shape in enumerate(shapes)
    ]


def budget(asked, sparsity):
    units = sum(one.units for one in asked)
    return units - masks.kept_count(units, sparsity)


def is_largest_remainder(counts, exact, total):
    """Whether whole numbers are what real ones become by largest remainder."""
    counts, exact = np.array(counts), np.array(exact)
    assert counts.sum() == total
    assert np.abs(counts - exact).max() < 1 + 1e-6
    up, down = counts > exact + 1e-6, counts < exact - 1e-6
    if up.any() and down.any():
        assert (exact % 1)[up].min() >= (exact % 1)[down].max() - 1e-6


# -- Formulas --------------------------------------------------------------------------------------


def densities_with_dense_layers(raw, sizes, units):
    """RigL's procedure: layers whose density would exceed 1 are dense, the rest solved again."""
    dense = np.zeros(len(raw), dtype=bool)
    while True:
        kept = units - sizes[dense].sum()
        density = np.where(dense, 1.0, raw * kept / (raw * sizes)[~dense].sum())
        if density.max() <= 1:
            return density
        dense[density.argmax()] = True


@pytest.mark.parametrize("shapes", [LENET, RESNET])
@pytest.mark.parametrize("sparsity", [0.3, 0.5, 0.8, 0.9, 0.95, 0.98])
@pytest.mark.parametrize("kernel", [False, True])
@pytest.mark.parametrize("power", [1, 0.5, 2])
def test_erdos_renyi(shapes, sparsity, kernel, power):
    cls = tfprune.ErdosRenyiKernel if kernel else tfprune.ErdosRenyi
    asked = requests(shapes)
    parts = [np.array(shape if kernel else shape[-2:], dtype=float) for shape in shapes]
    raw = np.array([part.sum() / part.prod() for part in parts]) ** power
    sizes = np.array([float(np.prod(shape)) for shape in shapes])
    total = budget(asked, sparsity)
    density = densities_with_dense_layers(raw, sizes, sizes.sum() - total)
    is_largest_remainder(cls(power).zeros(asked, sparsity), sizes * (1 - density), total)


def test_erdos_renyi_by_hand():
    # eps = 0.5 * (40 + 120) / (14 + 22): the densities are 0.7778 and 0.4074.
    counts = tfprune.ErdosRenyi().zeros(requests([(10, 4), (10, 12)]), 0.5)
    assert counts == [40 - 31, 120 - 49]
    # The first would have a density of 1.4 at eps 4: it is dense, the other gives everything.
    assert tfprune.ErdosRenyi().zeros(requests([(10, 4), (10, 12)]), 0.1) == [0, 16]


def test_erdos_renyi_counts_channels_by_their_role():
    """A transposed kernel has its outputs before its inputs; a depthwise one has one input."""
    shapes = [(3, 3, 8, 4), (3, 3, 12, 1), (6, 2, 5)]
    axes = [KernelAxes((-1,), (-2,)), KernelAxes((-2,), (-2, -1)), KernelAxes((0,), (1, 2))]
    asked = [request(np.ones(s), axes=a) for s, a in zip(shapes, axes, strict=True)]
    fans = np.array([(4, 8), (1, 12), (6, 10)], dtype=float)
    found = np.array([float(d) for d in tfprune.ErdosRenyi().densities(asked)])
    np.testing.assert_allclose(found, fans.sum(1) / fans.prod(1))
    windows = np.array([(3, 3), (3, 3), (0, 0)])
    found = np.array([float(d) for d in tfprune.ErdosRenyiKernel().densities(asked)])
    sizes = [float(np.prod(shape)) for shape in shapes]
    np.testing.assert_allclose(found, (fans.sum(1) + windows.sum(1)) / sizes)


@pytest.mark.parametrize("sparsity", [0.0, 0.1, 0.35, 0.9, 0.999])
def test_uniform(sparsity):
    shapes = [(7, 9), (11, 13), (3, 5), (40, 41)]
    sizes = np.array([float(np.prod(shape)) for shape in shapes])
    asked = requests(shapes)
    if sparsity < 0.99:
        total = budget(asked, sparsity)
        counts = tfprune.Uniform().zeros(asked, sparsity)
        is_largest_remainder(counts, sizes * total / sizes.sum(), total)
    else:
        # Two weights stay of 1861, and each layer keeps one: that cannot be.
        with pytest.raises(ValueError, match=r"at most 0\.9979"):
            tfprune.Uniform().zeros(asked, sparsity)


@pytest.mark.parametrize("sparsity", [0.0, 0.2, 0.5, 0.9])
def test_first_layer_dense(sparsity):
    asked = requests([(5, 5), (40, 30), (30, 20)])
    total = budget(asked, sparsity)
    counts = tfprune.FirstLayerDense().zeros(asked, sparsity)
    assert counts[0] == 0
    is_largest_remainder(counts[1:], total * np.array([1200, 600]) / 1800, total)


def lamp_scores(weight):
    """Score of each weight by the definition: w² over the squares of all that are no smaller."""
    squares = np.asarray(weight, dtype="float64").reshape(-1) ** 2
    return np.array([square / squares[squares >= square].sum() for square in squares])


@pytest.mark.parametrize("sparsity", [0.1, 0.5, 0.8, 0.95])
@pytest.mark.parametrize("seed", range(3))
def test_lamp(sparsity, seed):
    asked = requests([(20, 30), (4, 3, 2, 5), (30, 4)], seed=seed)
    scores = [lamp_scores(one.weight) for one in asked]
    threshold = np.sort(np.concatenate(scores))[budget(asked, sparsity) - 1]
    expected = [int((score <= threshold).sum()) for score in scores]
    assert tfprune.LAMP().zeros(asked, sparsity) == expected
    # Within a layer the score orders as the magnitude does, so the masks are LAMP's own.
    for (kept, _), score in zip(scopes.get("lamp").masks(asked, sparsity), scores, strict=True):
        np.testing.assert_array_equal(kept, score > threshold)


def test_lamp_by_hand():
    # Squares 1, 4, 9, 16 score 1/30, 4/29, 9/25, 1; squares 1, 1 score 1/2, 1.
    asked = [request([[1, 2, 3, 4]]), request([[1, 1]])]
    assert [tfprune.LAMP().zeros(asked, n / 6) for n in range(5)] == [
        [0, 0],
        [1, 0],
        [2, 0],
        [3, 0],
        [3, 1],
    ]


def test_lamp_of_filters_scores_their_pooled_squares():
    random = np.random.default_rng(3)
    weights = [random.normal(size=(5, 8)), random.normal(size=(3, 3, 4, 6))]
    asked = [request(weight, "filter") for weight in weights]
    pooled = [(weight**2).mean(axis=tuple(range(weight.ndim - 1))) for weight in weights]
    scores = [lamp_scores(np.sqrt(units)) for units in pooled]
    threshold = np.sort(np.concatenate(scores))[budget(asked, 0.5) - 1]
    expected = [int((score <= threshold + 1e-9).sum()) for score in scores]
    assert tfprune.LAMP().zeros(asked, 0.5) == expected


def test_lamp_does_not_count_what_is_pruned():
    """Values of pruned weights do not matter: the others score as in the equal layer."""
    weight = np.array([[9.0, 1.0, 2.0, 3.0]])
    mask = np.array([[False, True, True, True]])
    for first in (0.0, 9.0):
        weight[0, 0] = first
        asked = [request(weight, mask=mask), request([[1.0, 2.0, 3.0]])]
        assert tfprune.LAMP().zeros(asked, 2 / 7) == [1, 1]


def test_lamp_names_a_layer_that_is_not_finite():
    asked = [request([[1.0, 2.0]]), request([[1.0, np.nan]], name="bad/kernel")]
    with pytest.raises(ValueError, match=r"bad/kernel.*Received: NaN"):
        tfprune.LAMP().zeros(asked, 0.5)


def test_lamp_of_zeros():
    assert tfprune.LAMP().zeros([request(np.zeros((2, 5))), request([[1.0, 2.0]])], 0.5) == [6, 0]


def test_per_layer():
    asked = requests([(10, 10), (10, 20), (10, 30)])
    own = tfprune.PerLayer({"layer_0": 0.2, "layer_1/kernel": 0.4, "*_2": 0.6})
    assert own.zeros(asked, (20 + 80 + 180) / 600) == [20, 80, 180]
    # Half of that: all in proportion. Much more: the last two are at their last weight.
    assert own.zeros(asked, 140 / 600) == [10, 40, 90]
    assert own.zeros(asked, 0.95) == [570 - 199 - 299, 199, 299]
    # The last one that matches counts; a layer at zero stays dense.
    assert tfprune.PerLayer({"*": 0.5, "layer_1": 0}).zeros(asked, 0.5) == [75, 0, 225]


def test_per_layer_takes_paths_and_parts_of_them():
    names = ["encoder/lstm/lstm_cell/kernel", "encoder/lstm/lstm_cell/recurrent_kernel", "a/kernel"]
    asked = [request(np.ones((10, 10)), name=name) for name in names]
    for key in ("encoder", "lstm", "lstm_cell", "encoder/lstm", "lstm/lstm_cell", "enc*"):
        own = tfprune.PerLayer({"*": 0, key: 0.5})
        assert own.zeros(asked, 1 / 3) == [50, 50, 0]
    own = tfprune.PerLayer({"*": 0, "lstm_cell/kernel": 0.5, "a": 0.1})
    assert own.zeros(asked, 0.2) == [50, 0, 10]


# -- Bad input -------------------------------------------------------------------------------------


def test_per_layer_names_what_does_not_match():
    asked = requests([(4, 4), (4, 4)])
    with pytest.raises(ValueError, match=r"none for layer_1/kernel\. Add it"):
        tfprune.PerLayer({"layer_0": 0.5}).zeros(asked, 0.5)
    with pytest.raises(
        ValueError, match=r"Received: 'conv'.* The pruned layers are: layer_0/kernel, layer_1"
    ):
        tfprune.PerLayer({"*": 0.5, "conv": 0.5}).zeros(asked, 0.5)


@pytest.mark.parametrize(
    ("bad", "error"),
    [
        ({}, ValueError),
        ({"a": 1.0}, ValueError),
        ({"a": 50}, ValueError),
        ({"a": "0.5"}, TypeError),
        ({1: 0.5}, TypeError),
        (0.5, TypeError),
        (["a"], TypeError),
    ],
)
def test_bad_mapping(bad, error):
    with pytest.raises(error, match=r"Expected .* Received: .*sparsities"):
        tfprune.PerLayer(bad)


@pytest.mark.parametrize("bad", [-1, float("nan"), float("inf"), True, "1", None])
@pytest.mark.parametrize("cls", [tfprune.ErdosRenyi, tfprune.ErdosRenyiKernel])
def test_bad_power(cls, bad):
    with pytest.raises((ValueError, TypeError), match=r"Expected `power`.* Received: power="):
        cls(bad)


def test_a_budget_that_cannot_be_met_names_the_layer():
    asked = requests([(100, 9), (10, 10)])
    with pytest.raises(ValueError, match=r"at most 0.099.*layer_0/kernel keeps 900 of 900.*Lower"):
        tfprune.FirstLayerDense().zeros(asked, 0.5)
    with pytest.raises(ValueError, match=r"layer_1/kernel keeps 100 of 100"):
        tfprune.PerLayer({"*": 0.5, "layer_1": 0.0}).zeros(asked, 0.95)


def test_a_budget_that_cannot_be_met_is_found_before_training():
    model = small_model()
    before = model.get_weights()
    schedule = tfprune.PolynomialDecay(0.0, 0.9, begin_step=0, end_step=100)
    for distribution, line in (
        ({"last": 0.9, "conv": 0.9, "hidden": 0.0}, "hidden/kernel keeps 512 of 512"),
        ({"last": 0.9, "conv": 0.9, "hiden": 0.9}, "none for hidden/kernel"),
    ):
        with pytest.raises(ValueError, match=line):
            tfprune.prune_low_magnitude(model, schedule, scope=tfprune.PerLayer(distribution))
    for old, new in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


# -- Properties ------------------------------------------------------------------------------------

sizes = st.lists(st.tuples(st.integers(1, 12), st.integers(1, 12)), min_size=1, max_size=6)


@given(st.data())
def test_apportion_is_exact_proportional_and_bounded(data):
    number = data.draw(st.integers(1, 6))
    weights = data.draw(st.lists(st.integers(1, 50), min_size=number, max_size=number))
    low = data.draw(st.lists(st.integers(0, 20), min_size=number, max_size=number))
    room = data.draw(st.lists(st.integers(0, 30), min_size=number, max_size=number))
    high = [a + b for a, b in zip(low, room, strict=True)]
    total = data.draw(st.integers(sum(low), sum(high)))
    parts = distributions.apportion(weights, low, high, total)
    # The one factor for all, found by halving.
    below, above = 0.0, 1e3
    for _ in range(200):
        middle = (below + above) / 2
        reached = np.clip(middle * np.array(weights), low, high).sum()
        below, above = (middle, above) if reached < total else (below, middle)
    is_largest_remainder(parts, np.clip(above * np.array(weights), low, high), total)
    assert all(a <= part <= b for a, part, b in zip(low, parts, high, strict=True))


@every
@given(sizes, st.lists(st.integers(0, 99), min_size=1, max_size=5), st.integers(0, 2**32))
def test_exact_and_nested_while_sparsity_rises_and_falls(distribution, shapes, percents, seed):
    asked = requests(shapes, seed=seed)
    limits = distribution.limits(asked)
    before = None
    for percent in [*sorted(percents), *sorted(percents, reverse=True)]:
        sparsity = percent / 100
        if budget(asked, sparsity) > sum(limits):
            with pytest.raises(ValueError, match=r"layer_\d/kernel keeps \d+ of \d+"):
                distribution.zeros(asked, sparsity)
            continue
        counts = distribution.zeros(asked, sparsity)
        assert sum(counts) == budget(asked, sparsity)
        assert sum(counts) == scopes.Local(distribution).zeros(asked, sparsity)
        assert all(0 <= n <= most for n, most in zip(counts, limits, strict=True))
        results = scopes.Local(distribution).masks(asked, sparsity)
        found = [one.spread(kept) for one, (kept, _) in zip(asked, results, strict=True)]
        assert [int((~mask).sum()) for mask in found] == counts
        if before is not None:
            order = np.sign(sum(counts) - sum(one.zeros_now for one in asked))
            for old, new in zip(before, found, strict=True):
                assert (old & new == new).all() if order >= 0 else (old & new == old).all()
        before = found
        asked = [
            request(np.where(mask, one.weight, 0), mask=mask, name=one.name)
            for one, mask in zip(asked, found, strict=True)
        ]


@every
@pytest.mark.parametrize("pattern", ["unstructured", "filter", tfprune.Block((2, 2))], ids=str)
def test_bounds_hold_from_masks_of_another_rule(distribution, pattern):
    """Masks that came from elsewhere, all in one layer: no part falls, none rises."""
    shapes = [(16, 16), (8, 16), (16, 32)]
    asked = requests(shapes, pattern)
    results = scopes.Global().masks(asked, 0.5)
    before = [one.spread(kept) for one, (kept, _) in zip(asked, results, strict=True)]
    again = [
        request(np.where(mask, one.weight, 0), pattern, mask=mask)
        for one, mask in zip(asked, before, strict=True)
    ]
    for sparsity in (0.1, 0.5, 0.7):
        counts = distribution.zeros(again, sparsity)
        assert sum(counts) == budget(again, sparsity)
        now = [one.zeros_now for one in again]
        pairs = list(zip(counts, now, strict=True))
        assert all(a >= b for a, b in pairs) or all(a <= b for a, b in pairs)


def test_a_distribution_of_ones_own():
    class Halved(tfprune.Distribution):
        def densities(self, asked):
            return [0.5**position for position in range(len(asked))]

    counts = tfprune.Local(Halved()).distribution.zeros(requests([(10, 10)] * 3), 0.65)
    assert counts == [40, 70, 85]


def test_local_without_a_distribution_rounds_each_weight_by_itself():
    asked = requests([(5, 1)] * 4)
    assert scopes.Local().zeros(asked, 0.5) == 4 * 3
    assert scopes.Local("uniform").zeros(asked, 0.5) == 10
    assert tfprune.Uniform().zeros(asked, 0.5) == [2, 2, 3, 3]


@pytest.mark.parametrize("name", distributions.built_in())
def test_a_name_stands_for_local_with_it(name):
    distribution = distributions.built_in()[name]()
    for given_as in (name, distribution, keras.saving.serialize_keras_object(distribution)):
        assert scopes.get(given_as) == scopes.Local(distribution)
    assert scopes.Local(name) == scopes.Local(distribution)
    assert tfprune.Rule("*", scope=name).scope == scopes.Local(distribution)


# -- Training --------------------------------------------------------------------------------------


def small_model():
    keras.utils.set_random_seed(3)
    return keras.Sequential(
        [
            keras.Input((6, 6, 2)),
            keras.layers.Conv2D(4, 3, activation="relu", name="conv"),
            keras.layers.Flatten(),
            keras.layers.Dense(8, activation="relu", name="hidden"),
            keras.layers.Dense(3, name="last"),
        ]
    )


@every
def test_training_reaches_the_exact_overall_sparsity(distribution, tmp_path):
    model = tfprune.prune_low_magnitude(
        small_model(),
        tfprune.PolynomialDecay(0.1, 0.77, begin_step=2, end_step=9, frequency=2),
        scope=distribution,
    )
    model.compile("adam", "mse")
    random = np.random.default_rng(0)
    x, y = random.normal(size=(40, 6, 6, 2)), random.normal(size=(40, 3))
    model.fit(x, y, batch_size=8, epochs=2, verbose=0, callbacks=[tfprune.UpdatePruningStep()])
    rows = [row for row in tfprune.sparsity_report(model).rows if row.status == "pruned"]
    units = sum(row.parameters for row in rows)
    assert units == 72 + 512 + 24
    assert sum(row.zeros for row in rows) == units - masks.kept_count(units, 0.77)
    if isinstance(distribution, tfprune.FirstLayerDense):
        assert rows[0].zeros == 0
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    for before, after in zip(model.layers, loaded.layers, strict=True):
        for one, other in zip(before.weights, after.weights, strict=True):
            np.testing.assert_array_equal(ops.convert_to_numpy(one), ops.convert_to_numpy(other))
    # The loaded model keeps the same distribution, without a change of its masks.
    pruning = tfprune.UpdatePruningStep(loaded)
    assert tfprune.sparsity_report(loaded).rows == tfprune.sparsity_report(model).rows
    assert {w.method.scope for layer in owners(loaded) for w in layer.pruned_weights} == {
        scopes.Local(distribution)
    }
    assert pruning.sparsity == sum(row.zeros for row in rows) / units


def owners(model):
    return [layer for layer in model.layers if isinstance(layer, tfprune.PruneLowMagnitude)]
