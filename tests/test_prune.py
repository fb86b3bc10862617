"""Wrapping and stripping whole models, rules, plain weights, and what is refused."""

import inspect

import keras
import numpy as np
import pytest
from keras import layers, ops
from pruned_models import (
    Logging,
    Subclassed,
    WrapsItself,
    at_once,
    check_exact,
    data_for,
    equal,
    every_model,
    frozen,
    functional,
    is_plain,
    masks_of,
    own_train_step,
    register,
    schedule_to,
    sequential,
    several,
    shared,
    subclassed,
    train,
    values,
    weights_of,
)
from structural_support import outputs

import tfprune
from tfprune import Rule
from tfprune._wrapping.wrapper import mask_owners

pytestmark = pytest.mark.usefixtures("fresh")


@register
class LoggingSubclassed(Subclassed):
    def train_step(self, data):
        return {**super().train_step(data), "mine": ops.convert_to_tensor(42.0)}


# -- Every kind of model -----------------------------------------------------------------------


@every_model
def test_wrap_train_strip(make, tmp_path):
    plain = make()
    x, _ = data_for(make)
    before, config = outputs(plain, x), plain.get_config()
    plain_values, count = values(plain), len(plain.layers)
    pruned = tfprune.prune_low_magnitude(plain, schedule_to())
    equal(outputs(pruned, x), before)
    assert pruned.name == plain.name
    if make is several:
        assert pruned.output_names == plain.output_names == ["y", "z"]

    train(pruned, make)
    check_exact(pruned, 0.75)
    trained = outputs(pruned, x)
    assert any((one != other).any() for one, other in zip(trained, before, strict=True))

    stripped = tfprune.strip_pruning(pruned)
    assert is_plain(stripped) and not is_plain(pruned)
    assert type(stripped) is type(plain) and len(stripped.layers) == count
    assert [type(layer) for layer in stripped.layers] == [type(layer) for layer in plain.layers]
    assert [v.path for v in stripped.weights] == [v.path for v in plain.weights]
    equal(outputs(stripped, x), trained)

    pruned.save(tmp_path / "pruned.keras")
    loaded = keras.saving.load_model(tmp_path / "pruned.keras")
    equal(outputs(loaded, x), trained)
    equal(masks_of(loaded), masks_of(pruned))
    assert [o.pruning_step for o in mask_owners(loaded)] == [2] * len(mask_owners(pruned))
    stripped.save(tmp_path / "stripped.keras")
    equal(outputs(keras.saving.load_model(tmp_path / "stripped.keras"), x), trained)

    # The user's model knows nothing of all this.
    assert plain.get_config() == config and len(plain.layers) == count
    equal(values(plain), plain_values)
    equal(outputs(plain, x), before)
    assert is_plain(plain)


@every_model
def test_the_compiled_state_of_the_users_model_stays(make):
    plain = make()
    x, y = data_for(make)

    def loss(target, output):
        return ops.mean(ops.abs(target - output))

    plain.compile("adam", [loss] * len(y) if make is several else loss)
    plain.fit(x, y, epochs=1, verbose=0)
    optimizer, steps = plain.optimizer, int(plain.optimizer.iterations)
    pruned = tfprune.prune_low_magnitude(plain, schedule_to())
    assert not pruned.compiled
    train(pruned, make)
    tfprune.strip_pruning(pruned)
    assert plain.compiled and plain.optimizer is optimizer
    assert int(optimizer.iterations) == steps
    plain.fit(x, y, epochs=1, verbose=0)
    assert int(optimizer.iterations) == 2 * steps


def test_losses_by_output_name():
    plain = several()
    pruned = tfprune.prune_low_magnitude(plain, schedule_to())
    x, (y, z) = data_for(several)
    for model in (plain, pruned):
        model.compile("sgd", {"y": "mse", "z": "mae"}, loss_weights={"y": 1.0, "z": 0.5})
    targets = {"y": y, "z": z}
    one, other = (m.evaluate(x, targets, verbose=0, return_dict=True) for m in (plain, pruned))
    assert one == other
    (a, b), total = outputs(plain, x), one["loss"]
    np.testing.assert_allclose(
        total, np.mean((a - y) ** 2) + 0.5 * np.mean(np.abs(b - z)), rtol=1e-5
    )
    pruned.fit(x, targets, 4, verbose=0, callbacks=[tfprune.UpdatePruningStep()])
    check_exact(pruned, 0.75)


