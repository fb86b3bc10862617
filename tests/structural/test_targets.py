"""Targets: the lowest sparsity at which a shrunk model is small or fast enough."""

import inspect

import keras
import numpy as np
import pytest
from keras import layers
from structural_support import distance, examples, randomize, residual

import tfprune
from tfprune._reports import runtime_meter
from tfprune.structural import shrinking


@pytest.mark.parametrize("scope", ["local", "global"])
@pytest.mark.parametrize(
    "share", [0.5, *(pytest.param(share, marks=pytest.mark.slow) for share in (0.75, 0.2))]
)
@pytest.mark.parametrize("name", ["macs", "parameters"])
def test_targets_are_met_and_hardly_more(name, share, scope):
    model = randomize(residual())
    before = model.get_weights()
    plan = tfprune.plan_shrink(model, {name: share}, scope=scope, round_to=1)
    small = plan.apply()
    cost, dense = (getattr(tfprune.model_cost(m), name) for m in (small, model))
    assert cost <= share * dense
    # One channel more in each layer would be too much.
    assert cost >= share * dense - dense / 8
    for one, other in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("scope", ["local", "global"])
def test_few_models_are_made_for_a_target_that_counting_finds(monkeypatch, scope):
    made, original = [], shrinking.plan_removal

    def planned(*args):
        made.append(args)
        return original(*args)

    monkeypatch.setattr(shrinking, "plan_removal", planned)
    tfprune.plan_shrink(randomize(residual()), {"macs": 0.5}, scope=scope)
    # The model as it is; at the sparsities that counting found; with channels given back.
    assert len(made) <= 4


def test_plan_shrink_takes_what_shrink_takes():
    assert inspect.signature(tfprune.plan_shrink) == inspect.signature(tfprune.shrink)


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
    how = {"pattern": "filter", "scope": plan.to_distribution()}
    pruned = tfprune.prune_low_magnitude(model, schedule, **how)
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


def two_convolutions(width=64):
    inputs = keras.Input((16, 16, 3))
    x = layers.Conv2D(width, 3, padding="same", name="one")(inputs)
    x = layers.Conv2D(width, 3, padding="same", name="two")(x)
    return keras.Model(inputs, layers.Dense(2)(layers.GlobalAveragePooling2D()(x)))


def timed(monkeypatch, seconds):
    """Replaces measurements: `seconds(widths of "one" and "two", number of runs)`."""
    asked = []

    def measure(self, models, runs):
        asked.append((len(models), runs))
        found = {}
        for name, model in models.items():
            value = seconds([model.get_layer(n).filters for n in ("one", "two")], runs)
            found[name] = tfprune.Latency(value, value, value, runs, 1, 1, "LiteRT")
        return found

    monkeypatch.setattr(runtime_meter.RuntimeMeter, "measure", measure)
    return asked


def test_latency_in_the_runtime_of_the_file():
    plan = tfprune.plan_shrink(two_convolutions(), {"latency": 0.6}, runtime="litert")
    before, after = plan.measured["before"], plan.measured["after"]
    assert before.runtime == "LiteRT" and before.threads == 1 and before.runs == 60
    # Measured once more, on a machine that has other work too.
    found = plan.latency(runtime="litert")
    assert found["after"].median < found["before"].median
    assert 0 < plan.sparsity < 0.999
    assert plan.reached["latency"] == after.median / before.median
    assert "Latency, batch 1" in str(plan) and "LiteRT" in str(plan)


def test_the_widest_model_that_is_fast_enough(monkeypatch):
    asked = timed(monkeypatch, lambda widths, runs: sum(widths) / 128)
    plan = tfprune.plan_shrink(two_convolutions(), {"latency": 0.5}, runtime="onnx")
    widths = [plan.apply().get_layer(name).filters for name in ("one", "two")]
    # Multiples of 8, so that 24 of 64 is the next below a half with a margin.
    assert widths == [24, 24] and plan.reached["latency"] == 24 / 64
    # Six candidates and the model in turn, and the chosen one alone; none lie between 24 and 32.
    assert asked == [(7, 20), (2, 60)]


def test_a_count_that_is_met_already_leaves_the_latency_to_find(monkeypatch):
    timed(monkeypatch, lambda widths, runs: sum(widths) / 128)
    targets = {"latency": 0.5, "parameters": 10**9}
    plan = tfprune.plan_shrink(two_convolutions(), targets, runtime="onnx")
    assert plan.reached["latency"] == 24 / 64 and plan.reached["parameters"] < 1


