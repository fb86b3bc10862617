"""Every model of keras.applications: wrapped, pruned, stripped, and still the same."""

import gc

import keras
import numpy as np
import pytest

import tfprune

# What a plain `pytest` wraps and strips; the others are as alike as members of a family are.
QUICK = ("MobileNetV3Small",)
# The smallest model of each family; training these takes a while to compile.
FAMILIES = (
    "ConvNeXtTiny",
    "DenseNet121",
    "EfficientNetB0",
    "EfficientNetV2B0",
    "InceptionResNetV2",
    "InceptionV3",
    "MobileNet",
    "MobileNetV2",
    "MobileNetV3Small",
    "NASNetMobile",
    "ResNet50",
    "ResNet50V2",
    "VGG16",
    "Xception",
)
COMPILED = ("MobileNet", "ResNet50")
SIZES = (32, 48, 64, 71, 75, 96, 128, 224, 331)
NAMES = [
    name
    for name in dir(keras.applications)
    if name[0].isupper() and callable(getattr(keras.applications, name))
]


# Two of these at once take too much memory: where processes share the tests, one gets them all.
LARGEST = (
    "ConvNeXtBase",
    "ConvNeXtLarge",
    "ConvNeXtXLarge",
    "EfficientNetB7",
    "EfficientNetV2L",
    "NASNetLarge",
    "VGG16",
    "VGG19",
)


def marked(names, slow):
    """Names as parameters, with the marks that they need."""

    def marks(name):
        if slow(name):
            yield pytest.mark.slow
        if name in LARGEST:
            yield pytest.mark.xdist_group("largest")

    return [pytest.param(name, marks=list(marks(name))) for name in names]


@pytest.fixture(autouse=True)
def _free():
    keras.utils.set_random_seed(7)
    yield
    keras.backend.clear_session()
    gc.collect()


def application(name, smallest=SIZES[0]):
    """The model, untrained, at the smallest input size that it takes, and that size."""
    make = getattr(keras.applications, name)
    for size in (size for size in SIZES if size >= smallest):
        try:
            shape = (size, size, 3)
            # No softmax: it would hide differences.
            return make(
                weights=None, input_shape=shape, classes=10, classifier_activation=None
            ), size
        except ValueError as error:
            reason = error
    raise reason


def images(size, number=4):
    random = np.random.default_rng(0)
    return random.uniform(0, 255, (number, size, size, 3)).astype("float32")


def estimate_statistics(model, x):
    """Gives BatchNormalization the statistics of a batch; with 0 and 1 it lets nothing through."""
    norms = [n for n in model._flatten_layers() if isinstance(n, keras.layers.BatchNormalization)]
    momentum = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = 0.0
    model(x, training=True)
    for norm, value in zip(norms, momentum, strict=True):
        norm.momentum = value


def kernels(model):
    """`{layer and weight: value}` of all that is to be pruned, found without tfprune.

    Depthwise kernels are exempt by default.
    """
    return {
        f"{layer.name}/{name}": getattr(layer, name).numpy()
        for layer in model._flatten_layers()
        if not isinstance(layer, keras.layers.DepthwiseConv2D)
        for name in ("kernel", "pointwise_kernel")
        if hasattr(layer, name)
    }


def test_every_model_belongs_to_a_family_that_is_trained():
    stems = """ConvNeXt DenseNet EfficientNetB EfficientNetV2 InceptionResNet InceptionV MobileNet
        MobileNetV2 MobileNetV3 NASNet ResNet ResNet50V2 VGG Xception"""
    for stem, trained in zip(stems.split(), FAMILIES, strict=True):
        assert trained.startswith(stem)
    assert not [name for name in NAMES if not name.startswith(tuple(stems.split()))]
    assert set(QUICK) < set(NAMES)


@pytest.mark.parametrize("name", marked(NAMES, lambda name: name not in QUICK))
def test_wrap_and_strip(name):
    plain, size = application(name)
    x = images(size)
    estimate_statistics(plain, x)
    expected = keras.ops.convert_to_numpy(plain(x))
    assert np.ptp(expected, axis=0).max() > 1e-2 * np.abs(expected).max()

    pruned = tfprune.prune_low_magnitude(plain, tfprune.ConstantSparsity(0.5, begin_step=0))
    np.testing.assert_array_equal(keras.ops.convert_to_numpy(pruned(x)), expected)
    pruning = tfprune.UpdatePruningStep(pruned)
    stripped = tfprune.strip_pruning(pruned)
    halved = keras.ops.convert_to_numpy(pruned(x))
    assert (halved != expected).any()
    np.testing.assert_array_equal(keras.ops.convert_to_numpy(stripped(x)), halved)

    assert "tfprune" not in stripped.to_json()
    assert [type(layer) for layer in stripped.layers] == [type(layer) for layer in plain.layers]
    before, after = kernels(plain), kernels(stripped)
    assert list(before) == list(after)
    zeros = 0
    for path, value in after.items():
        assert np.count_nonzero(value == 0) == value.size - max(1, round(value.size / 2)), path
        np.testing.assert_array_equal(value, np.where(value == 0, 0, before[path]), path)
        zeros += np.count_nonzero(value == 0)
    assert pruning.sparsity == zeros / sum(value.size for value in after.values())
    # All other weights are as they were.
    pruned_ids = {id(v) for layer in stripped._flatten_layers() for v in _kernel_variables(layer)}
    for one, other in zip(stripped.weights, plain.weights, strict=True):
        if id(one) not in pruned_ids:
            np.testing.assert_array_equal(one.numpy(), other.numpy())


def _kernel_variables(layer):
    names = ("kernel", "depthwise_kernel", "pointwise_kernel")
    return [getattr(layer, name) for name in names if hasattr(layer, name)]


@pytest.mark.slow
@pytest.mark.parametrize("name", marked(FAMILIES, lambda name: False))
def test_one_step_of_training(name):
    plain, size = application(name)
    pruned = tfprune.prune_low_magnitude(
        plain, tfprune.PolynomialDecay(0.0, 0.5, begin_step=0, end_step=1, frequency=1)
    )
    pruned.compile(
        "sgd",
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        # Of one step, tracing and compiling would be most of the time.
        run_eagerly=name not in COMPILED,
    )
    history = pruned.fit(
        images(size), np.arange(4), epochs=1, verbose=0, callbacks=[tfprune.UpdatePruningStep()]
    ).history
    values = kernels(tfprune.strip_pruning(pruned)).values()
    zeros = sum(np.count_nonzero(value == 0) for value in values)
    assert history["sparsity"] == [zeros / sum(value.size for value in values)]
    assert zeros == sum(value.size - max(1, round(value.size / 2)) for value in values)
