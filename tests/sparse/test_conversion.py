"""From a pruned model to a sparse one: choices, files, and what is refused."""

import keras
import numpy as np
import pytest
from keras import layers
from keras_support import outputs
from sparse_support import attention_model, inputs_of, run_elsewhere, with_zeros

import tfprune
from tfprune import sparse
from tfprune._formats.processors import limited_to
from tfprune.sparse import conversion
from tfprune.sparse.timing import Race, race

BACKEND = keras.backend.backend()
SPARSE = {"patches", "pointwise", "einsum", "out"} | {
    f"attention/{name}" for name in ("query", "key", "value", "attention_output")
}


@pytest.fixture(scope="module")
def model():
    return attention_model()


@pytest.fixture(scope="module")
def plan(model):
    return tfprune.plan_sparse(model, prefer="size")


@pytest.fixture
def dense():
    inputs = [keras.Input((40,)), *(layers.Dense(40, name=f"layer_{n}") for n in range(3))]
    return with_zeros(keras.Sequential(inputs))


@pytest.fixture
def gains(monkeypatch):
    """Gains by layer name, instead of those of a clock; the model is "whole"."""
    found = {}

    def timed(slow, fast, calls, runs):
        gain = found.get(slow.name, found["whole"])
        return Race(gain, 1.0, gain)

    monkeypatch.setattr(conversion, "race", timed)
    return found


# -- Outputs ---------------------------------------------------------------------------------------


def test_all_that_can_be_sparse_is_and_computes_the_same(model, plan):
    assert {row.layer for row in plan.rows if row.sparse} == SPARSE
    converted = plan.apply()
    for batch in (1, 3):
        x = inputs_of(batch)
        expected = outputs(model, x)
        assert np.ptp(expected) > 0.1
        np.testing.assert_allclose(outputs(converted, x), expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(
        converted.predict_on_batch(x), outputs(converted, x), rtol=1e-5, atol=1e-6
    )


def test_layers_keep_their_names_and_order(model, plan):
    found, expected = ([layer.name for layer in m.layers[1:]] for m in (plan.apply(), model))
    assert found == expected
    assert isinstance(plan.apply().get_layer("attention"), sparse.SparseInside)


def test_reasons_of_layers_that_stay(plan):
    reasons = {row.layer: row.reason for row in plan.rows if not row.sparse}
    assert reasons == {
        "depthwise": "no sparse form of DepthwiseConv2D",
        "memory/lstm_cell": "no sparse form of LSTMCell",
    }


def test_a_wrapped_model_is_stripped_and_stays_as_it_was(dense):
    pruned = tfprune.pruners.one_shot(dense, 0.95)
    before = [keras.ops.convert_to_numpy(variable) for variable in pruned.variables]
    converted = tfprune.to_sparse(pruned, prefer="size")
    assert sum(layer.nonzeros for layer in converted.layers) == 240
    x = inputs_of(2, (40,))
    np.testing.assert_allclose(outputs(converted, x), outputs(pruned, x), rtol=1e-4, atol=1e-5)
    for variable, value in zip(pruned.variables, before, strict=True):
        assert np.array_equal(keras.ops.convert_to_numpy(variable), value)


def test_nested_models_and_layers_that_are_called_twice():
    inner = keras.Sequential([keras.Input((8,)), layers.Dense(8, name="deep")], name="inner")
    twice = layers.Dense(8, name="twice")
    inputs = keras.Input((8,))
    model = with_zeros(keras.Model(inputs, twice(inner(twice(inputs)))), 0.8)
    plan = tfprune.plan_sparse(model, prefer="size")
    assert {row.layer: row.sparse for row in plan.rows} == {"twice": True, "inner/deep": True}
    x = inputs_of(3, (8,))
    np.testing.assert_allclose(outputs(plan.apply(), x), outputs(model, x), rtol=1e-4, atol=1e-5)


# -- Choosing by speed -----------------------------------------------------------------------------


def test_only_what_is_faster_becomes_sparse(dense, gains):
    gains.update(layer_0=3.0, layer_1=1.01, layer_2=0.5, whole=2.0)
    plan = tfprune.plan_sparse(dense, inputs_of(4, (40,)))
    assert [(row.sparse, row.reason, row.gain) for row in plan.rows] == [
        (True, "faster", 3.0),
        (False, "no faster", 1.01),
        (False, "slower", 0.5),
    ]
    kinds = [type(layer).__name__ for layer in plan.apply().layers]
    assert kinds == ["SparseDense", "Dense", "Dense"] and plan.gain == 2.0


def test_a_model_that_is_slower_in_the_end_stays_dense(dense, gains):
    gains.update(layer_0=3.0, layer_1=3.0, layer_2=0.5, whole=0.8)
    plan = tfprune.plan_sparse(dense, inputs_of(4, (40,)))
    assert [row.sparse for row in plan.rows] == [False] * 3
    assert plan.rows[0].reason == "faster alone, but the whole model is slower"
    assert {type(layer).__name__ for layer in plan.apply().layers} == {"Dense"}


def test_layers_are_timed_on_the_inputs_that_they_get(dense, monkeypatch):
    seen = {}

    def timed(slow, fast, calls, runs):
        seen[slow.name] = [tuple(call.shape) for call in calls], runs
        return Race(2.0, 1.0, 2.0)

    monkeypatch.setattr(conversion, "race", timed)
    tfprune.plan_sparse(dense, inputs_of(7, (40,)), runs=3)
    assert seen["layer_1"] == ([(7, 40)], 3)


def test_a_race_runs_both_sides(dense):
    form = conversion.sparse_form(dense.layers[0], (2, 40))
    found = race(dense.layers[0], form, [keras.ops.convert_to_tensor(inputs_of(2, (40,)))], 2)
    assert min(found.dense, found.sparse, found.gain) > 0


@pytest.mark.skipif(BACKEND != "torch", reason="PyTorch alone tells its number of threads")
def test_threads_are_given_back():
    import torch

    before = torch.get_num_threads()
    with limited_to(1):
        assert torch.get_num_threads() == 1
    assert torch.get_num_threads() == before


# -- Table -----------------------------------------------------------------------------------------


def test_the_table_says_which_by_how_much_and_why_not(dense, gains):
    gains.update(layer_0=3.0, layer_1=1.01, layer_2=0.5, whole=2.0)
    plan = tfprune.plan_sparse(dense, inputs_of(4, (40,)))
    text = str(plan)
    for part in ("3.00x", "sparse: faster", "1.01x", "dense: no faster", "0.50x", "dense: slower"):
        assert part in text
    assert "whole model" in text and plan.to_dict()["layers"][0]["gain"] == 3.0


def test_a_model_without_zeros_says_that_nothing_pays():
    model = keras.Sequential([keras.Input((8,)), layers.Dense(4), layers.Dense(4)])
    with pytest.warns(UserWarning, match="dense: fewer than half of the weights are zero"):
        found = tfprune.to_sparse(model)
    assert {type(layer).__name__ for layer in found.layers} == {"Dense"} and found is not model
    with pytest.warns(UserWarning, match="no layer with a kernel"):
        tfprune.to_sparse(keras.Sequential([keras.Input((8,)), layers.ReLU()]))


# -- Files -----------------------------------------------------------------------------------------


def test_it_is_saved_and_loaded(plan, tmp_path):
    plan.apply().save(tmp_path / "small.keras")
    loaded = keras.saving.load_model(tmp_path / "small.keras")
    x = inputs_of(3)
    assert np.array_equal(outputs(loaded, x), outputs(plan.apply(), x))
    plan.apply().save_weights(tmp_path / "small.weights.h5")
    fresh = keras.models.clone_model(plan.apply())
    fresh.load_weights(tmp_path / "small.weights.h5")
    assert np.array_equal(outputs(fresh, x), outputs(plan.apply(), x))


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["tensorflow", "jax", "torch"])
def test_it_is_loaded_in_a_new_process_on_any_backend(plan, backend, tmp_path):
    pytest.importorskip(backend)
    plan.apply().save(tmp_path / "small.keras")
    x = inputs_of(3)
    found = run_elsewhere(tmp_path / "small.keras", tmp_path, x, backend)
    np.testing.assert_allclose(found, outputs(plan.apply(), x), rtol=1e-4, atol=1e-5)


