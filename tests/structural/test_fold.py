"""BatchNormalization folded into the layers before it, against the model that has it."""

import keras
import numpy as np
import pytest
from keras import layers
from structural_graphs import BUILDERS
from structural_support import data, distance, outputs, randomize

import tfprune
from tfprune import _keras

pytestmark = pytest.mark.usefixtures("fresh")


def norms(model):
    found = _keras.flatten(model)
    return [layer.name for layer in found if isinstance(layer, layers.BatchNormalization)]


def folded(model, left=0):
    """Folds, and holds what has to hold wherever something is folded."""
    before = [weight.numpy() for weight in model.weights]
    new = tfprune.fold_batch_norm(model)
    assert len(norms(new)) == left
    for value, weight in zip(before, model.weights, strict=True):
        np.testing.assert_array_equal(weight.numpy(), value)
    assert not {id(layer) for layer in _keras.flatten(new)} & set(map(id, _keras.flatten(model)))
    assert not new.compiled
    return new


MAKERS = {
    "Conv1D": ((9, 3), lambda **k: layers.Conv1D(4, 3, **k)),
    "Conv2D": ((8, 8, 3), lambda **k: layers.Conv2D(4, 3, padding="same", **k)),
    "Conv2D, groups": ((8, 8, 4), lambda **k: layers.Conv2D(6, 3, groups=2, **k)),
    "Conv3D": ((5, 5, 5, 3), lambda **k: layers.Conv3D(4, 3, **k)),
    "Conv1DTranspose": ((9, 3), lambda **k: layers.Conv1DTranspose(4, 3, **k)),
    "Conv2DTranspose": ((6, 6, 3), lambda **k: layers.Conv2DTranspose(4, 3, strides=2, **k)),
    "Conv3DTranspose": ((4, 4, 4, 3), lambda **k: layers.Conv3DTranspose(4, 2, **k)),
    "DepthwiseConv1D": ((9, 3), lambda **k: layers.DepthwiseConv1D(3, depth_multiplier=2, **k)),
    "DepthwiseConv2D": ((8, 8, 3), lambda **k: layers.DepthwiseConv2D(3, depth_multiplier=2, **k)),
    "SeparableConv1D": ((9, 3), lambda **k: layers.SeparableConv1D(4, 3, **k)),
    "SeparableConv2D": (
        (8, 8, 3),
        lambda **k: layers.SeparableConv2D(4, 3, depth_multiplier=2, padding="same", **k),
    ),
    "Dense": ((5,), lambda **k: layers.Dense(4, **k)),
    "Dense on sequences": ((5, 3), lambda **k: layers.Dense(4, **k)),
}


@pytest.mark.parametrize("use_bias", [True, False])
@pytest.mark.parametrize("kind", sorted(MAKERS))
def test_every_maker_takes_the_normalization_over(kind, use_bias):
    shape, make = MAKERS[kind]
    maker = make(use_bias=use_bias, name="maker")
    rest = [layers.BatchNormalization(), layers.ReLU()]
    model = randomize(keras.Sequential([keras.Input(shape), maker, *rest]))
    new = folded(model)
    assert type(new.get_layer("maker")) is type(maker) and new.get_layer("maker").use_bias
    assert [type(layer).__name__ for layer in new.layers] == [type(maker).__name__, "ReLU"]
    x = data(model)
    assert distance(model, new, x) < 1e-5
    # Without the bias it would not do.
    new.get_layer("maker").bias.assign(np.zeros(new.get_layer("maker").bias.shape))
    assert distance(model, new, x) > 1e-2


def test_the_folded_numbers_are_those_of_the_formula():
    model = keras.Sequential([keras.Input((2,)), layers.Dense(2), layers.BatchNormalization()])
    model.layers[1].epsilon = 1.0
    values = [[[1, 2], [3, 4]], [5, 6], [2, 3], [7, 8], [9, 10], [3, 8]]
    model.set_weights([np.array(value, "float32") for value in values])
    kernel, bias = tfprune.fold_batch_norm(model).get_weights()
    # Factors 2 / sqrt(3 + 1) = 1 and 3 / sqrt(8 + 1) = 1.
    assert kernel.tolist() == [[1, 2], [3, 4]] and bias.tolist() == [5 - 9 + 7, 6 - 10 + 8]
    model.layers[1].gamma.assign([4.0, 6.0])
    kernel, bias = tfprune.fold_batch_norm(model).get_weights()
    assert kernel.tolist() == [[2, 4], [6, 8]] and bias.tolist() == [-8 + 7, -8 + 8]


