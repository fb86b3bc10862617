"""Wrapping and stripping whole models, rules, plain weights, and what is refused."""

import inspect
import io
import zipfile

import h5py
import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers, ops
from structural_support import outputs

import tfprune
from tfprune import Rule
from tfprune._wrapping.wrapper import mask_owners

register = keras.saving.register_keras_serializable(package="tests")


@pytest.fixture(autouse=True)
def _fresh():
    keras.utils.set_random_seed(7)
    yield
    keras.backend.clear_session()


@register
class Twin(layers.Layer):
    """Holds layers, one of them in a list."""

    def __init__(self, units, **kwargs):
        super().__init__(**kwargs)
        self.units = units
        self.left = layers.Dense(units, name="left")
        self.others = [layers.Dense(units, name="right")]

    def build(self, input_shape):
        self.left.build(input_shape)
        self.others[0].build(input_shape)
        self.built = True

    def call(self, inputs):
        return self.left(inputs) + self.others[0](inputs)

    def get_config(self):
        return {**super().get_config(), "units": self.units}


@register
class Subclassed(keras.Model):
    def __init__(self, units=8, **kwargs):
        super().__init__(**kwargs)
        self.units = units
        self.first = layers.Dense(units, activation="relu", name="first")
        self.blocks = [layers.Dense(units, name=f"block_{i}") for i in range(2)]
        self.twin = Twin(units, name="twin")
        self.out = layers.Dense(2, name="out")

    def build(self, input_shape):
        self.first.build(input_shape)
        for layer in (*self.blocks, self.twin, self.out):
            layer.build((None, self.units))
        self.built = True

    def call(self, inputs, training=False):
        x = self.first(inputs)
        for block in self.blocks:
            x = x + block(x)
        return self.out(self.twin(x))

    def get_config(self):
        return {**super().get_config(), "units": self.units}


@register
class Logging(keras.Model):
    """A Functional model with a training step of its own, which reports one number more."""

    def train_step(self, data):
        return {**super().train_step(data), "mine": ops.convert_to_tensor(42.0)}


@register
class LoggingSubclassed(Subclassed):
    def train_step(self, data):
        return {**super().train_step(data), "mine": ops.convert_to_tensor(42.0)}


def schedule_to(sparsity=0.75, end=2):
    return tfprune.PolynomialDecay(0.0, sparsity, begin_step=0, end_step=end, frequency=1)


def at_once(sparsity=0.5):
    return tfprune.ConstantSparsity(sparsity, begin_step=0)


def sequential():
    return keras.Sequential(
        [keras.Input((6,)), layers.Dense(8, "relu"), layers.Dropout(0.5), layers.Dense(2)]
    )


def functional():
    x = keras.Input((6,))
    y = layers.Dense(8, "relu", name="a")(x)
    return keras.Model(x, layers.Dense(2, name="b")(layers.Concatenate()([x, y])))


def nested():
    x = keras.Input((8,))
    encoder = keras.Model(x, layers.Dense(8, name="inner")(x), name="encoder")
    decoder = keras.Sequential([keras.Input((8,)), encoder, layers.Dense(4)], name="decoder")
    x = keras.Input((6,))
    return keras.Model(x, layers.Dense(2)(decoder(layers.Dense(8)(x))))


def several():
    a, b = keras.Input((6,), name="a"), keras.Input((4,), name="b")
    x = layers.Concatenate()([layers.Dense(4)(a), layers.Dense(4)(b)])
    return keras.Model(
        {"a": a, "b": b}, [layers.Dense(2, name="y")(x), layers.Dense(3, name="z")(x)]
    )


def shared():
    x = keras.Input((6,))
    layer = layers.Dense(6, "tanh")
    return keras.Model(x, layers.Dense(2)(layer(layer(layer(x)))))


def subclassed():
    model = Subclassed()
    model.build((None, 6))
    return model


def holding():
    x = keras.Input((6,))
    return keras.Model(x, layers.Dense(2)(Twin(8)(x)))


def raw_operations():
    x = keras.Input((6,))
    y = ops.relu(layers.Dense(8)(x)) * 2.0 + 1.0
    y = ops.concatenate([y, ops.sum(y, axis=-1, keepdims=True)], axis=-1)
    return keras.Model(x, layers.Dense(2)(y))


def frozen():
    model = functional()
    model.get_layer("a").trainable = False
    return model


def own_train_step():
    x = keras.Input((6,))
    return Logging(x, layers.Dense(2)(layers.Dense(8)(x)))


MODELS = [
    sequential,
    functional,
    nested,
    several,
    shared,
    subclassed,
    holding,
    raw_operations,
    frozen,
    own_train_step,
]
every_model = pytest.mark.parametrize("make", MODELS, ids=lambda make: make.__name__)


def data_for(make, number=8):
    random = np.random.default_rng(0)

    def normal(width):
        return random.normal(size=(number, width)).astype("float32")

    if make is several:
        return {"a": normal(6), "b": normal(4)}, [normal(2), normal(3)]
    return normal(6), normal(2)


def equal(left, right):
    assert len(left) == len(right) > 0
    for one, other in zip(left, right, strict=True):
        np.testing.assert_array_equal(one, other)


def values(model):
    return [np.array(v.numpy()) for v in model.weights]


def weights_of(model):
    return [w for owner in mask_owners(model) for w in owner.pruned_weights]


