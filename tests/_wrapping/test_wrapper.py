"""The wrapper itself: what it holds, saves, enforces and leaves alone."""

import warnings

import keras
import numpy as np
import pytest
from keras import layers, ops

import tfprune

pytestmark = pytest.mark.usefixtures("fresh")

HALF = tfprune.ConstantSparsity(0.5, begin_step=0)


def model_of(*wrapped, width=6):
    return keras.Sequential([keras.Input((width,)), *wrapped])


def one(schedule=HALF, units=8, **kwargs):
    """A model with one wrapped Dense, the wrapper, and its one pruned weight."""
    wrapper = tfprune.PruneLowMagnitude(layers.Dense(units, **kwargs), schedule)
    model = model_of(wrapper)
    return model, wrapper, wrapper.pruned_weights[0]


def data(number=8, width=6, out=8):
    random = np.random.default_rng(0)
    return (random.normal(size=(number, n)).astype("float32") for n in (width, out))


# -- Variables -------------------------------------------------------------------------------------


def test_variables_are_held_once():
    _, wrapper, weight = one()
    assert [v.name for v in wrapper.trainable_weights] == ["kernel", "bias"]
    assert [v.name for v in wrapper.non_trainable_weights] == ["kernel_mask"]
    names = [v.name for v in wrapper.variables]
    assert sorted(names) == ["bias", "kernel", "kernel_mask", "pruning_state"]
    assert weight.mask.dtype == "bool" and weight.mask.shape == weight.variable.shape == (6, 8)
    assert weight.mask.numpy().all()


def test_names_and_paths():
    wrapper = tfprune.PruneLowMagnitude(
        layers.Bidirectional(layers.LSTM(2, name="lstm"), name="both")
    )
    assert wrapper.name == "both"
    model = keras.Sequential([keras.Input((5, 3)), wrapper])
    paths = [v.path for v in model.variables]
    assert len(set(paths)) == len(paths)
    assert [w.path for w in wrapper.pruned_weights] == [
        "forward_lstm/lstm_cell/kernel",
        "forward_lstm/lstm_cell/recurrent_kernel",
        "backward_lstm/lstm_cell/kernel",
        "backward_lstm/lstm_cell/recurrent_kernel",
    ]


def test_the_layer_is_used_as_it_is():
    layer = layers.Dense(8)
    assert tfprune.PruneLowMagnitude(layer).layer is layer


def test_losses_and_metrics_of_the_layer_come_through():
    _, wrapper, _ = one(kernel_regularizer=keras.regularizers.L2(0.5))
    (loss,) = wrapper.losses
    np.testing.assert_allclose(loss, 0.5 * np.sum(wrapper.layer.kernel.numpy() ** 2), rtol=1e-6)
    activity = tfprune.PruneLowMagnitude(layers.Dense(2, activity_regularizer="l1"))
    output = activity(np.ones((1, 6), "float32"))
    np.testing.assert_allclose(activity.losses[0], 0.01 * np.abs(output).sum(), rtol=1e-5)


def test_trainable_is_the_layers():
    frozen = layers.Dense(2, trainable=False)
    assert not tfprune.PruneLowMagnitude(frozen).trainable
    model, wrapper, _ = one()
    wrapper.trainable = False
    assert not wrapper.layer.trainable and not model.trainable_weights
    wrapper.trainable = True
    assert [v.name for v in model.trainable_weights] == ["kernel", "bias"]


# -- Its configuration -------------------------------------------------------------------------


WRAPPERS = {
    "defaults": lambda: tfprune.PruneLowMagnitude(layers.Dense(4)),
    "as in tfmot": lambda: tfprune.PruneLowMagnitude(layers.Dense(4), HALF, (2, 2), "MAX"),
    "N:M as in tfmot": lambda: tfprune.PruneLowMagnitude(
        layers.Dense(4), HALF, (1, 1), "AVG", (2, 4)
    ),
    "keywords": lambda: tfprune.PruneLowMagnitude(
        layers.Dense(4), HALF, pattern="filter", scope="global", criterion="magnitude", name="mine"
    ),
    "rules": lambda: tfprune.prune_low_magnitude(
        layers.Bidirectional(layers.GRU(2)),
        HALF,
        rules=[
            tfprune.Rule("*/forward*", tfprune.ConstantSparsity(0.75, 0)),
            tfprune.Rule("*/backward*", prune=False),
        ],
    ),
}


