"""Sensitivity of groups of filters, and the distribution made of it, against numpy."""

import json

import keras
import numpy as np
import pytest
from keras import layers

import tfprune
from tfprune._analysis.sensitivity.result import LayerSensitivity
from tfprune.cli import main


def residual():
    """Two layers whose outputs are added, one that reads the sum, and the outputs."""
    keras.utils.set_random_seed(3)
    inputs = keras.Input((6, 6, 3))
    first = layers.Conv2D(4, 3, padding="same", name="first")(inputs)
    second = layers.Conv2D(4, 3, padding="same", name="second")(first)
    x = layers.BatchNormalization(name="norm")(layers.Add()([first, second]))
    x = layers.Conv2D(6, 3, activation="relu", name="third")(x)
    outputs = layers.Dense(3, name="out")(layers.GlobalAveragePooling2D()(x))
    model = keras.Model(inputs, outputs)
    random = np.random.default_rng(0)
    for weight in model.trainable_weights:
        weight.assign(random.normal(size=weight.shape))
    model.compile("sgd", "mse")
    return model


def values(model):
    return {weight.path: keras.ops.convert_to_numpy(weight) for weight in model.weights}


def by_hand(before, group, number):
    """All weights, with the group's lowest filters at zero: means of magnitudes, and no tfprune."""
    makers = {"first": ["first", "second"], "third": ["third"]}[group]
    rows = [np.abs(before[f"{name}/kernel"]).mean(axis=(0, 1, 2)) for name in makers]
    gone = np.argsort(np.mean(rows, axis=0), kind="stable")[:number]
    cut = {"first": [*makers, "norm"], "third": makers}[group]
    after = {path: value.copy() for path, value in before.items()}
    for path, value in after.items():
        layer, name = path.split("/")
        if layer in cut and not name.startswith("moving_variance"):
            value[..., gone] = 0
    return after


def test_groups_are_pruned_whole_and_outputs_are_none():
    model, seen = residual(), []
    before = values(model)

    def watch(one):
        assert one is model
        seen.append(values(one))
        return float(len(seen))

    found = tfprune.sensitivity(
        model, metric=watch, pattern="filter", sparsities=(0.25, 0.5), verbose=0
    )
    assert [(row.layer, row.others) for row in found.rows] == [
        ("first", ("second",)),
        ("third", ()),
    ]
    assert [row.units for row in found.rows] == [4, 6]
    assert [row.parameters for row in found.rows] == [27 * 4 + 36 * 4, 36 * 6]
    assert [row.values for row in found.rows] == [(2.0, 3.0), (4.0, 5.0)]
    # Of six filters, round(0.75 * 6) = 4 are kept.
    steps = [("first", 1), ("first", 2), ("third", 2), ("third", 3)]
    for shown, how in zip(seen[1:], steps, strict=True):
        for path, value in by_hand(before, *how).items():
            np.testing.assert_array_equal(shown[path], value, path)
    assert all(np.array_equal(value, before[path]) for path, value in values(model).items())


def test_a_group_is_meant_by_any_of_its_layers_and_by_no_other():
    model = residual()
    given = {"metric": lambda one: 0.0, "pattern": "filter", "sparsities": (0.5,), "verbose": 0}
    rows = tfprune.sensitivity(model, layers="second", **given).rows
    assert [row.layer for row in rows] == ["first"]
    with pytest.raises(ValueError, match=r"`layers` to name layers .* has: first, second"):
        tfprune.sensitivity(model, layers="out", **given)


@pytest.mark.parametrize("wrapped", [False, True])
def test_losses_are_those_of_the_pruned_model(wrapped):
    model, random = residual(), np.random.default_rng(1)
    data = random.normal(size=(8, 6, 6, 3)), random.normal(size=(8, 3))
    given = {"pattern": "filter", "criterion": "taylor", "verbose": 0, "batch_size": 8}
    measured = model
    if wrapped:
        measured = tfprune.prune_low_magnitude(model)
        measured.compile("sgd", "mse")
    found = tfprune.sensitivity(measured, data, "loss", sparsities=(0.5,), **given)
    for row, exempt in zip(found.rows, ("third", "first"), strict=True):
        others = ["third"] if exempt == "third" else ["first", "second"]
        pruned = tfprune.pruners.one_shot(
            model,
            0.5,
            pattern="filter",
            criterion="taylor",
            data=data,
            batch_size=8,
            rules=[tfprune.Rule(name, prune=False) for name in others],
        )
        pruned.compile("sgd", "mse")
        assert row.values[0] == pytest.approx(pruned.evaluate(*data, verbose=0), rel=1e-4)
        assert row.values[0] != pytest.approx(found.baseline, rel=1e-3)