@pytest.mark.parametrize("options", [{"scale": False}, {"center": False}, {"epsilon": 0.5}])
def test_options_of_the_normalization(options):
    inputs = keras.Input((8, 8, 3))
    x = layers.BatchNormalization(**options)(layers.Conv2D(4, 3)(inputs))
    model = randomize(keras.Model(inputs, x))
    assert distance(model, folded(model), data(model)) < 1e-5


def test_several_in_a_row_go():
    inputs = keras.Input((5,))
    x = layers.Dense(4, use_bias=False)(inputs)
    for _ in range(3):
        x = layers.BatchNormalization()(x)
    model = randomize(keras.Model(inputs, x))
    assert distance(model, folded(model), data(model)) < 1e-5


def test_channels_first():
    # A CPU cannot run such a convolution on every backend, so its numbers are looked at.
    inputs = keras.Input((4, 6))
    x = layers.Conv1D(3, 1, data_format="channels_first")(inputs)
    right = keras.Model(inputs, layers.BatchNormalization(axis=1)(x))
    wrong = keras.Model(inputs, layers.BatchNormalization(axis=2)(x))
    new = folded(randomize(right))
    kernel, bias, gamma, beta, mean, variance = (w.numpy() for w in right.weights)
    factor = gamma / np.sqrt(variance + 1e-3)
    np.testing.assert_allclose(new.weights[0], kernel * factor, 1e-5)
    np.testing.assert_allclose(new.weights[1], (bias - mean) * factor + beta, 1e-5, 1e-6)
    folded(wrong, left=1)


# What is not folded, and how many normalizations stay.


def _other_reader(x):
    y = layers.Conv2D(4, 1)(x)
    return layers.Add()([layers.BatchNormalization()(y), y])


def _is_an_output(x):
    y = layers.Conv2D(4, 1)(x)
    return [layers.BatchNormalization()(y), y]


def _maker_shared(x):
    conv = layers.Conv2D(4, 1)
    return layers.Add()([layers.BatchNormalization()(conv(x)), conv(x * 2.0)])


def _norm_shared(x):
    norm = layers.BatchNormalization()
    return layers.Add()([norm(layers.Conv2D(4, 1)(x)), norm(layers.Conv2D(4, 1)(x))])


class Own(layers.Conv2D):
    def convolution_op(self, inputs, kernel):
        return super().convolution_op(inputs, kernel - keras.ops.mean(kernel))


STAY = {
    "activation": lambda x: layers.BatchNormalization()(layers.Conv2D(4, 3, activation="relu")(x)),
    "something between": lambda x: layers.BatchNormalization()(
        layers.ReLU()(layers.Conv2D(4, 3)(x))
    ),
    "nothing before": lambda x: layers.Conv2D(4, 3)(layers.BatchNormalization()(x)),
    "another reader": _other_reader,
    "an output": _is_an_output,
    "maker shared": _maker_shared,
    "normalization shared": _norm_shared,
    "another axis": lambda x: layers.BatchNormalization(axis=1)(layers.Conv2D(4, 3)(x)),
    "always training": lambda x: layers.BatchNormalization()(layers.Conv2D(4, 3)(x), training=True),
    "another precision": lambda x: layers.BatchNormalization(dtype="float32")(
        layers.Conv2D(4, 3, dtype="mixed_float16")(x)
    ),
    "another normalization": lambda x: layers.LayerNormalization()(layers.Conv2D(4, 3)(x)),
    "a class of the user's": lambda x: layers.BatchNormalization()(Own(4, 3)(x)),
}


