"""Searches: budgets met on the result, resumed runs, exhaustive search, bad input."""

import functools
import itertools
import json
import types

import keras
import numpy as np
import pytest
from keras import layers, ops
from sklearn.datasets import load_digits

import tfprune
from tfprune import pruners
from tfprune.pruners.search.candidate_search import CandidateSearch


@functools.cache
def digits():
    x, y = load_digits(return_X_y=True)
    x = (x / 16).astype("float32").reshape(-1, 8, 8, 1)
    order = np.random.default_rng(0).permutation(len(x))
    x, y = x[order], y[order]
    return (x[:1200], y[:1200]), (x[1200:1500], y[1200:1500])


def compiled(model):
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(5e-3), loss, metrics=["accuracy"])
    return model


@functools.cache
def trained():
    """A small CNN with BatchNormalization, and with dropout, which has random states."""
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            layers.Conv2D(8, 3, padding="same", use_bias=False, name="one"),
            layers.BatchNormalization(name="norm"),
            layers.ReLU(),
            layers.MaxPooling2D(),
            layers.Conv2D(12, 3, padding="same", activation="relu", name="two"),
            layers.Flatten(),
            layers.Dropout(0.1),
            layers.Dense(16, activation="relu", name="three"),
            layers.Dense(10, name="last"),
        ]
    )
    compiled(model).fit(*digits()[0], epochs=3, batch_size=64, verbose=0)
    return model


def evaluate(model):
    return model.evaluate(*digits()[1], batch_size=300, verbose=0, return_dict=True)


def train(model, callback):
    x, y = digits()[0]
    model.fit(x[:128], y[:128], batch_size=64, verbose=0, callbacks=[callback])


def train_longer(model, callback):
    x, y = digits()[0]
    model.fit(x[:256], y[:256], batch_size=64, epochs=2, verbose=0, callbacks=[callback])


SMALL = {
    "AutoCompress": {"admm_steps": 6, "rounds": 2, "evaluations": 4},
    "NetAdapt": {"steps": 3},
    "SimulatedAnnealing": {"evaluations": 6},
    "SensitivitySearch": {"levels": 2},
}


def searches():
    return {
        name: cls
        for name, cls in vars(pruners).items()
        if isinstance(cls, type) and issubclass(cls, pruners.Search) and cls is not pruners.Search
    }


every_search = pytest.mark.parametrize("name", searches())
each_of_candidates = pytest.mark.parametrize(
    "name", [name for name, cls in searches().items() if issubclass(cls, CandidateSearch)]
)
BATCHES = {"batches": 2, "batch_size": 100}


def search_of(name, model=None, budget=None, **options):
    objective = pruners.Objective(**BATCHES)
    options = {"data": digits()[0], "objective": objective, **SMALL[name], **options}
    return searches()[name](model or trained(), budget or {"macs": 0.5}, **options)


def arrays(model):
    return [np.array(ops.convert_to_numpy(v)) for v in model.weights]


def states(model):
    return [np.array(ops.convert_to_numpy(v)) for v in model.optimizer.variables]


def same(one, other):
    return len(one) == len(other) and all(
        np.array_equal(a, b) for a, b in zip(one, other, strict=True)
    )


@functools.cache
def found(name, pattern="filter"):
    if name == "AutoCompress":
        return search_of(name).run(evaluate, train=train_longer, verbose=0)
    budget = {"macs": 0.5} if pattern == "filter" else {"sparsity": 0.9}
    return search_of(name, budget=budget, pattern=pattern).run(evaluate, verbose=0)


# -- Contract --------------------------------------------------------------------------------------


def test_every_search_is_tried():
    assert set(searches()) == set(SMALL)