def test_a_record_of_groups_goes_on_and_one_of_layers_is_refused(tmp_path):
    model, calls = residual(), []
    path = tmp_path / "record.json"

    def count(one):
        calls.append(1)
        return float(len(calls))

    given = {"metric": count, "pattern": "filter", "path": path, "verbose": 0}
    first = tfprune.sensitivity(model, sparsities=(0.5,), layers="third", **given)
    both = tfprune.sensitivity(model, sparsities=(0.5,), **given)
    assert len(calls) == 3 and both.rows[1] == first.rows[0]
    assert list(json.loads(path.read_text())["values"]) == ["third", "first"]
    alone = {**given, "pattern": tfprune.Filter(coupled=False)}
    with pytest.raises(ValueError, match="with the same pattern"):
        tfprune.sensitivity(model, sparsities=(0.5,), **alone)


def test_table_and_picture_name_the_layers_of_a_group():
    rows = [LayerSensitivity("a", 90, (1.0,), 4, ("b", "c")), LayerSensitivity("d", 9, (2.0,), 3)]
    found = tfprune.Sensitivity("loss", 0.5, (0.5,), rows)
    assert "a, b, c" in str(found)
    labels = [label.get_text() for label in found.plot().axes[0].get_yticklabels()]
    assert labels == ["a +2", "d"]
    assert json.loads(json.dumps(found.to_dict()))["layers"][0]["others"] == ["b", "c"]