def masks_of(model):
    return [w.mask.numpy() for w in weights_of(model)]


def check_exact(model, sparsity):
    for weight in weights_of(model):
        value, mask = weight.variable.numpy(), weight.mask.numpy()
        zeros = value.size - max(1, round(value.size * (1 - sparsity)))
        assert np.count_nonzero(~mask) == zeros, weight.path
        np.testing.assert_array_equal(value == 0, ~mask)
        assert not np.signbit(value[~mask]).any()


def is_plain(model):
    constraints = {type(v.constraint).__module__ for v in model.variables}
    text = "" if isinstance(model, Subclassed) else model.to_json()
    inside = {type(layer).__module__ for layer in model._flatten_layers()}
    return not any("tfprune" in item for item in (text, *constraints, *inside))


def train(model, make, epochs=1, **kwargs):
    x, y = data_for(make)
    model.compile("adam", "mse")
    return model.fit(x, y, 4, epochs, verbose=0, callbacks=[tfprune.UpdatePruningStep()], **kwargs)


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
def test_strip_does_not_change_the_wrapped_model(make):
    pruned = tfprune.prune_low_magnitude(make(), at_once())
    tfprune.UpdatePruningStep(pruned)
    kept, masks = values(pruned), masks_of(pruned)
    stripped = tfprune.strip_pruning(pruned)
    for variable in stripped.weights:
        variable.assign(ops.ones_like(variable))
    equal(values(pruned), kept)
    equal(masks_of(pruned), masks)
    train(pruned, make)
    check_exact(pruned, 0.5)


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


@register
class WrapsItself(keras.Model):
    """Its constructor wraps layers: one in an attribute, two in a list, one in a tuple."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        # The weights of the plain layer have the shapes of those around it.
        self.first = tfprune.prune_low_magnitude(layers.Dense(8), schedule_to())
        self.more = tfprune.prune_low_magnitude([layers.Dense(8), layers.Dense(8)], schedule_to())
        self.plain = layers.Dense(8)
        self.ends = (tfprune.prune_low_magnitude(layers.Dense(2), schedule_to()),)

    def build(self, input_shape):
        self.first.build(input_shape)
        for layer in (self.plain, *self.more, *self.ends):
            layer.build((None, 8))
        self.built = True

    def call(self, inputs):
        x = self.plain(self.first(inputs))
        for layer in self.more:
            x = x + layer(x)
        return self.ends[0](x)


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


@register
class WrapsAndDrops(WrapsItself):
    """Draws random numbers, of a generator of its own and of Dropout's."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.drop = layers.Dropout(0.5, seed=5)

    def call(self, inputs, training=False):
        return super().call(self.drop(inputs, training=training))


def test_random_states_are_stripped_with_a_model_whose_constructor_wraps():
    model = WrapsAndDrops()
    model.build((None, 6))
    train(model, sequential, epochs=2)
    stripped = tfprune.strip_pruning(model)
    states = [model.drop.seed_generator.state, stripped.drop.seed_generator.state]
    assert states[0] is not states[1] and states[0].numpy()[1] > 0
    equal(*([state.numpy()] for state in states))
    assert not weights_of(stripped)


# -- Plain weights -----------------------------------------------------------------------------


@pytest.mark.parametrize("make", [sequential, nested, shared, subclassed], ids=lambda m: m.__name__)
@pytest.mark.parametrize("form", [".weights.h5", ".keras", "model"])
def test_load_plain_weights(make, form, tmp_path):
    pruned = tfprune.prune_low_magnitude(make(), at_once())
    tfprune.UpdatePruningStep(pruned)
    masks = masks_of(pruned)
    keras.utils.set_random_seed(8)
    plain = make()
    source = plain
    if form != "model":
        source = tmp_path / f"plain{form}"
        (plain.save_weights if form == ".weights.h5" else plain.save)(source)
    tfprune.load_plain_weights(pruned, source)
    equal(masks_of(pruned), masks)
    check_exact(pruned, 0.5)
    # Every weight is the plain one, or zero by its mask.
    stripped = tfprune.strip_pruning(pruned)
    zeroed = 0
    for new, old in zip(values(stripped), values(plain), strict=True):
        zeroed += np.count_nonzero(new != old)
        np.testing.assert_array_equal(new[new != old], 0)
    assert zeroed == sum(np.count_nonzero(~mask) for mask in masks)


def test_plain_weights_that_do_not_fit(tmp_path):
    pruned = tfprune.prune_low_magnitude(functional(), at_once())
    before = values(pruned)
    other = sequential()
    other.save_weights(tmp_path / "other.weights.h5")
    for source, message in (
        (other, "Expected the same weights in .* Received: "),
        (tmp_path / "other.weights.h5", "could not be loaded.*Dense name=b"),
    ):
        with pytest.raises(ValueError, match=message):
            tfprune.load_plain_weights(pruned, source)
        equal(values(pruned), before)


def test_wrapped_file_is_no_plain_file(tmp_path):
    plain = functional()
    pruned = tfprune.prune_low_magnitude(plain, at_once())
    before = values(pruned)
    plain.save_weights(tmp_path / "plain.weights.h5")
    with pytest.raises(
        ValueError, match=r"Expected the mask of a/kernel, 48 bits.*no mask.*load_plain_weights"
    ):
        pruned.load_weights(tmp_path / "plain.weights.h5")
    equal(values(pruned), before)