@pytest.mark.parametrize("case", sorted(STAY))
def test_what_cannot_be_folded_stays_as_it_is(case):
    inputs = keras.Input((6, 6, 3))
    model = randomize(keras.Model(inputs, STAY[case](inputs)))
    new = folded(model, left=len(norms(model)))
    x = data(model)
    for ours, truth in zip(outputs(new, x), outputs(model, x), strict=True):
        np.testing.assert_array_equal(ours, truth)


def test_lora_and_quantized_layers_are_left_alone():
    inputs = keras.Input((6,))
    x = layers.BatchNormalization()(layers.Dense(4, name="lora")(inputs))
    x = layers.BatchNormalization()(layers.Dense(4, name="int8")(x))
    model = randomize(keras.Model(inputs, layers.BatchNormalization()(layers.Dense(3)(x))))
    model.get_layer("lora").enable_lora(2)
    model.get_layer("int8").quantize("int8")
    calls = [call[0].name for call in _keras.graph_calls(model)]
    from tfprune.structural.fold import _chains

    # Keras itself cannot copy such layers with their weights, so only the choice is looked at.
    assert [maker.name for maker, _ in _chains(model)] == [calls[-2]]


def test_numbers_that_float16_cannot_hold_stay():
    inputs = keras.Input((3,))
    x = layers.Dense(4, dtype="float16")(inputs)
    model = keras.Model(inputs, layers.BatchNormalization(dtype="float16", epsilon=1e-6)(x))
    norm = model.layers[-1]
    norm.gamma.assign(np.full(4, 6e4))
    norm.moving_variance.assign(np.full(4, 1e-6))
    folded(model, left=1)


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16", "float16", "bfloat16"])
def test_low_precision(policy):
    kinds = {"dtype": policy}
    inputs = keras.Input((8, 8, 3))
    x = layers.Conv2D(4, 3, use_bias=False, **kinds)(inputs)
    x = layers.BatchNormalization(**kinds)(x)
    model = randomize(keras.Model(inputs, layers.ReLU(**kinds)(x)))
    new = folded(model)
    kernel, gamma = (np.asarray(_keras.host_array(w), "float64") for w in model.weights[:2])
    variance = np.asarray(_keras.host_array(model.weights[4]), "float64")
    stored = new.layers[1].kernel
    exact = kernel * gamma / np.sqrt(variance + 1e-3)
    # Computed in float64, then rounded once.
    rounding = {"float16": 2**-11, "bfloat16": 2**-8, "float32": 2**-24}[stored.dtype]
    assert (np.abs(_keras.host_array(stored) - exact) <= 1.01 * rounding * np.abs(exact)).all()
    x = data(model)
    ours, truth = (outputs(m, x)[0].astype("float32") for m in (new, model))
    assert np.abs(ours - truth).max() < 0.05 * truth.std(axis=0).max()


def test_zeros_stay_zeros():
    inputs = keras.Input((8, 8, 3))
    x = layers.Conv2D(4, 3, use_bias=False, name="conv")(inputs)
    model = randomize(keras.Model(inputs, layers.BatchNormalization(name="norm")(x)))
    model.get_layer("norm").gamma.assign([1.0, -1.0, 0.5, -0.5])
    kernel = model.get_layer("conv").kernel.numpy()
    kernel[..., 1:3] = 0
    model.get_layer("conv").kernel.assign(kernel)
    new = folded(model).get_layer("conv").kernel.numpy()
    np.testing.assert_array_equal(new == 0, kernel == 0)
    assert not np.signbit(new[new == 0]).any()


def test_frozen_layers_stay_frozen():
    x = [layers.Conv2D(4, 3), layers.BatchNormalization(), layers.Conv2D(2, 3)]
    model = randomize(keras.Sequential([keras.Input((8, 8, 3)), *x]))
    model.layers[0].trainable = model.layers[1].trainable = False
    new = folded(model)
    assert [layer.trainable for layer in new.layers] == [False, True]
    model.trainable = False
    assert not folded(model).trainable_weights