@every_search
def test_the_budget_is_met_on_the_result_and_the_model_is_left_alone(name):
    model = trained()
    before = arrays(model)
    result = found(name)
    assert same(before, arrays(model))
    dense, small = tfprune.model_cost(model), tfprune.model_cost(result.model)
    assert small.macs == result.costs["macs"] <= 0.5 * dense.macs
    assert small.parameters == result.costs["parameters"]
    # One filter more in each layer would be too much.
    assert small.macs >= 0.4 * dense.macs
    # Compiled as the searched model was.
    assert evaluate(result.model)["accuracy"] > 0.5
    assert result.model.optimizer.get_config() == model.optimizer.get_config()
    assert not any(isinstance(layer, tfprune.PruneLowMagnitude) for layer in result.model.layers)
    # Every layer keeps a share.
    assert max(result.shares.values()) < 0.95
    widths = [getattr(layer, "filters", getattr(layer, "units", 0)) for layer in dense_layers()]
    kept = [row.units - row.zeros for row in result.allocation]
    assert [row.units for row in result.allocation] == widths[:-1]
    small_widths = [layer.filters for layer in result.model.layers if hasattr(layer, "filters")]
    assert kept[: len(small_widths)] == small_widths


def dense_layers():
    return [layer for layer in trained().layers if hasattr(layer, "kernel")]


@each_of_candidates
def test_the_budget_is_met_to_within_one_filter(name):
    result = found(name)
    search = search_of(name)
    costs = search._allocator(search._candidates()).costs
    zeros = [row.zeros for row in result.allocation]
    assert costs(zeros)["macs"] == result.costs["macs"]
    back = [
        costs([z - (place == i) for place, z in enumerate(zeros)])["macs"]
        for i, gone in enumerate(zeros)
        if gone
    ]
    assert max(back) > 0.5 * result.dense["macs"]


@each_of_candidates
def test_the_chosen_candidate_is_worth_what_was_measured(name):
    result = found(name)
    expected = evaluate(result.pruned)["loss"]
    assert result.best.metrics["loss"] == pytest.approx(expected, abs=1e-5)
    assert evaluate(result.model)["loss"] == pytest.approx(expected, abs=1e-5)


@each_of_candidates
def test_single_weights(name):
    result = found(name, "unstructured")
    kernels = [layer.kernel for layer in trained().layers if hasattr(layer, "kernel")]
    size = sum(int(np.prod(kernel.shape)) for kernel in kernels)
    zeros = sum(weight_zeros(result.model).values())
    assert result.model is result.pruned
    assert 0.9 * size <= zeros <= 0.9 * size + 2
    assert result.sparsity == zeros / size


@pytest.mark.parametrize(
    ("name", "pattern"),
    [
        *((name, "filter") for name in searches()),
        *((name, "unstructured") for name in searches() if name != "AutoCompress"),
    ],
)
def test_the_allocation_is_handed_over_to_gradual_training(name, pattern):
    result = found(name, pattern)
    schedule = tfprune.PolynomialDecay(0.0, result.sparsity, 0, 4, frequency=1)
    scope = result.to_distribution()
    arguments = {"pattern": pattern}
    by_scope = tfprune.prune_low_magnitude(trained(), schedule, scope=scope, **arguments)
    rules = result.to_rules(schedule)
    by_rules = tfprune.prune_low_magnitude(trained(), schedule, rules=rules, **arguments)
    counts = []
    for model in (by_scope, by_rules):
        update = tfprune.UpdatePruningStep(model)
        for _ in range(4):
            update.step()
        counts.append([weight_zeros(model)])
    assert counts[0] == counts[1]
    if result.pruned is not None:
        assert counts[0] == [weight_zeros(result.pruned)]


def weight_zeros(model):
    from tfprune._wrapping.wrapper import mask_owners

    masks = {w.name: w.zeros for owner in mask_owners(model) for w in owner.pruned_weights}
    return {name: zeros for name, zeros in masks.items() if zeros}


class Killed(Exception):
    pass