# -- State that is no plain weight, and layers held in other ways --------------------------------


def test_adapted_preprocessing_layers_are_copied_with_their_state():
    numbers = np.random.default_rng(0).normal(3, 2, (50, 2)).astype("float32")
    words = np.array([["a"], ["b"], ["c"], ["b"]])
    normal, lookup = layers.Normalization(), layers.StringLookup(output_mode="one_hot")
    hashed, binned = layers.IntegerLookup(), layers.Discretization(num_bins=3)
    normal.adapt(numbers)
    lookup.adapt(words)
    hashed.adapt(np.array([7, 7, 9]))
    binned.adapt(numbers[:, 0])
    a, b = keras.Input((2,)), keras.Input((1,), dtype="string")
    c, d = keras.Input((1,), dtype="int64"), keras.Input((1,))
    parts = [ops.cast(item, "float32") for item in (normal(a), lookup(b), hashed(c), binned(d))]
    plain = keras.Model([a, b, c, d], layers.Dense(3)(layers.Concatenate()(parts)))
    strings = tf.constant([["b"], ["c"], ["other"]])
    x = [numbers[:3], strings, np.array([[9], [7], [1]]), numbers[:3, 1:]]
    x = [ops.convert_to_tensor(item) for item in x]
    expected = ops.convert_to_numpy(plain(x))
    pruned = tfprune.prune_low_magnitude(plain, at_once())
    np.testing.assert_array_equal(pruned(x), expected)
    np.testing.assert_array_equal(tfprune.strip_pruning(pruned)(x), expected)
    # What the copy needs is its own: adapting the original anew does not reach it.
    normal.adapt(numbers * 5)
    np.testing.assert_array_equal(pruned(x), expected)