def test_wrapped_models_are_stripped():
    x = [layers.Conv2D(4, 3), layers.BatchNormalization(), layers.ReLU()]
    model = randomize(keras.Sequential([keras.Input((8, 8, 3)), *x]))
    pruned = tfprune.prune_low_magnitude(model, tfprune.ConstantSparsity(0.5, 0))
    tfprune.UpdatePruningStep(pruned)
    new = tfprune.fold_batch_norm(pruned)
    assert norms(new) == [] and "tfprune" not in new.to_json()
    assert np.count_nonzero(new.layers[0].kernel.numpy() == 0) == 4 * 3 * 9 // 2
    assert distance(pruned, new, data(model)) < 1e-5


def test_models_inside_are_folded_in_each_place():
    inner = keras.Sequential(
        [keras.Input((5,)), layers.Dense(5), layers.BatchNormalization()], name="inner"
    )
    one, two = keras.Input((5,), name="one"), keras.Input((5,), name="two")
    # The model inside is called twice, its layers once in it.
    x = layers.Add()([inner(one), inner(two)])
    ends = {"a": layers.BatchNormalization()(layers.Dense(2)(x)), "b": layers.Dense(3)(x)}
    model = randomize(keras.Model([one, two], ends))
    new = folded(model)
    assert set(new.output) == {"a", "b"} and len(new.get_layer("inner").layers) == 1
    assert distance(model, new, data(model)) < 1e-5


def test_masks_of_sequences_pass():
    inputs = keras.Input((5,), dtype="int32")
    x = layers.Embedding(9, 4, mask_zero=True)(inputs)
    x = layers.BatchNormalization()(layers.Dense(4)(x))
    model = randomize(keras.Model(inputs, layers.LSTM(3)(x)))
    x = np.array([[1, 2, 0, 0, 0], [3, 0, 0, 0, 0], [1, 2, 3, 4, 5]])
    assert distance(model, folded(model), x) < 1e-5


LEFT = {"dense_blocks": 2, "shared": 1, "three_dimensions": 1, "frames": 1}


@pytest.mark.parametrize("name", sorted(BUILDERS))
def test_all_graphs_compute_the_same(name):
    model = randomize(BUILDERS[name]())
    new = folded(model, left=LEFT.get(name, len(norms(model)) if name == "channels_first" else 0))
    assert distance(model, new, data(model)) < 1e-5


@pytest.fixture
def float64():
    yield lambda: keras.config.set_dtype_policy("float64")
    keras.config.set_dtype_policy("float32")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["MobileNetV2", "ResNet50"])
def test_applications_lose_all_normalizations(name, tmp_path, float64):
    def make():
        return getattr(keras.applications, name)(
            weights=None, input_shape=shape, classes=10, classifier_activation=None
        )

    shape = (64, 64, 3)
    x = np.random.default_rng(0).uniform(0, 255, (4, *shape)).astype("float32")
    model = tfprune.recalibrate(make(), x)
    new = folded(model)
    assert len(norms(model)) > 50
    before, after = tfprune.model_cost(model), tfprune.model_cost(new)
    assert after.parameters < before.parameters and after.macs == before.macs
    new.save(tmp_path / "folded.keras")
    loaded = keras.saving.load_model(tmp_path / "folded.keras")
    np.testing.assert_array_equal(outputs(loaded, x)[0], outputs(new, x)[0])

    float64()
    exact = make()
    exact.set_weights(model.get_weights())
    truth = outputs(exact, x)[0]
    scale = truth.std(axis=0).max()
    assert scale > 1e-2 * np.abs(truth).max()
    assert distance(exact, tfprune.fold_batch_norm(exact), x) < 1e-9
    # Untrained, these networks blow up what float32 rounds; folded, they do so no more than before.
    error, folded_error = (np.abs(outputs(m, x)[0] - truth).max() / scale for m in (model, new))
    assert folded_error < max(1e-5, 3 * error) and error < 1e-3


def test_what_cannot_be_followed_is_refused():
    class Model(keras.Model):
        def call(self, inputs):
            return inputs

    model = Model()
    model(np.ones((2, 2), "float32"))
    with pytest.raises(ValueError, match="is code"):
        tfprune.fold_batch_norm(model)
    with pytest.raises(ValueError, match="no weights yet"):
        tfprune.fold_batch_norm(keras.Sequential([layers.BatchNormalization()]))
    with pytest.raises(TypeError, match="Keras 3"):
        tfprune.fold_batch_norm(3)