def test_shared_layer_counts_each_step_once():
    pruned = tfprune.prune_low_magnitude(shared(), schedule_to(end=6))
    assert len(mask_owners(pruned)) == 2
    train(pruned, shared, epochs=3)
    assert [owner.pruning_step for owner in mask_owners(pruned)] == [6, 6]
    check_exact(pruned, 0.75)


def test_a_layer_in_two_graphs_stays_one():
    shared = keras.layers.Dense(8, name="shared")
    inner = keras.Sequential([keras.Input((8,)), shared, keras.layers.ReLU()], name="inner")
    inputs = keras.Input((8,))
    model = keras.Model(inputs, keras.layers.Dense(1)(shared(inner(inputs))))
    pruned = tfprune.prune_low_magnitude(model, tfprune.ConstantSparsity(0.5, 0))
    assert pruned.get_layer("shared") is pruned.get_layer("inner").layers[0]
    plain = tfprune.strip_pruning(pruned)
    assert plain.count_params() == model.count_params() == 8 * 8 + 8 + 9
    x = np.random.default_rng(0).normal(size=(4, 8)).astype("float32")
    np.testing.assert_array_equal(plain(x), model(x))


def test_model_that_is_called_twice():
    x = keras.Input((6,))
    inner = keras.Sequential([keras.Input((6,)), layers.Dense(6, name="inner")])
    plain = keras.Model(x, layers.Dense(2)(inner(inner(x))))
    pruned = tfprune.prune_low_magnitude(plain, schedule_to())
    assert len(mask_owners(pruned)) == 2
    train(pruned, functional)
    check_exact(pruned, 0.75)
    data = data_for(functional)[0]
    equal(outputs(tfprune.strip_pruning(pruned), data), outputs(pruned, data))


def test_own_train_step_of_a_functional_model_runs():
    pruned = tfprune.prune_low_magnitude(own_train_step(), schedule_to())
    assert isinstance(pruned, Logging)
    assert train(pruned, own_train_step).history["mine"] == [42.0]


def test_own_train_step_of_a_subclassed_model_is_kept():
    model = LoggingSubclassed()
    model.build((None, 6))
    pruned = tfprune.prune_low_magnitude(model, schedule_to())
    assert type(pruned).train_step is LoggingSubclassed.train_step
    assert isinstance(pruned, LoggingSubclassed)


def test_frozen_layers_are_pruned_and_not_trained():
    plain = frozen()
    kernel = plain.get_layer("a").kernel.numpy()
    pruned = tfprune.prune_low_magnitude(plain, schedule_to())
    train(pruned, frozen)
    after = pruned.get_layer("a").inner.kernel.numpy()
    np.testing.assert_array_equal(after, np.where(after == 0, 0, kernel))
    assert np.count_nonzero(after) == 12
    stripped = tfprune.strip_pruning(pruned)
    assert [layer.name for layer in stripped.layers if not layer.trainable] == ["a"]
    rows = {row.layer: row.status for row in tfprune.sparsity_report(pruned).rows}
    assert rows == {"a": "pruned, frozen", "b": "pruned"}


def test_frozen_model():
    plain = functional()
    plain.trainable = False
    pruned = tfprune.prune_low_magnitude(plain, at_once())
    assert not pruned.trainable_weights
    tfprune.UpdatePruningStep(pruned)
    check_exact(pruned, 0.5)
    stripped = tfprune.strip_pruning(pruned)
    assert not stripped.trainable and not stripped.trainable_weights


def test_user_constraints_come_back():
    constraint = keras.constraints.MaxNorm(0.5)
    plain = keras.Sequential([keras.Input((6,)), layers.Dense(4, kernel_constraint=constraint)])
    pruned = tfprune.prune_low_magnitude(plain, schedule_to())
    stripped = tfprune.strip_pruning(pruned)
    assert isinstance(stripped.layers[0].kernel.constraint, keras.constraints.MaxNorm)
    assert plain.layers[0].kernel.constraint is constraint


# -- Layers and lists --------------------------------------------------------------------------