@register
class Called(keras.Model):
    """Without a build() of its own: its layers are built when it is called."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.first = layers.Dense(8, "relu")
        self.second = layers.Dense(2)

    def call(self, inputs):
        return self.second(self.first(inputs))


def test_a_subclassed_model_without_build(tmp_path):
    plain = Called()
    x, _ = data_for(functional)
    plain(x)
    pruned = tfprune.prune_low_magnitude(plain, schedule_to())
    equal(outputs(pruned, x), outputs(plain, x))
    train(pruned, functional)
    check_exact(pruned, 0.75)
    pruned.save(tmp_path / "called.keras")
    for model in (
        keras.saving.load_model(tmp_path / "called.keras"),
        tfprune.strip_pruning(pruned),
    ):
        equal(outputs(model, x), outputs(pruned, x))


@register
class Around(layers.Layer):
    """Holds a layer that it is given."""

    def __init__(self, inside, **kwargs):
        super().__init__(**kwargs)
        self.inside = [inside]

    def build(self, input_shape):
        if not self.inside[0].built:
            self.inside[0].build(input_shape)
        self.built = True

    def call(self, inputs):
        return self.inside[0](inputs)

    def get_config(self):
        inside = keras.saving.serialize_keras_object(self.inside[0])
        return {**super().get_config(), "inside": inside}

    @classmethod
    def from_config(cls, config):
        inside = keras.saving.deserialize_keras_object(config.pop("inside"))
        return cls(inside, **config)


@pytest.mark.parametrize("outer", [layers.TimeDistributed, Around], ids=lambda cls: cls.__name__)
def test_wrappers_inside_of_other_layers_are_stripped(outer):
    wrapped = tfprune.prune_low_magnitude(layers.Dense(4, name="d"), at_once())
    model = keras.Sequential([keras.Input((3, 6)), outer(wrapped), layers.Dense(2)])
    tfprune.UpdatePruningStep(model)
    x = np.random.default_rng(0).normal(size=(2, 3, 6)).astype("float32")
    expected = outputs(model, x)
    for stripped in (tfprune.strip_pruning(model), tfprune.strip_pruning(model.layers[0])):
        assert not mask_owners(stripped)
        assert {v.constraint for v in stripped.variables} == {None}
    stripped = tfprune.strip_pruning(model)
    equal(outputs(stripped, x), expected)
    kernel = next(w.numpy() for w in stripped.weights if w.shape == (6, 4))
    assert np.count_nonzero(kernel) == 12 and len(mask_owners(model)) == 1


# -- Rules -------------------------------------------------------------------------------------


def with_parts():
    """Sizes divisible by 4, so that quarters are exact."""
    x = keras.Input((8, 4))
    encoder = keras.Sequential(
        [keras.Input((8, 4)), layers.Conv1D(4, 3, name="conv_b"), layers.Dense(4, name="dense_b")],
        name="encoder",
    )
    y = encoder(layers.Conv1D(4, 1, name="conv_a")(x))
    y = layers.Bidirectional(layers.LSTM(4, name="lstm"), name="both")(y)
    return keras.Model(x, layers.Dense(4, name="out")(y))


ALL = ("conv_a", "encoder/conv_b", "encoder/dense_b", "forward", "backward", "out")
HALF = dict.fromkeys(ALL, 0.5)
MORE, LESS = at_once(0.75), at_once(0.25)
RULES = {
    "none": ([], HALF),
    "by name": ([Rule("out", MORE)], HALF | {"out": 0.75}),
    "by glob": (
        [Rule("conv_*", MORE)],
        HALF | {"conv_a": 0.75, "encoder/conv_b": 0.75},
    ),
    "by path": (
        [Rule("encoder/*", MORE)],
        HALF | {"encoder/conv_b": 0.75, "encoder/dense_b": 0.75},
    ),
    "by the layer around": (
        [Rule("encoder", MORE)],
        HALF | {"encoder/conv_b": 0.75, "encoder/dense_b": 0.75},
    ),
    "by type": (
        [Rule(layers.Conv1D, MORE)],
        HALF | {"conv_a": 0.75, "encoder/conv_b": 0.75},
    ),
    "by list": (
        [Rule(["out", layers.Conv1D], MORE)],
        HALF | {"conv_a": 0.75, "encoder/conv_b": 0.75, "out": 0.75},
    ),
    "later overrides": (
        [Rule("*", MORE), Rule("out", LESS)],
        dict.fromkeys(ALL, 0.75) | {"out": 0.25},
    ),
    "earlier is overridden": ([Rule("out", LESS), Rule("*", MORE)], dict.fromkeys(ALL, 0.75)),
    "exempt": ([Rule("out", prune=False)], HALF | {"out": 0.0}),
    "exempt by the layer around": (
        [Rule("encoder", prune=False)],
        HALF | {"encoder/conv_b": 0.0, "encoder/dense_b": 0.0},
    ),
    "back again": (
        [Rule("encoder", prune=False), Rule("encoder/conv_b", MORE)],
        HALF | {"encoder/conv_b": 0.75, "encoder/dense_b": 0.0},
    ),
    "a layer that holds layers": (
        [Rule("both", MORE)],
        HALF | {"forward": 0.75, "backward": 0.75},
    ),
    "inside it, by path": ([Rule("both/forward*", MORE)], HALF | {"forward": 0.75}),
    "inside it, by type": (
        [Rule(layers.LSTMCell, LESS)],
        HALF | {"forward": 0.25, "backward": 0.25},
    ),
    "inside it, exempt": ([Rule("both/backward*", prune=False)], HALF | {"backward": 0.0}),
    "outside and inside": (
        [Rule("both", MORE), Rule("both/backward*", LESS)],
        HALF | {"forward": 0.75, "backward": 0.25},
    ),
}


def sparsity_by_part(model):
    found = {}
    for row in tfprune.sparsity_report(model).rows:
        key = next((k for k in ("forward", "backward") if f"/{k}" in row.layer), row.layer)
        if row.status != "nothing to prune":
            found[key] = row.sparsity
    return found


@pytest.mark.parametrize("name", RULES)
def test_rules(name, tmp_path):
    rules, expected = RULES[name]
    pruned = tfprune.prune_low_magnitude(with_parts(), at_once(), rules=rules)
    tfprune.UpdatePruningStep(pruned)
    assert sparsity_by_part(pruned) == expected
    assert sparsity_by_part(tfprune.strip_pruning(pruned)) == expected
    # The rules are in the file: a loaded copy, its masks forgotten, comes to the same.
    pruned.save(tmp_path / "rules.keras")
    loaded = keras.saving.load_model(tmp_path / "rules.keras")
    tfprune.load_plain_weights(loaded, with_parts())
    for weight in weights_of(loaded):
        weight.set_mask(np.ones(weight.mask.shape, bool))
    tfprune.load_plain_weights(loaded, with_parts())
    for owner in mask_owners(loaded):
        owner.mask_set.step = 0
    tfprune.UpdatePruningStep(loaded)
    assert sparsity_by_part(loaded) == expected


def test_rules_in_a_subclassed_model():
    rules = [Rule("block_*", MORE), Rule("twin/right", prune=False), Rule("out", LESS)]
    pruned = tfprune.prune_low_magnitude(subclassed(), at_once(), rules=rules)
    tfprune.UpdatePruningStep(pruned)
    found = {
        r.layer.removeprefix("subclassed/"): r.sparsity
        for r in tfprune.sparsity_report(pruned).rows
    }
    assert found == {
        "first": 0.5,
        "block_0": 0.75,
        "block_1": 0.75,
        "twin/left": 0.5,
        "twin/right": 0.0,
        "out": 0.25,
    }


def test_rules_give_patterns_and_scopes():
    rules = [Rule(layers.Conv1D, pattern="filter"), Rule("out", scope="global")]
    pruned = tfprune.prune_low_magnitude(with_parts(), at_once(), rules=rules)
    methods = {w.layer.name: w.method for w in weights_of(pruned)}
    assert methods["conv_a"].pattern == methods["conv_b"].pattern == tfprune.Filter()
    assert methods["dense_b"].pattern == tfprune.Unstructured()
    assert (methods["out"].scope, methods["conv_a"].scope) == (tfprune.Global(), tfprune.Local())
    tfprune.UpdatePruningStep(pruned)
    mask = next(w.mask.numpy() for w in weights_of(pruned) if w.layer.name == "conv_b")
    filters = mask.reshape(-1, 4)
    assert sorted(filters.all(axis=0)) == sorted(filters.any(axis=0)) == [False, False, True, True]


def test_rules_for_a_layer_and_a_list():
    (first, second) = tfprune.prune_low_magnitude(
        [layers.Dense(4, name="a"), layers.Dense(4, name="b")], at_once(), rules=[Rule("b", MORE)]
    )
    model = keras.Sequential([keras.Input((4,)), first, second])
    tfprune.UpdatePruningStep(model)
    assert [w.zeros for w in weights_of(model)] == [8, 12]
    with pytest.raises(ValueError, match=r"Rule\(match='c'\), which matches none. .*: a, b"):
        tfprune.prune_low_magnitude([layers.Dense(4, name="a"), second.inner], rules=[Rule("c")])


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


def test_strip_then_quantize_keeps_the_zeros():
    pruned = tfprune.prune_low_magnitude(sequential(), at_once(0.75))
    tfprune.UpdatePruningStep(pruned)
    stripped = tfprune.strip_pruning(pruned)
    stripped.quantize("int8")
    for layer, mask in zip((stripped.layers[0], stripped.layers[2]), masks_of(pruned), strict=True):
        kernel = layer._kernel.numpy()
        assert kernel.dtype == "int8"
        np.testing.assert_array_equal(kernel[~mask], 0)
        assert np.count_nonzero(kernel[mask]) > 0.9 * np.count_nonzero(mask)


def test_strip_then_lora():
    pruned = tfprune.prune_low_magnitude(sequential(), at_once())
    tfprune.UpdatePruningStep(pruned)
    stripped = tfprune.strip_pruning(pruned)
    x, y = data_for(sequential)
    stripped.layers[0].enable_lora(2)
    equal(outputs(stripped, x), outputs(pruned, x))
    stripped.compile("adam", "mse")
    stripped.fit(x, y, verbose=0)
    np.testing.assert_array_equal(stripped.layers[0]._kernel.numpy() == 0, ~masks_of(pruned)[0])


# -- Bad input ---------------------------------------------------------------------------------


def legacy(kind):
    import tf_keras

    layer = tf_keras.layers.Dense(2, input_shape=(6,))
    return {
        "model": tf_keras.Sequential([layer]),
        "layer": layer,
        "list": [layer],
    }[kind]


@pytest.mark.parametrize("kind", ["model", "layer", "list"])
def test_tf_keras(kind):
    message = r"Expected a Keras 3 layer or model. Received: a tf_keras object, .*`import keras`"
    with pytest.raises(TypeError, match=message):
        tfprune.prune_low_magnitude(legacy(kind))
    if kind == "list":
        return
    for function in (
        tfprune.strip_pruning,
        tfprune.sparsity_report,
        lambda thing: tfprune.load_plain_weights(thing, "plain.keras"),
        lambda thing: tfprune.load_plain_weights(tfprune.prune_low_magnitude(functional()), thing),
    ):
        with pytest.raises(TypeError, match=message):
            function(legacy(kind))


class HoldsAttention(layers.Layer):
    """More layers come into being inside the attention when it is built."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.attention = layers.MultiHeadAttention(2, 2, name="attention")
        self.dense = layers.Dense(4, name="dense")


