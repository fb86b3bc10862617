"""Policies: which layers they choose, and what they say about a model that does not fit."""

import importlib.util
import json
from pathlib import Path

import keras
import numpy as np
import pytest
from keras import layers

import tfprune
from tfprune._wrapping.wrapper import mask_owners

HALF = tfprune.ConstantSparsity(0.5, begin_step=0)
XNNPACK = tfprune.PruneForLatencyOnXNNPack()


def benchmark():
    """The benchmark that measured which models run sparse, as a module."""
    path = Path(__file__).parents[2] / "benchmarks" / "sparse_litert.py"
    spec = importlib.util.spec_from_file_location("sparse_litert", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


MEASURED = benchmark()
RESULT = Path(MEASURED.__file__).parent / "results" / "sparse_litert.json"
CHANGES = MEASURED.variants()


def chain(channels=16, **changes):
    """The benchmark's small MobileNet, narrow; each argument replaces one of its parts."""
    point = changes.pop("point", lambda: [layers.Conv2D(channels, 1)])
    return MEASURED.chain(point=point, **changes)


def part(layer):
    return lambda: [layer]


def padded(*args, **kwargs):
    return lambda: [layers.ZeroPadding2D(1), layers.Conv2D(*args, name="entry", **kwargs)]


def points(model):
    return [
        layer.name
        for layer in model.layers
        if isinstance(layer, layers.Conv2D) and layer.kernel_size == (1, 1)
    ]


def test_only_pointwise_convolutions_are_pruned():
    model = chain()
    pruned = tfprune.prune_low_magnitude(model, HALF, pruning_policy=XNNPACK)
    assert [owner.name for owner in mask_owners(pruned)] == points(model)
    assert len(points(model)) == 3
    tfprune.UpdatePruningStep(pruned)
    for row in tfprune.sparsity_report(pruned).rows:
        assert row.sparsity == (0.5 if row.layer in points(model) else 0.0)


def test_mobilenets_of_keras_are_told_what_to_change():
    model = keras.applications.MobileNetV2((32, 32, 3), alpha=0.35, weights=None, classes=4)
    with pytest.raises(ValueError, match="in which ") as caught:
        tfprune.prune_low_magnitude(model, HALF, pruning_policy=XNNPACK)
    told = str(caught.value).split("in which ")[1].split("; ")
    # The first convolution, and the depthwise ones of stride 2, are padded on two sides alone.
    names = ["Conv1"] + [f"block_{n}_depthwise" for n in (1, 3, 6, 13)]
    assert [sentence.split("'")[1] for sentence in told] == names
    assert "padding='same' and no zeros around its input" in told[0]
    assert all("padding ((0, 1), (0, 1)) before it" in sentence for sentence in told[1:])


@pytest.mark.parametrize(
    ("layer", "allowed"),
    [
        (layers.Conv2D(4, 1), True),
        (layers.Conv2D(4, 3), False),
        (layers.Conv2D(4, 1, strides=2), False),
        (layers.Conv2D(4, 1, groups=2), False),
        (layers.Conv2DTranspose(4, 1), False),
        (layers.DepthwiseConv2D(1), False),
        (layers.Conv1D(4, 1), False),
        (layers.Dense(4), False),
        (layers.ReLU(), False),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_is_allowed(layer, allowed):
    assert XNNPACK.allow_pruning(layer) is allowed


MISFITS = {
    "stride of the entry": (
        {"start": padded(8, 3)},
        r"'entry' has strides=\(1, 1\) \(2 would fit\)",
    ),
    "channels of the entry": (
        {"shape": (32, 32, 4)},
        r"'entry' has 4 input channels \(3 would fit\)",
    ),
    "size of the entry": (
        {"start": padded(8, 5, strides=2)},
        r"'entry' has kernel_size=\(5, 5\) \(3 would fit\)",
    ),
    "zeros before the entry": (
        {"start": part(layers.Conv2D(8, 3, strides=2, padding="same", name="entry"))},
        r"'entry' has padding='same' and no zeros around its input \(ZeroPadding2D\(1\) for it "
        r"alone and padding='valid' would fit\)",
    ),
    "activation of the entry": (
        {"start": padded(8, 3, strides=2, activation="softmax")},
        r"'entry' has activation='softmax' \('relu' would fit\)",
    ),
    "no entry": (
        {"start": part(layers.Conv2D(8, 1, name="first"))},
        r"'first' reads the model's input \(ZeroPadding2D\(1\) and a Conv2D 3x3 of stride 2 ",
    ),
    "no exit": (
        {"leave": part(layers.MaxPooling2D(name="leave"))},
        "there is no GlobalAveragePooling2D after 1x1 convolutions to end the chain",
    ),
    "no 1x1": (
        {"point": lambda: [layers.Conv2D(8, 3, padding="same")]},
        "there is no 1x1 Conv2D of stride 1 without groups",
    ),
    "depthwise size": (
        {"depthwise": lambda: [layers.DepthwiseConv2D(7, padding="same")]},
        r"'depthwise\w+' has kernel_size=\(7, 7\) \(3 or 5 would fit\)",
    ),
    "depthwise stride": (
        {"depthwise": lambda: [layers.ZeroPadding2D(1), layers.DepthwiseConv2D(3, 3)]},
        r"'depthwise\w+' has strides=\(3, 3\) \(1 or 2 would fit\)",
    ),
    "depth multiplier": (
        {"depthwise": lambda: [layers.DepthwiseConv2D(3, depth_multiplier=2, padding="same")]},
        r"'depthwise\w+' has depth_multiplier=2 \(1 would fit\)",
    ),
    "dilation": (
        {"depthwise": lambda: [layers.DepthwiseConv2D(3, dilation_rate=2, padding="same")]},
        r"'depthwise\w+' has dilation_rate=\(2, 2\) \(1 would fit\)",
    ),
    "zeros before a depthwise one": (
        {"depthwise": lambda: [layers.DepthwiseConv2D(5)]},
        r"'depthwise\w+' has padding='valid' and no zeros around its input "
        r"\(ZeroPadding2D\(2\) for it alone and padding='valid' would fit\)",
    ),
    "stride of a 1x1": (
        {"point": lambda: [layers.Conv2D(16, 1, strides=2)]},
        r"'conv2d\w*' has strides=\(2, 2\) \(1 would fit\)",
    ),
    "groups of a 1x1": (
        {"point": lambda: [layers.Conv2D(16, 1, groups=2)]},
        r"'conv2d\w*' has groups=2 \(1 would fit\)",
    ),
    "a larger convolution inside": (
        {"depthwise": lambda: [layers.Conv2D(16, 3, padding="same")]},
        r"'conv2d\w*' has kernel_size=\(3, 3\) \(a depthwise convolution and a 1x1 would fit\)",
    ),
    "zeros before a 1x1": (
        {"point": lambda: [layers.ZeroPadding2D(1), layers.Conv2D(16, 1)]},
        r"'zero_padding2d\w*' has no depthwise convolution after it \(one would fit\)",
    ),
    "three summands": (
        {"merge": lambda: lambda t: layers.Add()([*t, t[0]])},
        r"'add\w*' has 3 inputs \(2 would fit\)",
    ),
    "another merge": (
        {"merge": lambda: layers.Maximum()},
        r"'maximum\w*' is a Maximum, which has no kernel in this layout",
    ),
    "a free normalization": (
        {"merge": lambda: lambda t: layers.BatchNormalization()(layers.Add()(t))},
        r"'batch_normalization\w*' has no convolution without activation just before it "
        r"\(one would fit\)",
    ),
    "a read from outside": (
        {
            "leave": lambda: [
                lambda x: layers.Concatenate()(
                    [
                        layers.GlobalAveragePooling2D()(x),
                        layers.GlobalMaxPooling2D(name="second")(x),
                    ]
                )
            ]
        },
        r"'add(_\d+)?' is also read by 'second', outside of the chain",
    ),
    "a 1x1 on the average": (
        {
            "leave": lambda: [
                layers.GlobalAveragePooling2D(keepdims=True),
                layers.Conv2D(4, 1, name="classes"),
            ]
        },
        r"'classes' is a convolution on the average \(a Dense layer would fit\)",
    ),
    "layout": (
        {"leave": part(layers.GlobalAveragePooling2D("channels_first", name="leave"))},
        r"'leave' has data_format='channels_first' \('channels_last' would fit\)",
    ),
    "an output from inside": (
        {"tap": True},
        r"'add(_\d+)?' is an output of the model \(an output after the chain would fit\)",
    ),
}


@pytest.mark.parametrize("name", MISFITS)
def test_misfit_is_named(name):
    changes, message = MISFITS[name]
    with pytest.raises(
        ValueError,
        match=rf"Expected a chain of layers .* Received: model '.*', in which .*{message}",
    ):
        tfprune.prune_low_magnitude(chain(**changes), HALF, pruning_policy=XNNPACK)


def test_all_misfits_in_one_message():
    model = chain(
        start=padded(8, 3),
        depthwise=lambda: [layers.DepthwiseConv2D(7, padding="same")],
        merge=lambda: lambda tensors: tensors[1],
        leave=part(layers.MaxPooling2D()),
    )
    with pytest.raises(
        ValueError, match=r"there is no GlobalAv.*; 'entry' has .*; 'depthwise\w+' has "
    ):
        XNNPACK.ensure_model_supports_pruning(model)


def test_layers_off_the_chain_do_not_matter():
    inputs = keras.Input((64, 64, 3), batch_size=1)
    aside = layers.GlobalMaxPooling2D()(layers.Conv2D(4, 5, name="aside")(inputs))
    both = layers.Concatenate()([chain()(inputs), aside])
    XNNPACK.ensure_model_supports_pruning(keras.Model(inputs, layers.Dense(2)(both)))


def test_nested_and_wrapped_models_are_followed():
    inner = chain()
    inputs = keras.Input((64, 64, 3), batch_size=1)
    XNNPACK.ensure_model_supports_pruning(keras.Model(inputs, layers.ReLU()(inner(inputs))))
    wrapped = tfprune.prune_low_magnitude(inner, HALF, pruning_policy=XNNPACK)
    XNNPACK.ensure_model_supports_pruning(wrapped)
    outer = keras.Sequential([inputs, layers.Rescaling(2.0), chain(start=padded(8, 3))])
    with pytest.raises(ValueError, match="'entry' has strides"):
        XNNPACK.ensure_model_supports_pruning(outer)


def test_unbuilt_model():
    model = keras.Sequential([layers.Conv2D(4, 1)])
    with pytest.raises(ValueError, match="a built model"):
        XNNPACK.ensure_model_supports_pruning(model)


# -- Behavior of LiteRT ----------------------------------------------------------------------------


@pytest.mark.parametrize("name", CHANGES)
def test_policy_says_what_was_measured(name):
    row = json.loads(RESULT.read_text())["models"][name]
    fits = not MEASURED.verdict(MEASURED.chain(**CHANGES[name]))
    assert fits == row["ran sparse"]


def test_a_fitting_model_goes_into_a_sparse_file(tmp_path):
    """Opened, run and compared by `export`; the benchmark measures how fast it runs."""
    schedule = tfprune.ConstantSparsity.one_shot(0.95)
    model = tfprune.prune_low_magnitude(MEASURED.chain(), schedule, pruning_policy=XNNPACK)
    tfprune.UpdatePruningStep(model)
    data = np.random.default_rng(0).normal(size=(1, 64, 64, 3)).astype("float32")
    sizes = {
        sparse: tfprune.export(
            model, tmp_path / f"{sparse}.tflite", sparse=sparse, data=data, samples=1
        ).bytes
        for sparse in (False, True)
    }
    assert sizes[True] < sizes[False] / 3


class Subclassed(keras.Model):
    def __init__(self):
        super().__init__()
        self.out = layers.Dense(2, name="out")
        self.other = layers.Conv1D(4, 1, name="other")

    def call(self, inputs):
        return self.out(self.other(inputs))

    def get_config(self):
        return {}


def test_subclassed_model_cannot_be_checked():
    model = Subclassed()
    model(keras.ops.ones((1, 3, 4)))
    with pytest.raises(ValueError, match=r"Expected a Sequential or Functional model .*Subclassed"):
        tfprune.prune_low_magnitude(model, HALF, pruning_policy=XNNPACK)


class DenseOnly(tfprune.PruningPolicy):
    def allow_pruning(self, layer):
        return isinstance(layer, layers.Dense)


def test_policy_of_ones_own():
    model = chain()
    pruned = tfprune.prune_low_magnitude(model, HALF, pruning_policy=DenseOnly())
    assert [owner.name for owner in mask_owners(pruned)] == [model.layers[-1].name]


def test_policy_for_lists_layers_and_subclassed_models():
    dense, convolution = layers.Dense(2), layers.Conv1D(2, 1, name="c")
    wrapped = tfprune.prune_low_magnitude([dense, convolution], HALF, pruning_policy=DenseOnly())
    assert isinstance(wrapped[0], tfprune.PruneLowMagnitude) and wrapped[1] is convolution
    with pytest.raises(
        ValueError, match=r"at least one prunable weight in 'c'.*Remove .*the policy"
    ):
        tfprune.prune_low_magnitude(convolution, HALF, pruning_policy=DenseOnly())
    model = Subclassed()
    model(keras.ops.ones((1, 3, 4)))
    pruned = tfprune.prune_low_magnitude(model, HALF, pruning_policy=DenseOnly())
    assert [weight.layer.name for weight in pruned.pruned_weights] == ["out"]


def test_policy_and_rules():
    model = chain()
    first, *others = points(model)
    rules = [tfprune.Rule(name, prune=False) for name in others]
    pruned = tfprune.prune_low_magnitude(model, HALF, pruning_policy=XNNPACK, rules=rules)
    assert [owner.name for owner in mask_owners(pruned)] == [first]


def test_policy_without_an_opinion():
    with pytest.raises(TypeError, match=r"Write a subclass.*with allow_pruning\(layer\)"):
        tfprune.prune_low_magnitude(chain(), HALF, pruning_policy=tfprune.PruningPolicy())
