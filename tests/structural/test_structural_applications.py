"""All of keras.applications: filters pruned, shrunk, and still the same."""

import gc
import subprocess
import sys

import keras
import numpy as np
import pytest
from keras.layers import BatchNormalization
from keras_support import outputs
from structural_support import choice, zeroed
from test_applications import NAMES, application, marked

import tfprune
from tfprune import _keras

# Statistics of a few numbers blow up rounding errors, so the last pictures in a network should be
# larger than one pixel. Without statistics, nothing depends on that.
SIZES = {"InceptionV": 128, "VGG": 32}
SIZES |= {f"ConvNeXt{size}": 32 for size in ("Tiny", "Small", "Base", "Large", "XLarge")}
# How strong a residual branch is compared with its shortcut.
BRANCH = 0.2
# Where normalized channels lie. Around 0, a ReLU cuts off half of each, and BatchNormalization and
# a ReLU without a shortcut multiply rounding errors by 1.21 (Yang et al., "A Mean Field Theory of
# Batch Normalization", ICLR 2019): 48 layers of InceptionV3, by thousands. Around 1, by 1.06.
BETA = 1.0
# Small enough for every configuration; the one that every run of the tests takes has two.
SMALL = ("MobileNet", "MobileNetV2", "MobileNetV3Small")
QUICK = ("MobileNetV3Small",)
# The smallest model of each other family, in both ways of choosing and with both shares.
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
CONFIGURATIONS = [("random", 0.3), ("random", 0.6), ("magnitude", 0.3), ("magnitude", 0.6)]
TWO = [CONFIGURATIONS[::3], CONFIGURATIONS[1:3]]
FEWER = {name: TWO[number % 2] for number, name in enumerate(SLOW)}
FEWER["MobileNetV3Small"] = TWO[0]
# All others in one configuration, each in the next one.
FEWER |= {
    name: [CONFIGURATIONS[number % 4]]
    for number, name in enumerate(name for name in NAMES if name not in SMALL + SLOW)
}
each_model = pytest.mark.parametrize("name", marked(NAMES, lambda name: name not in QUICK))


@pytest.fixture(autouse=True)
def _free():
    keras.utils.set_random_seed(7)
    yield
    keras.backend.clear_session()
    gc.collect()


LOADER = """
import gc, sys, keras, numpy as np
for line in sys.stdin:
    folder = line.strip()
    model = keras.models.load_model(folder + "/small.keras")
    y = model(np.load(folder + "/x.npy"), training=False)
    np.save(folder + "/y.npy", keras.ops.convert_to_numpy(y))
    del model
    keras.backend.clear_session()
    gc.collect()
    print("with tfprune" if "tfprune" in sys.modules else "without tfprune", flush=True)
"""