def test_list_of_layers():
    given = [layers.Dense(8), layers.ReLU(), layers.BatchNormalization(), layers.Dense(2)]
    wrapped = tfprune.prune_low_magnitude(given, at_once())
    kinds = [isinstance(layer, tfprune.PruneLowMagnitude) for layer in wrapped]
    assert kinds == [True, False, False, True]
    assert wrapped[1] is given[1] and wrapped[0].inner is not given[0]
    model = keras.Sequential([keras.Input((6,)), *wrapped])
    tfprune.UpdatePruningStep(model)
    check_exact(model, 0.5)
    assert not given[0].built


@pytest.mark.parametrize("built", [True, False])
def test_single_layer(built):
    layer = layers.Dense(8)
    x = np.ones((2, 6), "float32")
    if built:
        layer(x)
    wrapper = tfprune.prune_low_magnitude(layer, at_once())
    assert layer.built is wrapper.built is built
    assert len(wrapper.pruned_weights) == int(built)
    assert wrapper.inner is not layer and wrapper.name == layer.name
    if built:
        equal([wrapper(x)], [layer(x)])
    model = keras.Sequential([keras.Input((6,)), wrapper])
    tfprune.UpdatePruningStep(model)
    check_exact(model, 0.5)
    stripped = tfprune.strip_pruning(wrapper)
    assert type(stripped) is layers.Dense
    equal([stripped(x)], [wrapper(x)])
    assert np.count_nonzero(stripped.kernel.numpy()) == 24


# -- Subclassed models -------------------------------------------------------------------------


def test_pruned_model_trains_on_after_loading(tmp_path):
    schedule = schedule_to(end=4)
    plain = subclassed()
    pruned = tfprune.prune_low_magnitude(plain, schedule)
    assert isinstance(pruned, type(plain))
    with pytest.warns(UserWarning, match="Train for 2 more optimizer steps"):
        train(pruned, subclassed)
    pruned.save(tmp_path / "half.keras")
    loaded = keras.saving.load_model(tmp_path / "half.keras")
    assert loaded.pruning_step == 2
    x, y = data_for(subclassed)
    loaded.fit(x, y, 4, verbose=0, callbacks=[tfprune.UpdatePruningStep()])
    assert loaded.pruning_step == 4
    check_exact(loaded, 0.75)
    equal(outputs(tfprune.strip_pruning(loaded), x), outputs(loaded, x))


def test_pruned_model_config():
    pruned = tfprune.prune_low_magnitude(
        subclassed(), schedule_to(), pattern="filter", rules=[Rule("out", prune=False)]
    )
    copy = type(pruned).from_config(pruned.get_config())
    configs = [model.get_config() for model in (copy, pruned)]
    built = [config.pop("model").pop("config") for config in configs]
    assert configs[0] == configs[1]
    assert built[0] == built[1]
    copy(np.ones((1, 6), "float32"))
    assert [w.path for w in copy.pruned_weights] == [w.path for w in pruned.pruned_weights]
    assert {str(w.method) for w in copy.pruned_weights} == {
        str(w.method) for w in pruned.pruned_weights
    }
    assert not any("out" in w.path for w in copy.pruned_weights)


def test_subclassed_without_config_says_so():
    class Closed(keras.Model):
        def __init__(self, units):
            super().__init__()
            self.out = layers.Dense(units)

        def call(self, inputs):
            return self.out(inputs)

        def get_config(self):
            raise NotImplementedError("no config")

    model = Closed(2)
    model(np.ones((1, 6), "float32"))
    with pytest.raises(
        ValueError, match=r"copy=False\), and later .*implement Closed.get_config\(\)"
    ):
        tfprune.prune_low_magnitude(model)


def test_model_whose_constructor_wraps(tmp_path):
    model = WrapsItself()
    model.build((None, 6))
    x, _ = data_for(functional)
    train(model, functional)
    assert len(weights_of(model)) == 4
    check_exact(model, 0.75)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    equal(masks_of(loaded), masks_of(model))
    equal(outputs(loaded, x), outputs(model, x))
    stripped = tfprune.strip_pruning(model)
    assert type(stripped.first) is type(stripped.ends[0]) is layers.Dense
    assert not mask_owners(stripped) and len(mask_owners(model)) == 4
    equal(outputs(stripped, x), outputs(model, x))


# -- tfmot's arguments -------------------------------------------------------------------------