@every_search
def test_a_killed_run_goes_on_with_the_same_result(name, tmp_path):
    calls = {"evaluate": 0, "train": 0}

    def counted(model, fails_at=None):
        calls["evaluate"] += 1
        if calls["evaluate"] == fails_at:
            raise KeyboardInterrupt
        return evaluate(model)

    def noted(model, callback):
        calls["train"] += 1
        (train_longer if name == "AutoCompress" else train)(model, callback)

    whole = search_of(name).run(counted, tmp_path / "whole", noted, verbose=0)
    needed = dict(calls)
    calls.update(evaluate=0, train=0)
    with pytest.raises(KeyboardInterrupt):
        failing = functools.partial(counted, fails_at=5)
        search_of(name).run(failing, tmp_path / "folder", noted, verbose=0)
    result = search_of(name).run(counted, tmp_path / "folder", noted, verbose=0)
    # What was done is not done again, but for the evaluation in which it was killed.
    assert calls == {**needed, "evaluate": needed["evaluate"] + 1}
    assert [trial.zeros for trial in result.trials] == [trial.zeros for trial in whole.trials]
    assert [trial.metrics for trial in result.trials] == [trial.metrics for trial in whole.trials]
    for one, other in ((result.model, whole.model), (result.pruned, whole.pruned)):
        if one is not None:
            assert same(arrays(one), arrays(other))
            assert same(states(one), states(other))
    assert result.allocation == whole.allocation
    assert result.costs == whole.costs


@every_search
def test_table_plot_and_plain_data(name, tmp_path):
    result = found(name)
    text = str(result)
    assert name in text and "MACs" in text and "one" in text
    assert json.loads(json.dumps(result.to_dict()))["shares"] == result.shares
    result.plot(tmp_path / "search.png")
    assert (tmp_path / "search.png").stat().st_size > 1000


def test_a_layer_whose_name_ends_the_path_of_another_gets_its_own_share():
    names = ("a", "b")
    inner = [layers.Dense(16, activation="relu", name=name) for name in names]
    inputs = keras.Input((8,))
    x = keras.Sequential([keras.Input((8,)), *inner], name="inner")(inputs)
    x = layers.Dense(16, activation="relu", name="a")(x)
    model = keras.Model(inputs, layers.Dense(2)(x))
    units = {"inner/a": 4, "inner/b": 12, "a": 8}
    rows = tuple(
        pruners.search.result.LayerShare(f"{path}/kernel", (path,), 16, 16 - left)
        for path, left in units.items()
    )
    given = pruners.SearchResult("by hand", "loss", {}, {}, {}, rows, [])
    schedule = tfprune.ConstantSparsity(given.sparsity, 0)
    for how in ({"scope": given.to_distribution()}, {"rules": given.to_rules(schedule)}):
        pruned = tfprune.prune_low_magnitude(model, schedule, pattern="filter", **how)
        tfprune.UpdatePruningStep(pruned)
        small = tfprune.shrink(pruned)
        assert [small.get_layer("inner").get_layer(name).units for name in names] == [4, 12]
        assert small.get_layer("a").units == 8


@pytest.mark.parametrize("recalibrate", [None, False])
def test_candidates_get_new_statistics_unless_asked_otherwise(recalibrate):
    objective = pruners.Objective(recalibrate=recalibrate, **BATCHES)
    data = digits()[0] if recalibrate is None else None
    search = search_of("SensitivitySearch", data=data, objective=objective, levels=1)
    means = []

    def noted(model):
        norm = model.get_layer("norm").inner
        means.append(np.array(ops.convert_to_numpy(norm.moving_mean)))
        return evaluate(model)

    search.run(noted, verbose=0)
    old = ops.convert_to_numpy(trained().get_layer("norm").moving_mean)
    # The second candidate is without most filters of the layer before; their means are masked.
    kept = means[1] != 0
    assert 1 <= kept.sum() < 8
    assert np.array_equal(means[1][kept], old[kept]) == (recalibrate is False)
    if recalibrate is None:
        outputs = trained().layers[0](digits()[0][0][:200])
        expected = np.mean(ops.convert_to_numpy(outputs), axis=(0, 1, 2))
        np.testing.assert_allclose(means[0], expected, atol=1e-4)


