"""Taking wrappers off, and plain weights into wrapped models."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers, ops
from pruned_models import (
    WrapsItself,
    at_once,
    check_exact,
    data_for,
    equal,
    every_model,
    functional,
    masks_of,
    nested,
    register,
    schedule_to,
    sequential,
    shared,
    subclassed,
    train,
    values,
    weights_of,
)
from structural_support import outputs

import tfprune
from tfprune._wrapping.wrapper import mask_owners

pytestmark = pytest.mark.usefixtures("fresh")


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


@register
class WrapsAndDrops(WrapsItself):
    """Draws random numbers from its own generator and from that of Dropout."""

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
    # The copy owns its data: adapting the original again does not affect it.
    normal.adapt(numbers * 5)
    np.testing.assert_array_equal(pruned(x), expected)


@register
class Called(keras.Model):
    """Without its own build(): its layers are built when it is called."""

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