def test_tfmot_signatures():
    names = list(inspect.signature(tfprune.prune_low_magnitude).parameters)
    assert names[:6] == [
        "to_prune",
        "pruning_schedule",
        "block_size",
        "block_pooling_type",
        "pruning_policy",
        "sparsity_m_by_n",
    ]
    names = list(inspect.signature(tfprune.PruneLowMagnitude).parameters)
    assert names[:5] == [
        "layer",
        "pruning_schedule",
        "block_size",
        "block_pooling_type",
        "sparsity_m_by_n",
    ]


KERNEL = np.array(
    [
        [1.0, 8.0, 3.0, 3.0],
        [1.0, 1.0, 3.0, 3.0],
        [9.0, 9.0, 2.0, 2.0],
        [9.0, 9.0, 2.0, 7.9],
    ],
    "float32",
)


@pytest.mark.parametrize(
    ("args", "pattern", "kept"),
    [
        # The means of the four blocks are 2.75, 3, 9 and 3.475.
        (((2, 2),), tfprune.Block((2, 2), "AVG"), ["0000", "0000", "1111", "1111"]),
        # Their maxima are 8, 3, 9 and 7.9.
        (((2, 2), "MAX"), tfprune.Block((2, 2), "MAX"), ["1100", "1100", "1100", "1100"]),
        # Two zeros in each column; the last column keeps 7.9 and the first of two 3s.
        (
            ((1, 1), "AVG", None, (2, 4)),
            tfprune.NOfM(2, 4),
            ["0011", "0010", "1100", "1101"],
        ),
    ],
    ids=["mean of blocks", "maximum of blocks", "2 of 4"],
)
def test_tfmot_arguments(args, pattern, kept):
    layer = layers.Dense(4)
    layer.build((None, 4))
    layer.kernel.assign(KERNEL)
    wrapper = tfprune.prune_low_magnitude(layer, at_once(), *args)
    tfprune.UpdatePruningStep(keras.Sequential([keras.Input((4,)), wrapper]))
    (weight,) = wrapper.pruned_weights
    assert weight.method.pattern == pattern
    assert ["".join("01"[k] for k in row) for row in weight.mask.numpy().astype(int)] == kept


def test_default_schedule_is_tfmots():
    weight, _ = weights_of(tfprune.prune_low_magnitude(functional()))
    assert weight.method.schedule == tfprune.ConstantSparsity(0.5, begin_step=0)


def test_prune_scope(tmp_path):
    pruned = tfprune.prune_low_magnitude(functional(), schedule_to())
    pruned.save(tmp_path / "model.keras")
    with tfprune.prune_scope():
        loaded = keras.saving.load_model(tmp_path / "model.keras")
        layer = keras.saving.deserialize_keras_object(
            {"class_name": "PolynomialDecay", "config": schedule_to().get_config()}
        )
    equal(values(loaded), values(pruned))
    assert layer == schedule_to()


# -- LoRA and quantization ---------------------------------------------------------------------


@pytest.mark.parametrize(
    "change",
    [
        lambda model: model.layers[0].quantize("int8"),
        lambda model: model.layers[0].inner.quantize("int8"),
        lambda model: model.quantize("int8"),
    ],
    ids=["wrapper", "inner", "model"],
)
def test_quantization_is_refused_before_it_changes_anything(change):
    plain = sequential()
    rules = [Rule(plain.layers[2].name, prune=False)]
    pruned = tfprune.prune_low_magnitude(plain, at_once(), rules=rules)
    tfprune.UpdatePruningStep(pruned)
    before = values(pruned)
    with pytest.raises(ValueError, match=r"Call tfprune.strip_pruning\(model\) first"):
        change(pruned)
    equal(values(pruned), before)
    train(pruned, sequential)


def test_a_weight_that_is_replaced_loses_its_mask_with_an_error():
    pruned = tfprune.prune_low_magnitude(sequential(), at_once())
    tfprune.UpdatePruningStep(pruned)
    layer = pruned.layers[0].layer
    object.__setattr__(layer, "_kernel", keras.Variable(layer.kernel.numpy()))
    for use in (tfprune.strip_pruning, lambda model: model(data_for(sequential)[0])):
        with pytest.raises(ValueError, match="compute with the weight that its mask was made for"):
            use(pruned)
