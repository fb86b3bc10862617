"""Targets: the lowest sparsity at which a shrunk model is small or fast enough."""

import keras
import numpy as np
import pytest
from keras import layers
from structural_support import distance, randomize
from test_coupling import examples, residual

import tfprune


@pytest.mark.parametrize("scope", ["local", "global"])
@pytest.mark.parametrize(
    "share", [0.5, *(pytest.param(share, marks=pytest.mark.slow) for share in (0.75, 0.2))]
)
@pytest.mark.parametrize("name", ["macs", "parameters"])
def test_targets_are_met_and_hardly_more(name, share, scope):
    model = randomize(residual())
    before = model.get_weights()
    plan = tfprune.plan_shrink(model, {name: share}, scope=scope)
    small = plan.apply()
    cost, dense = (getattr(tfprune.model_cost(m), name) for m in (small, model))
    assert cost <= share * dense
    # One channel more in each layer would be too much.
    assert cost >= share * dense - dense / 8
    for one, other in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


def test_whole_numbers_and_several_targets():
    model = randomize(residual())
    dense = tfprune.model_cost(model)
    targets = {"macs": dense.macs // 2, "parameters": 0.9}
    after = tfprune.plan_shrink(model, targets).after
    assert 0.35 * dense.macs < after.macs <= dense.macs // 2
    assert after.parameters <= 0.9 * dense.parameters


def test_the_model_computes_what_the_pruned_one_computes():
    model = randomize(residual())
    plan = tfprune.plan_shrink(model, {"macs": 0.5})
    schedule = tfprune.ConstantSparsity.one_shot(plan.sparsity)
    pruned = tfprune.prune_low_magnitude(model, schedule, pattern="filter")
    tfprune.UpdatePruningStep(pruned)
    assert distance(tfprune.strip_pruning(pruned), plan.apply(), examples()[0]) <= 1e-4


def test_the_least_important_go():
    model = randomize(residual())
    scores = np.abs(keras.ops.convert_to_numpy(model.get_layer("wide").kernel)).mean((0, 1, 2))
    plan = tfprune.plan_shrink(model, {"macs": 0.6}, rules=[tfprune.Rule("stem", prune=False)])
    (removed,) = [group.removed for group in plan.groups if group.layers == ("wide",)]
    assert list(removed) == np.sort(np.argsort(scores)[: len(removed)]).tolist() and removed
    assert plan.apply().get_layer("stem").filters == 8


def test_rounding_and_criteria_with_data():
    model = randomize(residual())
    model.compile("sgd", "mse")
    arguments = {"criterion": "taylor", "data": examples(), "round_to": 4, "verbose": 0}
    small = tfprune.shrink(model, {"macs": 0.6}, **arguments)
    assert all(small.get_layer(name).filters % 4 == 0 for name in ("stem", "wide", "back"))
    assert tfprune.model_cost(small).macs <= 0.6 * tfprune.model_cost(model).macs


def test_latency():
    inputs = keras.Input((32, 32, 3))
    x = layers.Conv2D(64, 3, padding="same")(inputs)
    x = layers.Conv2D(64, 3, padding="same")(x)
    model = keras.Model(inputs, layers.Dense(2)(layers.GlobalAveragePooling2D()(x)))
    plan = tfprune.plan_shrink(model, {"latency": 0.6}, latency_batch_size=8)
    # Measured once more, on a machine that has other work too.
    found = plan.latency(8)
    assert found["after"].median < found["before"].median
    assert 0 < plan.sparsity < 0.999


def test_a_model_that_is_small_enough():
    model = randomize(residual())
    kernel, bias, *others = model.get_layer("wide").get_weights()
    kernel[..., :8], bias[:8] = 0, 0
    model.get_layer("wide").set_weights([kernel, bias, *others])
    plan = tfprune.plan_shrink(model, {"parameters": 0.99})
    assert plan.sparsity == 0 and plan.apply().get_layer("wide").filters == 8


def test_nothing_to_remove_and_nothing_to_do():
    model = keras.Sequential([keras.Input((4,)), layers.Dense(3)])
    kernel = model.get_weights()[0]
    kernel[0] = 0
    model.set_weights([kernel, np.zeros(3)])
    assert tfprune.shrink(model, {"parameters": 15}).count_params() == 15
    with pytest.raises(ValueError, match="model's output"):
        tfprune.shrink(model, {"parameters": 14})


@pytest.mark.parametrize(
    "error, match, targets",
    [
        (TypeError, "dictionary", 0.5),
        (ValueError, "'macs', 'parameters', 'latency'", {"flops": 0.5}),
        (ValueError, "'macs'", {}),
        (TypeError, "number", {"macs": "half"}),
        (TypeError, "number", {"macs": True}),
        (ValueError, "between 0 and 1", {"macs": 0}),
        (ValueError, "whole number above 1", {"parameters": 1.5}),
        (ValueError, "between 0 and 1", {"latency": 20}),
        (ValueError, r"can be reached.*parameters .* times its target", {"parameters": 5}),
    ],
)
def test_bad_targets(error, match, targets):
    with pytest.raises(error, match=match):
        tfprune.shrink(residual(), targets)


@pytest.mark.parametrize("name", ["criterion", "scope", "rules", "data"])
def test_what_only_targets_need(name):
    with pytest.raises(ValueError, match=f"`targets` where `{name}` is given"):
        tfprune.shrink(residual(), **{name: "global"})


def test_open_lengths_have_no_macs():
    inputs = keras.Input((None, 4))
    model = keras.Model(inputs, layers.Dense(2)(layers.Dense(8)(inputs)))
    with pytest.raises(ValueError, match="can be counted"):
        tfprune.shrink(model, {"macs": 0.5})
    assert tfprune.shrink(model, {"parameters": 0.5}).count_params() <= 29


@pytest.mark.parametrize("scope", ["uniform", "erdos_renyi_kernel", "lamp", "layer_cap"])
def test_all_scopes_meet_targets(scope):
    scope = tfprune.scopes.Global(max_sparsity=0.4) if scope == "layer_cap" else scope
    model = randomize(residual())
    plan = tfprune.plan_shrink(model, {"macs": 0.5}, scope=scope)
    assert 0.35 * plan.before.macs < plan.after.macs <= 0.5 * plan.before.macs


@pytest.mark.parametrize(
    "match, part",
    [
        (r"pattern Unstructured\(\) for wide/kernel", {"pattern": "unstructured"}),
        (r"coupled=False.*for wide/kernel", {"pattern": tfprune.Filter(coupled=False)}),
        ("schedule of its own for wide/kernel", {"schedule": tfprune.ConstantSparsity(0.1, 0)}),
    ],
)
def test_rules_that_targets_cannot_follow(match, part):
    with pytest.raises(ValueError, match=match):
        tfprune.plan_shrink(residual(), {"macs": 0.5}, rules=[tfprune.Rule("wide", **part)])


def test_what_is_silent_already_is_rounded_too():
    model = randomize(residual())
    kernel, bias = model.get_layer("wide").get_weights()
    kernel[..., :3], bias[:3] = 0, 0
    model.get_layer("wide").set_weights([kernel, bias])
    plan = tfprune.plan_shrink(model, {"macs": 0.95}, round_to=4)
    assert plan.apply().get_layer("wide").filters in (8, 12)


# -- Allocation by sensitivity ---------------------------------------------------------------------


def uneven():
    """Two layers: the loss hangs on the first, and hardly on the second."""
    keras.utils.set_random_seed(4)
    inputs = keras.Input((12,))
    one = layers.Dense(16, name="needed")(inputs)
    two = layers.Dense(16, name="spare")(inputs)
    y = layers.Dense(1, name="out")(layers.Concatenate()([one, two]))
    model = keras.Model(inputs, y)
    kernel = keras.ops.convert_to_numpy(model.get_layer("out").kernel).copy()
    kernel[16:] *= 0.01
    model.get_layer("out").kernel.assign(kernel)
    model.compile("sgd", "mse")
    return model


def test_the_layers_that_lose_least_give_most():
    model = uneven()
    x = np.random.default_rng(5).normal(size=(64, 12)).astype("float32")
    data = x, keras.ops.convert_to_numpy(model(x))
    before = model.get_weights()
    small = tfprune.shrink(model, {"macs": 0.5}, allocation="sensitivity", data=data, verbose=0)
    cost, dense = tfprune.model_cost(small), tfprune.model_cost(model)
    assert 0.45 * dense.macs <= cost.macs <= 0.5 * dense.macs
    assert small.get_layer("spare").units <= 4 and small.get_layer("needed").units >= 11
    uniform = tfprune.shrink(model, {"macs": 0.5})
    for one in (small, uniform):
        one.compile("sgd", "mse")
    losses = [one.evaluate(*data, verbose=0) for one in (small, uniform)]
    assert losses[0] < 0.5 * losses[1]
    for one, other in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ({"data": None}, "`data` to measure the loss on"),
        ({"allocation": "best"}, "`allocation` to be one of None, 'sensitivity'"),
        ({"scope": "global"}, "either `scope` or `allocation`"),
        ({"targets": {"latency": 0.5}}, "targets in macs or parameters"),
        ({"targets": {"macs": 1e-4}}, "budget that can be reached"),
    ],
    ids=str,
)
def test_an_allocation_that_does_not_fit(change, line):
    x = np.ones((4, 12), "float32")
    given = {"targets": {"macs": 0.5}, "allocation": "sensitivity", "data": (x, x[:, :1]), **change}
    with pytest.raises(ValueError, match=f"Expected.*{line}"):
        tfprune.shrink(uneven(), verbose=0, **given)