@pytest.mark.parametrize("name", WRAPPERS)
def test_config_round_trip(name):
    wrapper = WRAPPERS[name]()
    config = wrapper.get_config()
    copy = tfprune.PruneLowMagnitude.from_config(config)
    assert copy.get_config() == config and copy.name == wrapper.name
    x = np.ones((1, 3, 4) if name == "rules" else (1, 4), "float32")
    for item in (wrapper, copy):
        item(x)
    methods = [[(w.path, w.method) for w in item.pruned_weights] for item in (wrapper, copy)]
    assert methods[0] == methods[1] and methods[0]


@pytest.mark.parametrize(
    ("name", "pattern"),
    [
        ("defaults", tfprune.Unstructured()),
        ("as in tfmot", tfprune.Block((2, 2), "MAX")),
        ("N:M as in tfmot", tfprune.NOfM(zeros=2, group=4)),
        ("keywords", tfprune.Filter()),
    ],
)
def test_arguments(name, pattern):
    wrapper = WRAPPERS[name]()
    wrapper.build((None, 4))
    assert wrapper.pruned_weights[0].method.pattern == pattern


# -- The mask in force -------------------------------------------------------------------------


def set_mask(weight):
    mask = np.zeros(weight.mask.shape, bool)
    mask.ravel()[::2] = True
    weight.set_mask(mask)
    return mask


def test_masked_values_are_plus_zero():
    _, _, weight = one()
    weight.variable.assign(-np.ones((6, 8), "float32"))
    mask = set_mask(weight)
    value = weight.variable.numpy()
    np.testing.assert_array_equal(value, np.where(mask, -1, 0))
    assert not np.signbit(value[~mask]).any()
    assert (weight.zeros, weight.size) == (24, 48)


def test_what_stood_under_the_mask_does_not_matter():
    _, _, weight = one()
    mask = set_mask(weight)
    dirty = np.where(mask, 2.0, np.nan).astype("float32")
    np.testing.assert_array_equal(weight.variable.constraint(ops.array(dirty)), 2.0 * mask)
    weight.variable.assign(dirty)
    weight.project()
    np.testing.assert_array_equal(weight.variable.numpy(), 2.0 * mask)


def test_user_constraint_comes_first():
    _, _, weight = one(kernel_constraint=keras.constraints.NonNeg())
    mask = set_mask(weight)
    value = np.tile(np.array([[-1.0, -1.0, 3.0, 3.0]], "float32"), (6, 2))
    constrained = ops.convert_to_numpy(weight.variable.constraint(ops.array(value)))
    np.testing.assert_array_equal(constrained, np.where(mask, np.maximum(value, 0), 0))


@pytest.mark.parametrize("optimizer", ["sgd", "adam", "rmsprop", "adamw", "lion"])
def test_every_step_leaves_exact_zeros(optimizer):
    model, _, weight = one()
    x, y = data()
    mask = set_mask(weight)
    model.compile(optimizer, "mse")
    tfprune.UpdatePruningStep(model)
    mask = weight.mask.numpy()
    for _ in range(3):
        before = weight.variable.numpy()
        model.train_on_batch(x, y)
        value = weight.variable.numpy()
        np.testing.assert_array_equal(value == 0, ~mask)
        assert not np.signbit(value[~mask]).any()
        assert (value[mask] != before[mask]).any()


def test_predicting_writes_nothing():
    model, _, weight = one()
    x, y = data()
    mask = set_mask(weight)
    # A value that the mask forbids: only an update or a projection takes it away.
    weight.variable.assign(np.ones((6, 8), "float32"))
    before = [v.numpy() for v in model.weights]
    model.compile("sgd", "mse")
    model.predict(x, verbose=0)
    model.evaluate(x, y, verbose=0)
    model(x)
    for one_value, other in zip(before, model.weights, strict=True):
        np.testing.assert_array_equal(one_value, other.numpy())
    assert mask.sum() == 24


# -- Training without the callback -------------------------------------------------------------


def test_training_without_the_callback_says_so_once():
    model, _, _ = one()
    x, y = data()
    model.compile("sgd", "mse")
    with pytest.warns(UserWarning) as caught:
        model.fit(x, y, verbose=0)
    (message,) = [str(w.message) for w in caught if str(w.message).startswith("Expected")]
    assert f"Expected '{model.name}' to be trained with UpdatePruningStep. Received: " in message
    assert "callbacks=[tfprune.UpdatePruningStep()]" in message
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        model.fit(x, y, verbose=0)


def test_nothing_is_said_otherwise():
    model, _, _ = one()
    x, y = data()
    model.compile("sgd", "mse")
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        model.predict(x, verbose=0)
        model.evaluate(x, y, verbose=0)
        model.fit(x, y, verbose=0, callbacks=[tfprune.UpdatePruningStep()])