def test_an_objective_is_its_config():
    objective = pruners.Objective("beauty", mode="max", recalibrate=False, batches=3, batch_size=5)
    assert pruners.Objective.from_config(objective.get_config()) == objective
    names = {
        "loss": "min",
        "val_mse": "min",
        "accuracy": "max",
        "top_k_categorical_accuracy": "max",
    }
    assert {name: pruners.Objective(name).direction for name in names} == names
    config = keras.saving.serialize_keras_object(objective)
    assert keras.saving.deserialize_keras_object(config) == objective


# -- NetAdapt --------------------------------------------------------------------------------------


def branches():
    """Two layers of five filters, each with equal weights, side by side."""
    inputs = keras.Input((4,))
    both = [layers.Dense(5, use_bias=False, name=name)(inputs) for name in ("a", "b")]
    outputs = layers.Dense(1, name="out")(layers.Concatenate()(both))
    model = keras.Model(inputs, outputs)
    sizes = np.random.default_rng(3).uniform(0.5, 2, size=(2, 5))
    for name, own in zip("ab", sizes, strict=True):
        model.get_layer(name).kernel.assign(np.broadcast_to(own, (4, 5)))
    return model, sizes


def left_of(model):
    """Sum of the squares of the remaining weights: more is better."""
    return sum(float(np.sum(np.square(model.get_layer(name).inner.kernel))) for name in "ab")


@pytest.mark.parametrize("removed", [2, 4, 6])
def test_netadapt_finds_what_exhaustive_search_finds(removed):
    model, sizes = branches()
    ordered = np.sort(sizes, axis=1)
    possible = [pair for pair in itertools.product(range(5), repeat=2) if sum(pair) == removed]
    lost = {pair: sum((ordered[i][:n] ** 2).sum() for i, n in enumerate(pair)) for pair in possible}
    worth = pruners.Objective("worth", mode="max")
    search = pruners.NetAdapt(
        model, {"macs": 1 - removed / 10}, steps=removed, decay=1, objective=worth, least=0.0
    )
    result = search.run(left_of, verbose=0)
    assert tuple(round(5 * share) for share in result.shares.values()) == min(lost, key=lost.get)
    # The searched model is not compiled, so what is found is not either.
    assert not result.model.compiled and not result.pruned.compiled
    # The amount is computed again in each step: no step is lost, and none is made twice.
    assert len(result.trials) <= 2 * removed


@pytest.mark.parametrize(("start", "decay"), [(2.0, 0.96), (10 / 3, 0.96), (5.0, 1.0), (20.0, 0.9)])
def test_the_steps_lead_to_the_budget(start, decay):
    from tfprune.pruners.search.netadapt import loads_of

    loads = [start, *loads_of(start, None, decay)]
    steps = -np.diff(loads)
    np.testing.assert_allclose(steps[1:], steps[:-1] * decay, rtol=1e-9)
    assert loads[-1] == 1.0 and steps[-1] >= 0.1 * steps[0] * decay - 1e-12
    if start == 2.0:
        # 2.5 % of the model in the first, as the authors'.
        assert steps[0] <= 0.025 * start and loads_of(start, None, decay)[0] > 1.94
    assert loads_of(1.5, 1, decay) == [1.0] and loads_of(0.9, None, decay) == []


def test_only_the_least_sensitive_layers_are_tried():
    tried = search_of("NetAdapt", steps=6, candidates=1).run(evaluate, verbose=0).trials
    steps = [trial.what.split(":")[0] for trial in tried]
    assert steps.count("step 1") > 1 and steps.count("step 5") == steps.count("step 6") == 1


def test_netadapt_with_a_training_of_each_candidate(tmp_path):
    search = search_of("NetAdapt", steps=2, train_candidates=True)
    one = search.run(evaluate, tmp_path, train, verbose=0)
    # All from the folder: nothing is trained or evaluated again.
    again = search.run(lambda model: 1 / 0, tmp_path, lambda model, callback: 1 / 0, verbose=0)
    assert same(arrays(one.model), arrays(again.model))
    assert one.costs["macs"] <= 0.5 * one.dense["macs"]
    with pytest.raises(ValueError, match=r"Expected `train` for train_candidates=True"):
        search.run(evaluate, verbose=0)


