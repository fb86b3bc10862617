"""The families of keras.applications: filters pruned, shrunk, and still the same."""

import gc
import subprocess
import sys

import keras
import numpy as np
import pytest
from structural_support import as_channels, choice, zeroed
from test_applications import application

import tfprune
from tfprune import _keras_graph as graph

# Small enough for every run of the tests.
QUICK = ("MobileNet", "MobileNetV2", "MobileNetV3Small")
# The smallest model of each other family; large ones in one configuration.
SLOW = (
    "DenseNet121",
    "EfficientNetB0",
    "EfficientNetV2B0",
    "InceptionV3",
    "NASNetMobile",
    "ResNet50",
    "ResNet50V2",
    "Xception",
)
LARGE = ("ConvNeXtTiny", "InceptionResNetV2", "VGG16")
each_model = pytest.mark.parametrize(
    "name", [*QUICK, *(pytest.param(n, marks=pytest.mark.slow) for n in SLOW + LARGE)]
)


@pytest.fixture(autouse=True)
def _free():
    keras.utils.set_random_seed(7)
    yield
    keras.backend.clear_session()
    gc.collect()


def lively(name):
    """A model whose outputs depend on its inputs, which random weights alone do not give."""
    # Statistics of single places would make EfficientNets blow up rounding errors.
    model, size = application(name, 64 if "Efficient" in name else 32)
    random = np.random.default_rng(0)
    for layer in graph.flatten(model):
        for weight in layer.weights if not graph.children(layer) else []:
            # A LayerScale starts with nearly nothing.
            if weight.name == "gamma" or isinstance(layer, graph.LayerScale):
                weight.assign(1 + random.normal(0, 0.2, weight.shape))
            elif weight.name in ("beta", "bias"):
                weight.assign(random.normal(0, 0.2, weight.shape))
            elif name.startswith("VGG"):
                # Nothing normalizes: the signal has to keep its size by itself.
                fan_in = np.prod(weight.shape[:-1])
                weight.assign(random.normal(0, np.sqrt(2 / fan_in), weight.shape))
    return model, _images(random, size)


def estimate_statistics(model, x, share):
    """Gives BatchNormalization nearly the statistics of a batch; others would hide the input."""
    random = np.random.default_rng(1)
    layers = graph.flatten(model)
    if "vgg" in model.name:
        # Filters of zeros weaken the signal, and nothing normalizes it.
        for kernel in (w for layer in layers[1:] for w in layer.weights if w.name == "kernel"):
            kernel.assign(kernel.numpy() / np.sqrt(1 - share))
    norms = [n for n in layers if isinstance(n, keras.layers.BatchNormalization)]
    momentum = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = 0.0
    model(x, training=True)
    for norm, value in zip(norms, momentum, strict=True):
        norm.momentum = value
        mean, variance = norm.moving_mean.numpy(), norm.moving_variance.numpy()
        norm.moving_mean.assign(mean + random.normal(0, 0.1, mean.shape) * np.sqrt(variance))
        # A channel that hardly varies by chance would be blown up, rounding errors and all.
        variance = np.maximum(variance, 0.1 * np.median(variance[variance > 0]))
        norm.moving_variance.assign(variance * random.uniform(0.8, 1.25, variance.shape))


def _images(random, size):
    """Images that differ in colour and in coarse and fine structure."""
    x = 0.0
    for cells in (1, 3, 9, size):
        coarse = random.normal(0, 40, (8, cells, cells, 3))
        rows = np.arange(size) * cells // size
        x = x + coarse[:, rows][:, :, rows]
    return np.clip(127 + x, 0, 255).astype("float32")


def outputs(model, x):
    return keras.ops.convert_to_numpy(model(x, training=False))


def by_magnitude(model, groups, share):
    """The channels of each group whose kernels are smallest, all that is coupled put together."""
    weights = {}
    for layer_path, layer in ((c[-1][0], c[-1][1]) for c in graph.walk(model)):
        for weight in layer.weights if not graph.children(layer) else []:
            weights[layer_path, weight.name] = weight
    chosen = []
    for group in groups:
        number = min(int(group.size * share), group.removable)
        if group.fixed or number < 1:
            continue
        scores = np.zeros(group.size)
        for member in group.members:
            if "kernel" in member.weight and not member.reads:
                value = np.abs(weights[member.layer, member.weight].numpy())
                others = tuple(i for i in range(value.ndim) if i != member.axis)
                valid = member.units >= 0
                np.add.at(scores, member.units[valid], value.sum(axis=others)[valid])
        units = np.sort(np.argsort(scores)[:number])
        for path_units in group.makers.values():
            if np.isin(path_units, units).all():
                units = np.setdiff1d(units, path_units[:1])
        chosen.append((group, units))
    return chosen


CONFIGURATIONS = [("random", 0.3), ("random", 0.6), ("magnitude", 0.3), ("magnitude", 0.6)]


@each_model
def test_shrunk_models_compute_what_masked_ones_compute(name, tmp_path):
    model, x = lively(name)
    groups = tfprune.dependency_groups(model)
    dense = [weight.numpy() for weight in model.weights]
    tried = CONFIGURATIONS[-1:] if name in LARGE else CONFIGURATIONS
    for how, share in tried:
        for weight, value in zip(model.weights, dense, strict=True):
            weight.assign(value)
        chosen = choice(groups, share) if how == "random" else by_magnitude(model, groups, share)
        for group, units in chosen:
            zeroed(model, group, units, reads=False)
        estimate_statistics(model, x, share)
        truth = outputs(model, x)
        scale = truth.std(axis=0).max()
        # With outputs that do not depend on the input, a wrong model would pass.
        assert scale > 1e-2 * np.abs(truth).max()
        plan = tfprune.plan_shrink(model)
        small = plan.apply()
        assert np.abs(outputs(small, x) - truth).max() <= 1e-4 * scale
        assert sum(len(g.removed) for g in plan.groups) == sum(len(units) for _, units in chosen)
        assert plan.after.macs < plan.before.macs * (1 - share / 4)
        assert plan.after.parameters < plan.before.parameters * (1 - share / 4)
    # One channel more than is silent, and the comparison has to fail.
    group, units = max(chosen, key=lambda pair: pair[0].size - len(pair[1]))
    one = np.setdiff1d(np.arange(group.size), units)[:1]
    wrong = tfprune.remove_channels(model, as_channels([(group, np.append(units, one))]))
    assert np.abs(outputs(wrong, x) - truth).max() > 1e-4 * scale
    _check_plain(small, x, tmp_path)


def _check_plain(small, x, tmp_path):
    """The file needs no tfprune, and the model trains."""
    truth = outputs(small, x)
    small.save(tmp_path / "small.keras")
    np.save(tmp_path / "x.npy", x)
    code = (
        "import sys, keras, numpy as np\n"
        "model = keras.models.load_model('small.keras')\n"
        "np.save('y.npy', keras.ops.convert_to_numpy(model(np.load('x.npy'), training=False)))\n"
        "sys.exit('tfprune' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=tmp_path)
    np.testing.assert_allclose(np.load(tmp_path / "y.npy"), truth, 1e-4, 1e-5 * np.abs(truth).max())
    small.compile(keras.optimizers.SGD(1e-6), "mse", run_eagerly=True)
    assert np.isfinite(small.train_on_batch(x[:2], np.zeros_like(truth[:2])))