# -- Files -------------------------------------------------------------------------------------


def test_file_is_little_larger_than_the_plain_one(tmp_path):
    plain = model_of(layers.Dense(400), layers.Dense(400), width=400)
    pruned = tfprune.prune_low_magnitude(plain, HALF)
    tfprune.UpdatePruningStep(pruned)
    for name, model in (("plain", plain), ("pruned", pruned)):
        model.save(tmp_path / f"{name}.keras")
        model.save_weights(tmp_path / f"{name}.weights.h5")
    for ending in (".keras", ".weights.h5"):
        sizes = [(tmp_path / f"{name}{ending}").stat().st_size for name in ("plain", "pruned")]
        # One bit to 32.
        assert 1.0 < sizes[1] / sizes[0] < 1.06


@pytest.mark.parametrize("ending", [".keras", ".weights.h5"])
def test_masks_and_step_come_back(ending, tmp_path):
    model, wrapper, weight = one()
    mask = set_mask(weight)
    wrapper.mask_set.step = 17
    path = tmp_path / f"model{ending}"
    (model.save if ending == ".keras" else model.save_weights)(path)
    if ending == ".keras":
        loaded = keras.saving.load_model(path)
    else:
        loaded = model_of(tfprune.PruneLowMagnitude(layers.Dense(8), HALF))
        loaded.load_weights(path)
    (other,) = loaded.layers
    assert other.pruning_step == wrapper.pruning_step == 17
    np.testing.assert_array_equal(other.pruned_weights[0].mask, mask)
    assert other.pruned_weights[0].zeros == 24
    np.testing.assert_array_equal(other.layer.kernel, wrapper.layer.kernel)


def test_the_old_file_format_says_what_it_loses(tmp_path):
    model, wrapper, weight = one()
    mask = set_mask(weight)
    wrapper.mask_set.step = 7
    with pytest.warns(UserWarning, match=r"neither the pruning step.*model\.keras") as caught:
        model.save(tmp_path / "old.h5")
    assert len([w for w in caught if "pruning step" in str(w.message)]) == 1
    with warnings.catch_warnings():
        warnings.filterwarnings("error", "Expected", UserWarning)
        loaded = keras.saving.load_model(tmp_path / "old.h5", compile=False)
        model.save(tmp_path / "new.keras")
        model.get_config()
    np.testing.assert_array_equal(loaded.layers[0].pruned_weights[0].mask.numpy(), mask)
    assert loaded.layers[0].pruning_step == 0


@pytest.mark.parametrize("units", [1, 3, 8])
def test_masks_of_any_size_come_back(units, tmp_path):
    """One bit a weight: 6, 18 and 48 weights, of which two do not fill their last byte."""
    model, _, weight = one(units=units)
    mask = set_mask(weight)
    model.save(tmp_path / "model.keras")
    (other,) = keras.saving.load_model(tmp_path / "model.keras").layers
    np.testing.assert_array_equal(other.pruned_weights[0].mask, mask)


# -- Refused -----------------------------------------------------------------------------------


def test_nothing_to_prune():
    message = "Expected 'norm' to have a prunable weight. Received: a LayerNormalization"
    with pytest.raises(ValueError, match=message):
        model_of(tfprune.PruneLowMagnitude(layers.LayerNormalization(name="norm")))
    layer = layers.LayerNormalization(name="norm")
    layer.build((None, 6))
    with pytest.raises(ValueError, match=message):
        tfprune.PruneLowMagnitude(layer)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: tfprune.PruneLowMagnitude(3), TypeError, "Received: layer=int"),
        (
            lambda: tfprune.PruneLowMagnitude(tfprune.PruneLowMagnitude(layers.Dense(2, name="d"))),
            ValueError,
            "Received: 'd', which is wrapped already",
        ),
        (
            lambda: tfprune.PruneLowMagnitude(layers.Dense(2), HALF, (2, 2), "AVG", (2, 4)),
            ValueError,
            "Received: block_size and sparsity_m_by_n together",
        ),
        (
            lambda: model_of(tfprune.PruneLowMagnitude(layers.Dense(2), HALF, (9, 1))),
            ValueError,
            "Expected a block no larger than kernel, 6 inputs by 2 outputs",
        ),
        (
            lambda: tfprune.PruneLowMagnitude(layers.Dense(2)).load_own_variables({}),
            ValueError,
            "to be built before its masks are loaded. Received: an unbuilt layer",
        ),
    ],
    ids=["no layer", "wrapped", "two patterns", "large block", "load unbuilt"],
)
def test_refused(call, error, message):
    with pytest.raises(error, match=message):
        call()