@pytest.fixture(scope="module")
def loader():
    """Loads the saved models, all in one process, which never imports tfprune."""
    started = subprocess.Popen(
        [sys.executable, "-c", LOADER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )

    def load(folder):
        started.stdin.write(f"{folder}\n")
        started.stdin.flush()
        assert started.stdout.readline() == "without tfprune\n"
        return np.load(folder / "y.npy")

    yield load
    started.stdin.close()
    assert started.wait() == 0


def lively(name):
    """A model whose outputs depend on its inputs, which random weights alone do not give."""
    model, size = application(name, SIZES.get(name.rstrip("0123456789"), 64))
    random = np.random.default_rng(0)
    branches = ends_of_branches(model)
    for layer in _keras.flatten(model):
        for weight in layer.weights if not _keras.children(layer) else []:
            strength = BRANCH if id(layer) in branches else 1
            # A LayerScale starts with nearly nothing.
            if weight.name == "gamma" or isinstance(layer, _keras.LayerScale):
                weight.assign(strength * (1 + random.normal(0, 0.2, weight.shape)))
            elif weight.name in ("beta", "bias"):
                shifted = weight.name == "beta" and isinstance(layer, BatchNormalization)
                middle = BETA if shifted and strength == 1 else 0
                weight.assign(random.normal(middle, 0.2, weight.shape))
            elif isinstance(layer, keras.layers.DepthwiseConv2D) or "depth" in weight.name:
                # Keras divides these by all channels, as if they were summed, and numbers are left
                # that are negligible compared with a normalization's epsilon.
                window = np.prod(weight.shape[:2])
                weight.assign(random.normal(0, np.sqrt(2 / window), weight.shape))
            elif name.startswith("VGG"):
                # Nothing normalizes: the signal has to keep its size by itself.
                fan_in = np.prod(weight.shape[:-1])
                weight.assign(random.normal(0, np.sqrt(2 / fan_in), weight.shape))
            elif strength != 1:
                weight.assign(strength * weight.numpy())
    return model, _images(random, size)


def ends_of_branches(model):
    """`id`s of layers whose output is added to what went past them.

    Trained networks keep branches small by comparison. Random ones with equally strong branches are
    chaotic: each block multiplies what it is given of rounding errors, and EfficientNetB7 has 55.
    """
    kinds = (BatchNormalization, keras.layers.Conv2D)
    made, found = {}, set()
    for layer, args, kwargs, results in _keras.graph_calls(model):
        given = [
            made.get(id(tensor), layer)
            for tensor in keras.tree.flatten((args, kwargs))
            if isinstance(tensor, keras.KerasTensor)
        ]
        # A dropped branch is still one.
        same = given[0] if isinstance(layer, keras.layers.Dropout) else layer
        made.update({id(tensor): same for tensor in results})
        if isinstance(layer, keras.layers.Add):
            ends = [end for end in given if isinstance(end, kinds)]
            found |= {id(end) for end in ends if len(ends) == 1}
    return found


def estimate_statistics(model, x, share):
    """Gives BatchNormalization nearly the statistics of its inputs; others would hide the input.

    One layer after the other, and each sees what the layers before it give when the model
    predicts. Estimated all at once, in training mode, the small errors of each would multiply:
    EfficientNetB7 ends with numbers of 15,000 then, and blows up what float32 rounds.
    """
    random = np.random.default_rng(1)
    layers = _keras.flatten(model)
    if "vgg" in model.name:
        # Filters of zeros weaken the signal, and nothing normalizes it.
        for kernel in (w for layer in layers[1:] for w in layer.weights if w.name == "kernel"):
            kernel.assign(kernel.numpy() / np.sqrt(1 - share))
    values = {id(model.inputs[0]): keras.ops.convert_to_tensor(x)}
    estimated = 0

    def value(item):
        return values[id(item)] if isinstance(item, keras.KerasTensor) else item

    for layer, args, kwargs, tensors in _keras.graph_calls(model):
        args, kwargs = keras.tree.map_structure(value, (args, kwargs))
        if isinstance(layer, BatchNormalization):
            _set_statistics(layer, keras.ops.convert_to_numpy(args[0]), random)
            estimated += 1
        results = keras.tree.flatten(layer(*args, **kwargs))
        values.update({id(t): y for t, y in zip(tensors, results, strict=True)})
    assert estimated == sum(isinstance(n, BatchNormalization) for n in layers)


def _set_statistics(norm, seen, random):
    others = tuple(axis for axis in range(seen.ndim) if axis != norm.axis % seen.ndim)
    mean, variance = seen.mean(axis=others), seen.var(axis=others)
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


def by_magnitude(model, groups, share):
    """The channels of each group whose kernels are smallest, all that is coupled put together."""
    weights = {}
    for layer_path, layer in ((c[-1][0], c[-1][1]) for c in _keras.walk(model)):
        for weight in layer.weights if not _keras.children(layer) else []:
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


# Why groups stay whole; all others lose channels.
OUTPUT = "they are the model's output"


def stay_whole(groups):
    """`{reason: number}` of the groups that cannot lose a channel."""
    found = {}
    for group in groups:
        if not group.removable:
            for reason in set(group.fixed.values()):
                found[reason] = found.get(reason, 0) + 1
    return found


@each_model
def test_shrunk_models_compute_what_masked_ones_compute(name, tmp_path, loader):
    model, x = lively(name)
    groups = tfprune.dependency_groups(model)
    whole = stay_whole(groups)
    if name.startswith("ConvNeXt"):
        # The widths of its four stages, and of the features after them.
        others = [reason for reason in whole if reason != OUTPUT]
        assert all("mixes them into its statistics" in reason for reason in others)
        assert sum(whole[reason] for reason in others) == 4
    else:
        assert whole == {OUTPUT: 1}
    dense = [weight.numpy() for weight in model.weights]
    for how, share in FEWER.get(name, CONFIGURATIONS):
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
    _check_plain(small, x, tmp_path, loader)
    # One channel more that is silent, where most are live, and the comparison has to fail. Behind a
    # ReLU, one may happen to be silent for these images anyway.
    group, units = max(chosen, key=lambda pair: pair[0].size - len(pair[1]))
    live = np.setdiff1d(np.arange(group.size), units)[:4]
    for number in range(len(live)):
        zeroed(model, group, live[: number + 1], reads=False)
        if np.abs(outputs(model, x) - truth).max() > 1e-4 * scale:
            return
    raise AssertionError("a wrong model would pass")


def _check_plain(small, x, tmp_path, loader):
    """The file needs no tfprune, and the model trains."""
    truth = outputs(small, x)
    small.save(tmp_path / "small.keras")
    np.save(tmp_path / "x.npy", x)
    loaded = loader(tmp_path)
    # Some take hundreds of megabytes.
    (tmp_path / "small.keras").unlink()
    np.testing.assert_allclose(loaded, truth, 1e-4, 1e-5 * np.abs(truth).max())
    small.compile(keras.optimizers.SGD(1e-6), "mse", run_eagerly=True)
    bias = small.trainable_weights[-1]
    before = bias.numpy()
    assert np.isfinite(small.train_on_batch(x[:2], np.zeros_like(truth[:2])))
    assert (bias.numpy() != before).any()