@register
class Grows(layers.Layer):
    """Makes a layer, without a name, when it is built."""

    def build(self, input_shape):
        self.made = layers.Dense(4)
        self.made.build(input_shape)
        super().build(input_shape)

    def call(self, inputs):
        return self.made(inputs)


@register
class HoldsGrowing(layers.Layer):
    """Building it puts a layer between those that it has."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.growing = [Grows(name="growing")]
        self.dense = layers.Dense(4)
        self.last = {"x": layers.Dense(4)}

    def build(self, input_shape):
        self.growing[0].build(input_shape)
        self.dense.build(input_shape)
        self.last["x"].build(input_shape)
        super().build(input_shape)

    def call(self, inputs):
        return self.last["x"](self.dense(self.growing[0](inputs)))


@pytest.mark.parametrize("built", [True, False])
def test_rules_hold_where_building_makes_further_layers(built, tmp_path):
    layer = HoldsGrowing(name="h")
    if built:
        layer(np.ones((1, 4), "float32"))
    rules = [Rule(f"h/{layer.dense.name}", prune=False), Rule("h/growing", MORE)]
    wrapped = tfprune.prune_low_magnitude(layer, at_once(), rules=rules)
    model = keras.Sequential([keras.Input((4,)), wrapped])
    model.save(tmp_path / "grown.keras")
    for item in (model, keras.saving.load_model(tmp_path / "grown.keras")):
        tfprune.UpdatePruningStep(item)
        inner = item.layers[0].inner
        parts = (inner.growing[0].made, inner.dense, inner.last["x"])
        assert [int((part.kernel.numpy() == 0).sum()) for part in parts] == [12, 0, 8]


def test_layers_that_have_built_their_own_are_wrapped():
    layer = Grows(name="g")
    layer(np.ones((1, 4), "float32"))
    single = tfprune.prune_low_magnitude(layer, at_once())
    (listed,) = tfprune.prune_low_magnitude([layer], at_once())
    for wrapped in (single, listed):
        assert [w.path for w in wrapped.pruned_weights] == [f"{wrapped.inner.made.name}/kernel"]


def test_a_list_leaves_out_layers_without_weights():
    class Plain(layers.Layer):
        def call(self, inputs):
            return inputs

    relu, plain = layers.ReLU(), Plain()
    assert tfprune.prune_low_magnitude([relu, plain]) == [relu, plain]


def two_wrappers(layer):
    for _ in range(2):
        tfprune.PruneLowMagnitude(layer, at_once())(np.ones((1, 3), "float32"))


REFUSED = {
    "layer that builds layers": (
        lambda: tfprune.prune_low_magnitude(Grows(name="g")),
        ValueError,
        r"Received: 'g', a Grows that makes its weights in build\(\), which has not run. Call the "
        r"layer on data once.*register_prunable\(Grows",
    ),
    "layer that builds layers, in a list": (
        lambda: tfprune.prune_low_magnitude([layers.Dense(2), Grows(name="g")]),
        ValueError,
        r"Received: 'g', a Grows that makes its weights in build\(\)",
    ),
    "tensor": (
        lambda: tfprune.prune_low_magnitude(ops.ones((2, 2))),
        TypeError,
        r"Expected a Keras 3 layer or model. Received: layer=EagerTensor. Pass a keras.Model",
    ),
    "none": (lambda: tfprune.prune_low_magnitude(None), TypeError, "Received: layer=NoneType"),
    "class": (lambda: tfprune.prune_low_magnitude(layers.Dense), TypeError, "Received: layer=type"),
    "strip a tensor": (
        lambda: tfprune.strip_pruning(ops.ones(2)),
        TypeError,
        "Received: model=EagerTensor",
    ),
    "strip unbuilt": (
        lambda: tfprune.strip_pruning(Subclassed(name="early")),
        ValueError,
        "Expected a built model. Received: 'early'",
    ),
    "pattern": (
        lambda: tfprune.prune_low_magnitude(functional(), pattern="stripes"),
        ValueError,
        r"Expected `pattern` to be one of 'unstructured', .*Received: pattern='stripes'",
    ),
    "scope": (
        lambda: tfprune.prune_low_magnitude(functional(), scope="world"),
        ValueError,
        r"Expected `scope` to be one of 'local', 'global', .*'lamp'.* Received: scope='world'",
    ),
    "criterion": (
        lambda: tfprune.prune_low_magnitude(functional(), criterion="beauty"),
        ValueError,
        r"Expected `criterion` to be one of 'magnitude'.*Received: criterion='beauty'",
    ),
    "pattern of a wrong kind": (
        lambda: tfprune.prune_low_magnitude(functional(), pattern=3),
        TypeError,
        r"Expected `pattern` to be a tfprune.patterns.Pattern.*Received: pattern=3",
    ),
    "schedule of a wrong kind": (
        lambda: tfprune.prune_low_magnitude(functional(), 0.5),
        TypeError,
        r"Expected.*Received: .*0\.5",
    ),
    "block and pattern": (
        lambda: tfprune.prune_low_magnitude(functional(), at_once(), (2, 2), pattern="filter"),
        ValueError,
        "Expected one pattern. Received: block_size and pattern together",
    ),
    "block and N:M": (
        lambda: tfprune.prune_low_magnitude(
            functional(), at_once(), block_size=(2, 2), sparsity_m_by_n=(2, 4)
        ),
        ValueError,
        "Received: block_size and sparsity_m_by_n together",
    ),
    "N:M and pattern": (
        lambda: tfprune.prune_low_magnitude(
            functional(), at_once(), sparsity_m_by_n=(2, 4), pattern="filter"
        ),
        ValueError,
        "Received: sparsity_m_by_n and pattern together",
    ),
    "large block": (
        lambda: tfprune.prune_low_magnitude(functional(), at_once(), (7, 1)),
        ValueError,
        r"Expected a block no larger than a/kernel, 6 inputs by 8 outputs. "
        r"Received: block_size=\(7, 1\)",
    ),
    "large block in a subclassed model": (
        lambda: tfprune.prune_low_magnitude(subclassed(), at_once(), (1, 4)),
        ValueError,
        r"Expected a block no larger than .*out/kernel, 8 inputs by 2 outputs",
    ),
    "pooling": (
        lambda: tfprune.prune_low_magnitude(functional(), at_once(), (2, 2), "MIN"),
        ValueError,
        "Expected `pooling` to be one of 'AVG', 'MAX', 'SUM'. Received: pooling='MIN'",
    ),
    "N:M with another target": (
        lambda: tfprune.prune_low_magnitude(functional(), at_once(0.9), sparsity_m_by_n=(2, 4)),
        ValueError,
        r"Expected the schedule of a/kernel to end at 2/4 = 0.5.*a target sparsity of 0.9",
    ),
    "N:M with another target, one layer": (
        lambda: tfprune.prune_low_magnitude(
            layers.Dense(4, name="d"), at_once(0.9), sparsity_m_by_n=(2, 4)
        ),
        ValueError,
        r"Expected the schedule of d/kernel to end at 2/4 = 0.5.*a target sparsity of 0.9",
    ),
    "cap below the target": (
        lambda: tfprune.prune_low_magnitude(
            functional(), at_once(0.9), scope=tfprune.Global(max_sparsity=0.8)
        ),
        ValueError,
        r"Expected the schedule of a/kernel to stay at or below 0.8, the cap of Global.*"
        r"Received: a target sparsity of 0.9",
    ),
    "cap below the target, subclassed": (
        lambda: tfprune.prune_low_magnitude(
            subclassed(), at_once(0.9), scope=tfprune.Global(max_sparsity=0.8)
        ),
        ValueError,
        "to stay at or below 0.8, .*Received: a target sparsity of 0.9",
    ),
    "cap below the target of a rule, unbuilt layer": (
        lambda: tfprune.prune_low_magnitude(
            layers.Dense(4, name="d"),
            at_once(0.5),
            scope=tfprune.Global(max_sparsity=0.8),
            rules=[Rule("d", at_once(0.9))],
        ),
        ValueError,
        "schedule of d/kernel to stay at or below 0.8, .*Received: a target sparsity of 0.9",
    ),
    "rules inside a layer that is not built": (
        lambda: tfprune.prune_low_magnitude(
            HoldsAttention(name="h"), rules=[Rule("h/dense", prune=False)]
        ),
        ValueError,
        "Expected a built layer where rules vary .* Received: 'h', in which 'attention' has no",
    ),
    "N:M turned round": (
        lambda: tfprune.prune_low_magnitude(functional(), at_once(), sparsity_m_by_n=(4, 2)),
        ValueError,
        "Expected `zeros` to be less than `group`. Received: zeros=4, group=2",
    ),
    "N:M no pair": (
        lambda: tfprune.prune_low_magnitude(functional(), at_once(), sparsity_m_by_n=2),
        TypeError,
        "Expected `sparsity_m_by_n` to be a pair. Received: sparsity_m_by_n=2",
    ),
    "wrapped model": (
        lambda: tfprune.prune_low_magnitude(tfprune.prune_low_magnitude(functional())),
        ValueError,
        "Expected a layer without pruning wrappers. Received: .*wrapped already.*strip_pruning",
    ),
    "wrapped layer": (
        lambda: tfprune.prune_low_magnitude(tfprune.prune_low_magnitude(layers.Dense(2, name="d"))),
        ValueError,
        "Received: 'd', which is wrapped already",
    ),
    "wrapped subclassed": (
        lambda: tfprune.prune_low_magnitude(tfprune.prune_low_magnitude(subclassed())),
        ValueError,
        "Received: 'subclassed.*', which is wrapped already",
    ),
    "wrapped in a list": (
        lambda: tfprune.prune_low_magnitude(
            [tfprune.prune_low_magnitude(layers.Dense(2, name="d"))]
        ),
        ValueError,
        "Received: 'd', which is wrapped already",
    ),
    "nothing in the model": (
        lambda: tfprune.prune_low_magnitude(
            keras.Sequential([keras.Input((6,)), layers.ReLU()], name="empty")
        ),
        ValueError,
        "Expected 'empty' to have a prunable weight. Received: a Sequential",
    ),
    "nothing left by the rules": (
        lambda: tfprune.prune_low_magnitude(functional(), rules=[Rule("*", prune=False)]),
        ValueError,
        "at least one prunable weight in 'functional.*'. Received: rules or a policy that exempt",
    ),
    "nothing left of the layer": (
        lambda: tfprune.prune_low_magnitude(
            layers.Dense(2, name="d"), rules=[Rule("d", prune=False)]
        ),
        ValueError,
        "at least one prunable weight in 'd'. Received: rules or a policy that exempt",
    ),
    "cell in a recurrent layer": (
        lambda: layers.RNN(tfprune.PruneLowMagnitude(layers.LSTMCell(2, name="c"))),
        ValueError,
        r"Expected a pruning wrapper around RNN. Received: 'c', a LSTMCell that is wrapped .*"
        r"prune_low_magnitude\(RNN\(LSTMCell",
    ),
    "cells in a recurrent layer": (
        lambda: layers.RNN([tfprune.PruneLowMagnitude(layers.GRUCell(2, name="c"))]),
        ValueError,
        "Expected a pruning wrapper around RNN. Received: 'c', a GRUCell",
    ),
    "inside of Bidirectional": (
        lambda: layers.Bidirectional(tfprune.PruneLowMagnitude(layers.LSTM(2, name="l"))),
        ValueError,
        r"Expected a pruning wrapper around Bidirectional. Received: 'l', a LSTM.*"
        r"prune_low_magnitude\(Bidirectional\(LSTM",
    ),
    "two wrappers around one layer": (
        lambda: two_wrappers(layers.Dense(2, name="d")),
        ValueError,
        "Expected one pruning wrapper around kernel. Received: a layer whose weight has the mask",
    ),
    "nothing in the layer": (
        lambda: tfprune.prune_low_magnitude(layers.ReLU(name="r")),
        ValueError,
        "Expected 'r' to have a prunable weight. Received: a ReLU",
    ),
    "nothing in the subclassed model": (
        lambda: tfprune.prune_low_magnitude(subclassed(), rules=[Rule("*", prune=False)]),
        ValueError,
        "at least one prunable weight in 'subclassed.*'. Received: rules or a policy that exempt",
    ),
    "rule without a match": (
        lambda: tfprune.prune_low_magnitude(functional(), rules=[Rule("e*")]),
        ValueError,
        r"Expected each rule to match a layer. Received: Rule\(match='e\*'\).*layers are: a, b",
    ),
    "rule of a wrong kind": (
        lambda: tfprune.prune_low_magnitude(functional(), rules=["a"]),
        TypeError,
        r"Expected `rules` to be a list of tfprune.Rule. Received: rules=\['a'\]",
    ),
    "match of a wrong kind": (
        lambda: Rule(int),
        TypeError,
        "Expected `match` to be a name pattern or a layer class. Received: match=<class 'int'>",
    ),
    "pattern in a rule": (
        lambda: Rule("a", pattern="stripes"),
        ValueError,
        "Received: pattern='stripes'",
    ),
    "policy": (
        lambda: tfprune.prune_low_magnitude(functional(), pruning_policy="fast"),
        TypeError,
        "Expected `pruning_policy` to be a tfprune.PruningPolicy. Received: pruning_policy='fast'",
    ),
    "slice axes": (
        lambda: tfprune.prune_low_magnitude(functional(), pattern=tfprune.Slice((2,))),
        ValueError,
        r"Expected axes of a/kernel, which has 2. Received: axes=\(2,\)",
    ),
    "callback on no model": (
        lambda: tfprune.UpdatePruningStep("x"),
        TypeError,
        "Expected a Keras 3 layer or model. Received: model=str",
    ),
    "callback on a plain model": (
        lambda: tfprune.UpdatePruningStep(functional()),
        ValueError,
        "Expected a model with wrapped layers. Received: .*prune_low_magnitude",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused(name):
    call, error, message = REFUSED[name]
    with pytest.raises(error, match=message):
        call()


@pytest.mark.parametrize(
    "arguments",
    [
        {"block_size": (7, 1)},
        {"sparsity_m_by_n": (1, 4)},
        {"rules": [Rule("nobody")]},
        {"pattern": tfprune.Slice((5,))},
    ],
    ids=lambda a: next(iter(a)),
)
@pytest.mark.parametrize("make", [functional, subclassed], ids=lambda m: m.__name__)
def test_a_refused_model_is_left_as_it_was(make, arguments):
    plain = make()
    before, config, x = values(plain), plain.get_config(), data_for(make)[0]
    expected = outputs(plain, x)
    with pytest.raises(ValueError, match=r"Expected .* Received: "):
        tfprune.prune_low_magnitude(plain, at_once(), **arguments)
    equal(values(plain), before)
    assert plain.get_config() == config and is_plain(plain)
    equal(outputs(plain, x), expected)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("make", [functional, subclassed], ids=lambda m: m.__name__)
def test_weights_that_are_not_finite(make, bad):
    pruned = tfprune.prune_low_magnitude(make(), schedule_to(end=4))
    pruning = tfprune.UpdatePruningStep(pruned)
    pruning.step()
    weight = weights_of(pruned)[-1]
    value = weight.variable.numpy()
    value[np.unravel_index(np.flatnonzero(weight.mask.numpy())[0], value.shape)] = bad
    weight.variable.assign(value)
    before = values(pruned)
    # The last weight is the bad one: the masks of the others are not touched either.
    with pytest.raises(ValueError, match=rf"Expected .*{weight.layer.name}/kernel.*Received: "):
        pruning.step()
    equal(values(pruned), before)


# -- Damaged files -----------------------------------------------------------------------------


def rewrite_weights(path, change):
    """Changes the HDF5 file inside a .keras file."""
    with zipfile.ZipFile(path) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    content = io.BytesIO(parts["model.weights.h5"])
    with h5py.File(content, "r+") as file:
        names = []
        file.visit(names.append)
        mask = next(name for name in sorted(names) if name.endswith("mask_0"))
        change(file, mask)
    parts["model.weights.h5"] = content.getvalue()
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in parts.items():
            archive.writestr(name, data)


def cut_short(file, name):
    data = file[name][:-1]
    del file[name]
    file[name] = data


def other_type(file, name):
    data = file[name][:].astype("float32")
    del file[name]
    file[name] = data


def missing(file, name):
    del file[name]


@pytest.mark.parametrize(
    ("change", "received"),
    [
        (cut_short, r"uint8 data of shape \(5,\)"),
        (other_type, r"float32 data of shape \(6,\)"),
        (missing, "no mask"),
    ],
    ids=["cut short", "other type", "missing"],
)
def test_damaged_mask(change, received, tmp_path):
    path = tmp_path / "model.keras"
    plain = keras.Sequential([keras.Input((6,)), layers.Dense(8, name="only")])
    pruned = tfprune.prune_low_magnitude(plain, at_once())
    tfprune.UpdatePruningStep(pruned)
    pruned.save(path)
    rewrite_weights(path, lambda file, name: None)
    equal(values(keras.saving.load_model(path)), values(pruned))
    rewrite_weights(path, change)
    message = (
        "Expected the mask of only/kernel, 48 bits, in the file. "
        f"Received: {received}. The file is damaged"
    )
    with pytest.raises(ValueError, match=message):
        keras.saving.load_model(path)
    other = tfprune.prune_low_magnitude(plain, at_once())
    masks = masks_of(other)
    with pytest.raises(ValueError, match=message):
        other.load_weights(path)
    equal(masks_of(other), masks)


@pytest.mark.parametrize("kept", [0.3, 0.9])
def test_truncated_file(kept, tmp_path):
    path = tmp_path / "model.keras"
    pruned = tfprune.prune_low_magnitude(functional(), at_once())
    pruned.save(path)
    path.write_bytes(path.read_bytes()[: int(kept * path.stat().st_size)])
    before = values(pruned)
    for load in (pruned.load_weights, lambda p: tfprune.load_plain_weights(pruned, p)):
        with pytest.raises((ValueError, OSError, zipfile.BadZipFile)):
            load(path)
        equal(values(pruned), before)