def test_training_goes_on_after_the_filters_are_removed_as_if_they_were_masked():
    keras.utils.set_random_seed(1)
    hidden = [layers.Dense(12, activation="relu", name=name) for name in ("one", "two")]
    model = keras.Sequential([keras.Input((8, 8, 1)), layers.Flatten(), *hidden, layers.Dense(10)])
    search = pruners.NetAdapt(compiled(model), {"macs": 0.5}, steps=2)
    result = search.run(evaluate, train=train, verbose=0)
    small, masked = result.model, result.pruned
    steps = [int(ops.convert_to_numpy(m.optimizer.iterations)) for m in (small, masked)]
    assert steps == [4, 4] and small.get_layer("one").units < 12
    x, y = digits()[0]
    options = {"batch_size": 64, "epochs": 2, "shuffle": False, "verbose": 0}
    after = small.fit(x[:256], y[:256], **options).history["loss"]
    callbacks = [tfprune.UpdatePruningStep()]
    expected = masked.fit(x[:256], y[:256], **options, callbacks=callbacks).history["loss"]
    np.testing.assert_allclose(after, expected, rtol=1e-4)


def test_training_goes_on_with_the_optimizer_that_there_is():
    seen = []

    def noted(model, callback):
        seen.append(int(ops.convert_to_numpy(model.optimizer.iterations)))
        train(model, callback)

    search_of("NetAdapt").run(evaluate, train=noted, verbose=0)
    assert seen == [0, 2, 4]


# -- Simulated annealing ---------------------------------------------------------------------------


def test_annealing_takes_its_number_of_evaluations_and_meets_the_budget_each_time():
    result = search_of("SimulatedAnnealing", evaluations=20).run(evaluate, verbose=0)
    # A candidate that is drawn again is not evaluated again.
    assert 10 <= len(result.trials) == len({trial.zeros for trial in result.trials}) <= 20
    assert all(trial.costs["macs"] <= 0.5 * result.dense["macs"] for trial in result.trials)
    assert all(trial.costs["macs"] >= 0.4 * result.dense["macs"] for trial in result.trials)
    assert result.best.badness == min(trial.badness for trial in result.trials)


def test_high_sparsities_are_drawn_without_rejection():
    options = {"pattern": "unstructured", "evaluations": 12}
    result = search_of("SimulatedAnnealing", budget={"sparsity": 0.98}, **options).run(
        evaluate, verbose=0
    )
    assert result.sparsity >= 0.98 and len(result.trials) == 12


def test_annealing_starts_from_another_search():
    start = found("SensitivitySearch")
    result = search_of("SimulatedAnnealing", start=start, evaluations=5).run(evaluate, verbose=0)
    assert result.trials[0].what == "from start" and result.trials[0].zeros == start.best.zeros
    assert result.best.badness <= start.best.badness + 1e-9


# -- Budgets ---------------------------------------------------------------------------------------


