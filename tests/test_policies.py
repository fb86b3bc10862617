"""Policies: which layers they choose, and what they say about a model that does not fit."""

import keras
import pytest
from keras import layers

import tfprune
from tfprune.wrapper import mask_owners

HALF = tfprune.ConstantSparsity(0.5, begin_step=0)
XNNPACK = tfprune.PruneForLatencyOnXNNPack()


def chain(entry=None, middle=None, leave=None, point=None):
    """A small MobileNet; each argument replaces one of its parts."""
    x = keras.Input((32, 32, 3))
    y = (entry or layers.Conv2D(8, 3, strides=2, padding="same", name="entry"))(x)
    y = layers.BatchNormalization()(y)
    y = (point or layers.Conv2D(16, 1, name="point_1"))(layers.ReLU(6.0)(y))
    z = (middle or layers.DepthwiseConv2D(3, padding="same", name="depthwise"))(y)
    z = layers.Conv2D(16, 1, name="point_2")(z)
    if middle is None and point is None:
        z = layers.Add()([y, z])
    z = (leave or layers.GlobalAveragePooling2D(name="leave"))(z)
    return keras.Model(x, layers.Dense(4, name="classes")(layers.Flatten()(z)), name="chain")


def test_only_pointwise_convolutions_are_pruned():
    pruned = tfprune.prune_low_magnitude(chain(), HALF, pruning_policy=XNNPACK)
    assert [owner.name for owner in mask_owners(pruned)] == ["point_1", "point_2"]
    tfprune.UpdatePruningStep(pruned)
    zeros = {row.layer: row.sparsity for row in tfprune.sparsity_report(pruned).rows}
    assert zeros["point_1"] == zeros["point_2"] == 0.5
    assert zeros["entry"] == zeros["depthwise"] == zeros["classes"] == 0.0


def test_mobilenets_of_keras_fit():
    model = keras.applications.MobileNetV2((32, 32, 3), alpha=0.35, weights=None, classes=4)
    pruned = tfprune.prune_low_magnitude(model, HALF, pruning_policy=XNNPACK)
    kernels = {w.variable.shape[:2] for o in mask_owners(pruned) for w in o.pruned_weights}
    assert kernels == {(1, 1)}
    assert len(mask_owners(pruned)) == 34


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
        lambda: chain(entry=layers.Conv2D(8, 3, padding="same", name="entry")),
        r"'entry' has strides=\(1, 1\) \(strides=2 would fit\)",
    ),
    "no entry": (
        lambda: chain(entry=layers.Conv2D(8, 5, name="entry")),
        "there is no 3x3 Conv2D of stride 2 to enter the chain by",
    ),
    "no exit": (
        lambda: chain(leave=layers.MaxPooling2D(name="leave")),
        "there is no GlobalAveragePooling2D to leave the chain by",
    ),
    "no 1x1": (
        lambda: keras.Sequential(
            [
                keras.Input((32, 32, 3)),
                layers.Conv2D(8, 3, strides=2),
                layers.GlobalAveragePooling2D(),
            ]
        ),
        "there is no 1x1 Conv2D of stride 1 without groups",
    ),
    "depthwise size": (
        lambda: chain(middle=layers.DepthwiseConv2D(7, name="middle")),
        r"'middle' has kernel_size=\(7, 7\) \(3 or 5 would fit\)",
    ),
    "depthwise stride": (
        lambda: chain(middle=layers.DepthwiseConv2D(3, strides=3, name="middle")),
        r"'middle' has strides=\(3, 3\) \(1 or 2 would fit\)",
    ),
    "depth multiplier": (
        lambda: chain(middle=layers.DepthwiseConv2D(3, depth_multiplier=2, name="middle")),
        r"'middle' has depth_multiplier=2 \(1 would fit\)",
    ),
    "stride of a 1x1": (
        lambda: chain(point=layers.Conv2D(16, 1, strides=2, name="point")),
        r"'point' has strides=\(2, 2\), groups=1 \(1 would fit\)",
    ),
    "groups of a 1x1": (
        lambda: chain(point=layers.Conv2D(16, 1, groups=2, name="point")),
        r"'point' has strides=\(1, 1\), groups=2 \(1 would fit\)",
    ),
    "channels first": (
        lambda: chain(
            middle=layers.DepthwiseConv2D(3, data_format="channels_first", name="middle")
        ),
        r"'middle' has data_format='channels_first' \('channels_last' would fit\)",
    ),
}


@pytest.mark.parametrize("name", MISFITS)
def test_misfit_is_named(name):
    make, message = MISFITS[name]
    with pytest.raises(
        ValueError,
        match=rf"Expected a chain of layers .* Received: model '.*', in which .*{message}",
    ):
        tfprune.prune_low_magnitude(make(), HALF, pruning_policy=XNNPACK)


def test_all_misfits_in_one_message():
    model = chain(
        entry=layers.Conv2D(8, 3, name="entry"),
        middle=layers.DepthwiseConv2D(7, name="middle"),
        leave=layers.MaxPooling2D(name="leave"),
    )
    with pytest.raises(ValueError, match=r"'entry' has .*; there is no GlobalAv.*; 'middle' has "):
        XNNPACK.ensure_model_supports_pruning(model)


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
    pruned = tfprune.prune_low_magnitude(chain(), HALF, pruning_policy=DenseOnly())
    assert [owner.name for owner in mask_owners(pruned)] == ["classes"]


def test_policy_for_lists_layers_and_subclassed_models():
    dense, convolution = layers.Dense(2), layers.Conv1D(2, 1, name="c")
    wrapped = tfprune.prune_low_magnitude([dense, convolution], HALF, pruning_policy=DenseOnly())
    assert isinstance(wrapped[0], tfprune.PruneLowMagnitude) and wrapped[1] is convolution
    with pytest.raises(
        ValueError, match=r"leave something of 'c' to prune.*Leave out .*the policy"
    ):
        tfprune.prune_low_magnitude(convolution, HALF, pruning_policy=DenseOnly())
    model = Subclassed()
    model(keras.ops.ones((1, 3, 4)))
    pruned = tfprune.prune_low_magnitude(model, HALF, pruning_policy=DenseOnly())
    assert [weight.layer.name for weight in pruned.pruned_weights] == ["out"]


def test_policy_and_rules():
    rules = [tfprune.Rule("point_2", prune=False)]
    pruned = tfprune.prune_low_magnitude(chain(), HALF, pruning_policy=XNNPACK, rules=rules)
    assert [owner.name for owner in mask_owners(pruned)] == ["point_1"]


def test_policy_without_an_opinion():
    with pytest.raises(NotImplementedError, match=r"has to implement allow_pruning\(layer\)"):
        tfprune.prune_low_magnitude(chain(), HALF, pruning_policy=tfprune.PruningPolicy())