def test_a_runtime_that_is_slower_at_odd_widths_is_given_even_ones(monkeypatch):
    def seconds(widths, runs):
        return 3.0 if widths[0] % 8 else widths[0] / 64

    timed(monkeypatch, seconds)
    plan = tfprune.plan_shrink(two_convolutions(), {"latency": 0.6})
    assert plan.apply().get_layer("one").filters % 8 == 0
    assert plan.reached["latency"] <= 0.6


def test_a_final_measurement_that_misses_warns_with_both_numbers(monkeypatch):
    def seconds(widths, runs):
        return 1.0 if widths[0] == 64 else (0.4 if runs == 20 else 0.7)

    timed(monkeypatch, seconds)
    with pytest.warns(
        UserWarning, match=r"at most 0\.5 of the model's in litert.*0\.7 in the final"
    ):
        plan = tfprune.plan_shrink(two_convolutions(), {"latency": 0.5}, runtime="litert")
    assert "MISSED" in str(plan) and plan.reached["latency"] == 0.7


def test_a_latency_out_of_reach_says_what_can_be_had(monkeypatch):
    timed(monkeypatch, lambda widths, runs: 0.8 + 0.2 * widths[0] / 64)
    with pytest.raises(ValueError, match=r"fastest candidate takes 0\.8\d*, with .*% of the MACs"):
        tfprune.shrink(two_convolutions(), {"latency": 0.5})
    with pytest.raises(ValueError, match="runtime='litert'"):
        tfprune.shrink(two_convolutions(), {"latency": 0.5})


def test_where_fewer_channels_save_no_time_no_latency_is_proposed(monkeypatch):
    timed(monkeypatch, lambda widths, runs: 1.0)
    with pytest.raises(ValueError, match="target in macs or parameters instead") as caught:
        tfprune.shrink(two_convolutions(), {"latency": 0.5})
    assert "Raise it" not in str(caught.value)


def test_runtimes_and_threads_are_checked():
    for options, message in (
        ({"runtime": "tensorrt"}, "`runtime` to be one of 'keras'"),
        ({"latency_batch_size": 0}, "`latency_batch_size`"),
    ):
        with pytest.raises(ValueError, match=message):
            tfprune.shrink(two_convolutions(), {"latency": 0.5}, **options)
    for targets in ({"macs": 0.5}, None):
        with pytest.raises(ValueError, match="a target in latency where `runtime` is given"):
            tfprune.shrink(two_convolutions(), targets, runtime="litert")


@pytest.mark.parametrize("width", [12, 16, 40])
def test_widths_are_multiples_of_8_in_wide_groups(width):
    model = randomize(two_convolutions(width))
    plan = tfprune.plan_shrink(model, {"macs": 0.5})
    widths = [plan.apply().get_layer(name).filters for name in ("one", "two")]
    exact = tfprune.plan_shrink(model, {"macs": 0.5}, round_to=1)
    assert max(plan.reached["macs"], exact.reached["macs"]) <= 0.5
    if width >= 16:
        assert all(number % 8 == 0 for number in widths)
    else:
        assert plan.shares == exact.shares


def test_multiples_too_coarse_for_a_target_are_given_up():
    model = randomize(two_convolutions(16))
    plan = tfprune.plan_shrink(model, {"macs": 0.2})
    assert 0.15 < plan.reached["macs"] <= 0.2
    with pytest.raises(ValueError, match="targets that can be reached"):
        tfprune.plan_shrink(model, {"macs": 0.2}, round_to=8)


def test_a_budget_is_met_to_within_one_rounding_step():
    model = randomize(two_convolutions(40))
    plan = tfprune.plan_shrink(model, {"macs": 0.7})
    widths = {name: plan.apply().get_layer(name).filters for name in ("one", "two")}
    dense = tfprune.model_cost(model).macs

    def macs(one, two):
        return 256 * 9 * (3 * one + one * two) + 2 * two

    assert macs(**widths) == plan.after.macs <= 0.7 * dense
    for name in widths:
        if widths[name] < 40:
            assert macs(**{**widths, name: widths[name] + 8}) > 0.7 * dense
    left = 0.7 - plan.after.macs / dense
    assert f"with {left:.1%}" in str(plan) and "spare" in str(plan)