def test_several_budgets_whole_numbers_and_multiples():
    macs = tfprune.model_cost(trained()).macs
    budget = {"macs": macs // 2, "parameters": 0.7}
    pattern = tfprune.Filter(round_to=4)
    result = search_of("SensitivitySearch", budget=budget, pattern=pattern).run(evaluate, verbose=0)
    assert result.costs["macs"] <= macs // 2
    assert result.costs["parameters"] <= 0.7 * result.dense["parameters"]
    widths = [layer.filters for layer in result.model.layers if hasattr(layer, "filters")]
    assert all(width % 4 == 0 for width in widths)


@pytest.mark.parametrize(("slower", "runtime"), [(1.0, "keras"), (1.2, "onnx")])
def test_latency_is_measured_on_the_result(slower, runtime, monkeypatch):
    """By a machine whose seconds are multiplications; the result is slower than the table says."""
    measured, asked = [], []

    def measure(self, models, runs):
        asked.append((self._format.name, self._how["threads"]))
        macs = {name: tfprune.model_cost(model).macs for name, model in models.items()}
        if "after" in macs:
            measured.append(models["after"])
            macs["after"] *= slower
        return {name: types.SimpleNamespace(median=number) for name, number in macs.items()}

    monkeypatch.setattr("tfprune._reports.runtime_meter.RuntimeMeter.measure", measure)
    search = search_of("SensitivitySearch", budget={"latency": 0.5}, runtime=runtime)
    result = search.run(evaluate, verbose=0)
    assert set(asked) == {(runtime, None if runtime == "keras" else 1)}
    macs = tfprune.model_cost(result.model).macs
    assert result.costs["latency"] == slower * macs <= 0.5 * result.dense["latency"]
    assert macs >= 0.4 / slower * result.dense["macs"]
    # It was measured before it was compiled, and again where it was too slow.
    assert measured[-1] is result.model and (len(measured) > 1) == (slower > 1)
    assert "Latency" in str(result)


def test_a_model_that_meets_the_budget_already():
    result = search_of("NetAdapt", budget={"macs": 10**9}).run(evaluate, verbose=0)
    assert result.trials == [] and result.sparsity == 0.0
    assert result.costs["macs"] == result.dense["macs"]


# -- Bad input -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "error", "line"),
    [
        ({"budget": {"macs": 1e-5}}, ValueError, "budget that can be reached.*still has macs"),
        ({"budget": {"macs": 50}}, ValueError, "Did you mean 0.5"),
        ({"budget": {"latency": 50.0}}, ValueError, "did you mean 0.5|Did you mean 0.5"),
        ({"budget": {"size": 0.5}}, ValueError, "one or more of 'sparsity'"),
        ({"budget": 0.5}, TypeError, "`budget` to be a dictionary"),
        ({"pattern": "n_of_m", "budget": {"sparsity": 0.5}}, ValueError, "any sparsity"),
        ({"pattern": "unstructured", "budget": {"latency": 0.5}}, ValueError, "whole filters"),
        ({"objective": "beauty"}, ValueError, "`mode` for a metric.*mode="),
        ({"objective": 3}, TypeError, "`objective` to be a tfprune.pruners.Objective"),
        ({"data": None}, ValueError, "statistics of BatchNormalization"),
        ({"runtime": "tensorrt"}, ValueError, "`runtime` to be one of 'keras'"),
        ({"runtime": "onnx"}, ValueError, "a target in latency where `runtime` is given"),
        ({"objective": {"mode": "up"}}, ValueError, "`mode` to be one of"),
        ({"objective": {"metric": 3}}, TypeError, "`metric` to be a name"),
        ({"objective": {"batches": 0}}, ValueError, "`batches` to be at least 1"),
        ({"objective": {"recalibrate": "yes"}}, TypeError, "`recalibrate` to be True"),
        ({"rules": [tfprune.Rule("*", prune=False)]}, ValueError, "one prunable weight"),
        ({"least": 1.5}, ValueError, "`least` to be a fraction"),
        ({"rules": [tfprune.Rule("one", pattern="row")]}, ValueError, "leave schedule and pattern"),
    ],
    ids=lambda value: str(value)[:30],
)
def test_arguments_that_do_not_fit(change, error, line):
    before = arrays(trained())
    with pytest.raises(error, match=f"(?s)Expected.*({line})"):
        if isinstance(change.get("objective"), dict):
            change = {"objective": pruners.Objective(**change["objective"])}
        search_of("SensitivitySearch", **change).run(evaluate, verbose=0)
    assert same(before, arrays(trained()))


def trains_too(model):
    model.layers[-1].bias.assign(model.layers[-1].bias + 1)
    return evaluate(model)