def test_the_command_measures_groups(tmp_path, capsys):
    model = residual()
    model.save(tmp_path / "model.keras")
    random = np.random.default_rng(1)
    x, y = random.normal(size=(8, 6, 6, 3)), random.normal(size=(8, 3))
    np.savez(tmp_path / "data.npz", x_train=x, y_train=y, x_test=x, y_test=y)
    words = ["sensitivity", str(tmp_path / "model.keras"), "--data", str(tmp_path / "data.npz")]
    assert main([*words, "--pattern", "filter", "--sparsities", "0.5", "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)["layers"]
    assert [(row["layer"], row["others"], row["units"]) for row in shown] == [
        ("first", ["second"], 4),
        ("third", [], 6),
    ]


# -- The distribution ------------------------------------------------------------------------------


def measured():
    """Four layers; the metric does not always fall, and one measurement is no number."""
    rows = [
        LayerSensitivity("robust", 400, (0.90, 0.89, 0.88), 40),
        LayerSensitivity("block/delicate", 300, (0.80, 0.85, 0.30), 30, ("other",)),
        LayerSensitivity("middle", 20, (0.88, 0.70, 0.60)),
        LayerSensitivity("broken", 10, (0.89, 0.50, float("nan"))),
    ]
    return tfprune.Sensitivity("accuracy", 0.9, (0.3, 0.6, 0.9), rows)


UNITS = np.array([40, 30, 20, 10])


def changes(found, shares):
    """The sum of all changes at some sparsities, along the lowest chords of each curve."""
    total = 0.0
    for row, share in zip(found.rows, shares, strict=True):
        values = np.abs(np.array([0.9, *row.values]) - 0.9)
        values = np.maximum.accumulate(np.nan_to_num(values, nan=1e9))
        points = list(zip([0.0, 0.3, 0.6, 0.9], values, strict=True))
        total += min(
            np.interp(share, [x, z], [y, w])
            for x, y in points
            for z, w in points
            if x <= share <= z and x < z
        )
    return total


@pytest.mark.parametrize("sparsity", [0.2, 0.35, 0.5, 0.7])
def test_no_other_shares_change_the_metric_less(sparsity):
    found, random = measured(), np.random.default_rng(0)
    given = dict(found.to_distribution(sparsity).sparsities)
    ours = np.array([given[row.layer] for row in found.rows])
    weights = UNITS / UNITS.sum()
    assert weights @ ours == pytest.approx(sparsity, abs=1e-9)
    least, tried = changes(found, ours), 0
    for other in random.uniform(0, 0.9, (2000, 4)):
        # The first layer takes what is missing.
        other[0] += (sparsity - weights @ other) / weights[0]
        if 0 <= other[0] <= 0.9:
            assert changes(found, other) >= least - 1e-9
            tried += 1
    assert tried > 50


def test_shares_by_hand():
    rows = [LayerSensitivity("a", 10, (1.1, 1.4)), LayerSensitivity("b", 30, (1.2, 2.4))]
    found = tfprune.Sensitivity("loss", 1.0, (0.4, 0.8), rows)
    # Changes for each tenth of all weights: a 0.1, then 0.3; b 0.067, then 0.4.
    for sparsity, expected in [
        (0.15, (0.0, 0.2)),
        (0.35, (0.2, 0.4)),
        (0.45, (0.6, 0.4)),
        (0.65, (0.8, 0.6)),
    ]:
        shares = dict(found.to_distribution(sparsity).sparsities)
        assert (shares["a"], shares["b"]) == pytest.approx(expected)


def test_shares_rise_with_the_sparsity_up_to_all_that_was_measured():
    found = measured()
    rising = [
        [dict(found.to_distribution(s).sparsities)[row.layer] for row in found.rows]
        for s in np.arange(1, 19) / 20
    ]
    assert (np.diff(rising, axis=0) >= -1e-9).all()
    np.testing.assert_allclose(rising[-1], 0.9, atol=1e-9)
    # The path of an inner layer comes last, as the end of a path means a layer too.
    assert list(dict(found.to_distribution(0.5).sparsities))[-1] == "block/delicate"


def test_equal_flat_curves_get_equal_shares():
    rows = [LayerSensitivity(name, 10, (1.0, 1.0)) for name in "ab"]
    found = tfprune.Sensitivity("loss", 1.0, (0.4, 0.8), rows)
    assert dict(found.to_distribution(0.3).sparsities) == pytest.approx({"a": 0.3, "b": 0.3})


def test_wrong_sparsities_are_refused():
    found = measured()
    for error, value in [(ValueError, 0.0), (ValueError, 0.95), (ValueError, 50), (TypeError, "x")]:
        with pytest.raises(error, match=r"Expected `sparsity`.* Received: sparsity="):
            found.to_distribution(value)
    with pytest.raises(ValueError, match="with 0 measured layers"):
        tfprune.Sensitivity("loss", 1.0, (0.5,), []).to_distribution(0.5)


@pytest.mark.parametrize("pattern", ["filter", None])
def test_it_prunes_a_model_to_the_sparsity(pattern):
    model, random = residual(), np.random.default_rng(1)
    data = random.normal(size=(8, 6, 6, 3)), random.normal(size=(8, 3))
    found = tfprune.sensitivity(model, data, pattern=pattern, sparsities=(0.5, 0.9), verbose=0)
    pruned = tfprune.prune_low_magnitude(
        model,
        tfprune.ConstantSparsity(0.5, 0),
        pattern=pattern,
        scope=found.to_distribution(0.5),
    )
    tfprune.UpdatePruningStep(pruned)
    after = values(tfprune.strip_pruning(pruned))
    shares = dict(found.to_distribution(0.5).sparsities)
    zeros = {
        row.layer: (
            int((after[f"{row.layer}/kernel"] == 0).all(axis=(0, 1, 2)).sum())
            if pattern
            else int((after[f"{row.layer}/kernel"] == 0).sum())
        )
        for row in found.rows
    }
    assert sum(zeros.values()) == round(0.5 * sum(row.units for row in found.rows))
    for row in found.rows:
        assert zeros[row.layer] == pytest.approx(shares[row.layer] * row.units, abs=1)