def test_training_shrinks_a_model_to_its_budget():
    model = randomize(two_convolutions(24))
    plan = tfprune.plan_shrink(model, {"macs": 0.5})
    schedule = tfprune.PolynomialDecay(0.0, plan.sparsity, 0, 6, frequency=2)
    how = {"pattern": "filter", "scope": plan.to_distribution()}
    gradual = tfprune.prune_low_magnitude(model, schedule, **how)
    gradual.compile("adam", "mse")
    x, y = np.ones((32, 16, 16, 3), "float32"), np.ones((32, 2), "float32")
    gradual.fit(x, y, batch_size=4, verbose=0, callbacks=[tfprune.UpdatePruningStep()])
    small = tfprune.shrink(gradual)
    assert tfprune.model_cost(small) == plan.after
    with pytest.raises(ValueError, match="meets targets by pruning"):
        tfprune.plan_shrink(gradual).to_distribution()


def test_gradual_training_gives_a_layer_in_a_nested_model_its_own_share():
    inner = keras.Sequential([keras.Input((8,)), layers.Dense(16, name="same")], name="inner")
    inputs = keras.Input((8,))
    model = keras.Model(inputs, layers.Dense(2)(layers.Dense(32, name="same")(inner(inputs))))
    plan = tfprune.plan_shrink(model, {"macs": 0.8}, round_to=1)
    plan.shares = {"inner/same/kernel": 0.75, "same/kernel": 0.25}
    schedule = tfprune.ConstantSparsity(20 / 48, 0)
    pruned = tfprune.prune_low_magnitude(
        model, schedule, pattern="filter", scope=plan.to_distribution()
    )
    tfprune.UpdatePruningStep(pruned)
    small = tfprune.shrink(pruned)
    assert small.get_layer("inner").layers[0].units == 4 and small.get_layer("same").units == 24


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
        ("a different schedule for wide/kernel", {"schedule": tfprune.ConstantSparsity(0.1, 0)}),
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
    how = {"data": data, "round_to": 1, "verbose": 0}
    small = tfprune.shrink(model, {"macs": 0.5}, allocation="sensitivity", **how)
    cost, dense = tfprune.model_cost(small), tfprune.model_cost(model)
    assert 0.45 * dense.macs <= cost.macs <= 0.5 * dense.macs
    assert small.get_layer("spare").units <= 4 and small.get_layer("needed").units >= 11
    uniform = tfprune.shrink(model, {"macs": 0.5}, round_to=1)
    for one in (small, uniform):
        one.compile("sgd", "mse")
    losses = [one.evaluate(*data, verbose=0) for one in (small, uniform)]
    assert losses[0] < 0.5 * losses[1]
    for one, other in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("allocation", [None, "sensitivity"])
def test_whole_numbers_may_be_small(allocation):
    model = uneven()
    x = np.random.default_rng(5).normal(size=(64, 12)).astype("float32")
    data = (x, x[:, :1]) if allocation else None
    small = tfprune.shrink(model, {"macs": 90}, allocation=allocation, data=data, round_to=1)
    assert 65 <= tfprune.model_cost(small).macs <= 90


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


class Hidden(keras.layers.Layer):
    """A product with weights in code that takes numbers only."""

    def build(self, shape):
        self.table = self.add_weight(shape=(shape[-1], 4), name="table")

    def call(self, x):
        if isinstance(x, keras.KerasTensor):
            raise TypeError("numbers only")
        return keras.ops.matmul(x, self.table)

    def compute_output_spec(self, x):
        return keras.KerasTensor((*x.shape[:-1], 4), dtype=x.dtype)


def test_no_target_is_met_falsely():
    inputs = keras.Input((8,))
    x = layers.Dense(16, name="wide")(inputs)
    model = keras.Model(
        inputs, layers.Dense(2)(Hidden(name="hidden")(layers.Dense(8, name="read")(x)))
    )
    with pytest.raises(ValueError, match="not: 'hidden'"):
        tfprune.shrink(model, {"macs": 0.5})
    rules = [tfprune.Rule("read", prune=False)]
    small = tfprune.shrink(model, {"parameters": 0.8}, rules=rules)
    assert small.count_params() <= 0.8 * model.count_params()