@pytest.mark.parametrize(
    ("bad", "error", "line"),
    [
        (lambda model: float("nan"), ValueError, "finite number.*nan"),
        (lambda model: "good", TypeError, "a number or a dictionary"),
        (lambda model: {"accuracy": 0.5}, ValueError, "`metric` to be one of 'accuracy'"),
        (lambda model: 1 / 0, ValueError, "ZeroDivisionError: division by zero"),
        (trains_too, ValueError, "leave the model unchanged"),
        (None, TypeError, "`evaluate` to be a function"),
    ],
    ids=["nan", "text", "another metric", "raises", "trains", "none"],
)
def test_an_evaluate_that_does_not_work(bad, error, line, tmp_path):
    objective = pruners.Objective(mode="min", **BATCHES)
    search = search_of("SimulatedAnnealing", objective=objective, evaluations=4)
    calls = []

    def good_at_first(model):
        calls.append(model)
        return evaluate(model) if len(calls) == 1 else bad(model)

    with pytest.raises(error, match=f"(?s)Expected.*{line}"):
        search.run(good_at_first if bad else None, tmp_path, verbose=0)
    kept = sorted(path.name for path in tmp_path.iterdir())
    assert kept == (["config.json", "trial_00000.npz"] if bad else [])
    if bad:
        # A run with this folder continues from there.
        assert len(search.run(evaluate, tmp_path, verbose=0).trials) == 4


def adds_weights(model, callback):
    model.get_layer("three").inner.enable_lora(2)
    train(model, callback)


def changes_masks(model, callback):
    from tfprune._wrapping.wrapper import mask_owners

    train(model, callback)
    weight = mask_owners(model)[0].pruned_weights[0]
    weight.set_mask(~np.array(ops.convert_to_numpy(weight.mask), dtype=bool))


@pytest.mark.parametrize(
    ("name", "bad", "line"),
    [
        ("NetAdapt", lambda model, callback: None, "use the callback that it is given"),
        ("NetAdapt", adds_weights, "`train` to keep the model's layers and shapes"),
        ("NetAdapt", changes_masks, "`train` to keep the masks"),
        ("NetAdapt", 3, "`train` to be a function"),
        ("AutoCompress", adds_weights, "`train` to keep the model's layers and shapes"),
        ("AutoCompress", None, "`train`, in which ADMM pulls"),
    ],
)
def test_a_train_that_does_not_work(name, bad, line, tmp_path):
    before = arrays(trained())
    with pytest.raises((ValueError, TypeError), match=f"(?s)Expected.*{line}"):
        search_of(name).run(evaluate, tmp_path, bad, verbose=0)
    assert same(before, arrays(trained()))
    # What was evaluated before is kept.
    kept = list(tmp_path.rglob("trial_*.npz"))
    assert bool(kept) == callable(bad)


@pytest.mark.parametrize("name", ["SimulatedAnnealing", "AutoCompress"])
def test_candidates_drawn_without_a_seed_are_not_kept_in_a_folder(name, tmp_path):
    path = tmp_path / "new"
    with pytest.raises(ValueError, match=r"a seed where `path` is given.*seed=None.*seed=0"):
        search_of(name, seed=None).run(evaluate, path, train, verbose=0)
    assert not path.exists()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("search")
    search_of("SensitivitySearch").run(evaluate, path, verbose=0)
    return path


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ({"seed": 1}, "seed=1.*seed=0"),
        ({"budget": {"macs": 0.6}}, "budget"),
        ({"model": "other"}, "weights="),
        ({"data": "other"}, "data="),
        ({"levels": 3}, "levels=3.*levels=2"),
        ({"objective": "accuracy"}, "objective=.*'accuracy'.*'loss'"),
        ({"rules": [tfprune.Rule("two", criterion="random")]}, "competitors=.*Random"),
    ],
    ids=str,
)
def test_a_folder_of_another_run(change, line, folder):
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    if change.get("model"):
        other = tfprune.strip_pruning(trained())
        other.layers[0].kernel.assign(other.layers[0].kernel * 2)
        change = {"model": compiled(other)}
    if change.get("data"):
        change = {"data": digits()[1]}
    with pytest.raises(ValueError, match=f"`path` to hold evaluations of this conf.*{line}"):
        search_of("SensitivitySearch", **change).run(evaluate, folder, verbose=0)
    assert before == {path.name: path.read_bytes() for path in folder.iterdir()}