def test_at_95_percent_a_file_is_a_sixth_of_the_dense_one(tmp_path):
    model = keras.Sequential([keras.Input((512,)), *(layers.Dense(512) for _ in range(2))])
    pruned = tfprune.pruners.one_shot(model, 0.95)
    model.save(tmp_path / "dense.keras")
    tfprune.to_sparse(pruned, prefer="size").save(tmp_path / "sparse.keras")
    sizes = [(tmp_path / f"{name}.keras").stat().st_size for name in ("sparse", "dense")]
    assert sizes[0] <= sizes[1] / 6


def test_a_file_of_another_model_is_refused(plan, tmp_path):
    plan.apply().save_weights(tmp_path / "one.weights.h5")
    other = tfprune.to_sparse(with_zeros(attention_model(), 0.7, seed=5), prefer="size")
    with pytest.raises(ValueError, match=r"Expected a file with .* weights"):
        other.load_weights(tmp_path / "one.weights.h5")


# -- Refusals --------------------------------------------------------------------------------------


def test_fit_is_refused(dense):
    converted = tfprune.to_sparse(dense, prefer="size")
    converted.compile("sgd", "mse")
    x = inputs_of(4, (40,))
    with pytest.raises(ValueError, match="Expected a sparse model to be used only for prediction"):
        converted.fit(x, x, verbose=0)
    # JAX's fit would have lost the weights if it had begun.
    assert converted.evaluate(x, x, verbose=0) > 0


def test_arguments_are_checked(dense):
    with pytest.raises(TypeError, match="Expected a Keras 3 layer or model"):
        tfprune.to_sparse("model.keras")
    with pytest.raises(ValueError, match="Expected a built model"):
        tfprune.to_sparse(keras.Sequential([layers.Dense(4)]))
    with pytest.raises(ValueError, match=r"fits the input shapes of .* \(2, 41\)"):
        tfprune.to_sparse(dense, inputs_of(2, (41,)))
    with pytest.raises(ValueError, match="`prefer` to be one of 'speed', 'size'"):
        tfprune.to_sparse(dense, prefer="bytes")
    with pytest.raises(ValueError, match="`runs` to be at least 1"):
        tfprune.to_sparse(dense, runs=0)
    with pytest.raises(ValueError, match="`threads` to be at least 1"):
        tfprune.to_sparse(dense, threads=0)
