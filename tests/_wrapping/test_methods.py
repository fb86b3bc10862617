"""Methods and the rules that vary them by layer."""

import dataclasses
import json

import keras
import pytest
from keras import layers

import tfprune
from tfprune import Rule
from tfprune._wrapping.methods import Method, resolve

HALF = tfprune.ConstantSparsity(0.5, 0)
MOST = tfprune.ConstantSparsity(0.9, 0)
DEFAULT = Method.of(HALF)

CHAIN = [
    ("encoder", keras.Sequential(name="encoder")),
    ("encoder/conv_1", keras.layers.Conv2D(4, 3, name="conv_1")),
]


@pytest.mark.parametrize(
    ("match", "expected"),
    [
        ("conv_1", True),
        ("conv_*", True),
        ("conv_?", True),
        ("CONV_1", False),
        ("encoder/*", True),
        ("encoder/conv_1", True),
        ("*/conv_1", True),
        ("decoder/*", False),
        ("onv_1", False),
        ("conv_[0-9]", True),
        ("*", True),
        (keras.layers.Conv2D, True),
        (keras.layers.Layer, True),
        (keras.layers.Dense, False),
        (["dense", keras.layers.Conv2D], True),
        (("dense", "conv_*"), True),
        (["dense", keras.layers.Dense], False),
        ([], False),
    ],
)
def test_matches(match, expected):
    assert Rule(match, prune=False).matches(*CHAIN[-1]) is expected


def test_subclass_of_a_layer_class_matches():
    class Own(keras.layers.Dense):
        pass

    assert Rule(keras.layers.Dense).matches("own", Own(1))


@pytest.mark.parametrize(
    ("rules", "expected"),
    [
        ([], DEFAULT),
        ([Rule("other", schedule=MOST)], DEFAULT),
        ([Rule("conv_1", schedule=MOST)], Method.of(MOST)),
        # What a rule leaves out stays; later rules override earlier ones part by part.
        (
            [Rule("conv_1", schedule=MOST), Rule("conv_1", pattern="filter")],
            Method.of(MOST, pattern="filter"),
        ),
        ([Rule("*", schedule=MOST), Rule("conv_1", schedule=HALF)], DEFAULT),
        ([Rule("conv_1", schedule=MOST), Rule("*", schedule=HALF)], DEFAULT),
        # A rule for a layer holds for the layers inside it.
        ([Rule("encoder", scope="global")], Method.of(HALF, scope="global")),
        ([Rule("encoder", prune=False)], None),
        ([Rule(keras.layers.Conv2D, prune=False)], None),
        # An exemption can be taken back, and then starts from the default.
        (
            [
                Rule("*", schedule=MOST),
                Rule("*", prune=False),
                Rule("conv_1", pattern=tfprune.Block((2, 2))),
            ],
            Method.of(HALF, pattern=tfprune.Block((2, 2))),
        ),
        ([Rule("conv_1"), Rule("conv_1", prune=False)], None),
    ],
)
def test_resolve(rules, expected):
    assert resolve(rules, CHAIN, DEFAULT) == expected


def test_rule_takes_names_configs_and_objects():
    serialize = keras.saving.serialize_keras_object
    rule = Rule(
        "*",
        schedule=tfprune.schedules.serialize(MOST),
        pattern=serialize(tfprune.NOfM(1, 4)),
        criterion="magnitude",
        scope=tfprune.Global(0.95),
    )
    assert rule.applied_to(DEFAULT) == Method(
        MOST, tfprune.NOfM(1, 4), tfprune.Magnitude(), tfprune.Global(0.95)
    )


@pytest.mark.parametrize("match", [None, 3, keras.layers.Dense(1), dict, ["dense", 3], [None]])
def test_bad_match(match):
    with pytest.raises(TypeError, match=r"Expected `match` .* Received: match="):
        Rule(match)


@pytest.mark.parametrize(
    ("part", "name"),
    [
        ({"schedule": 0.5}, "pruning_schedule"),
        ({"pattern": "filters"}, "pattern"),
        ({"pattern": tfprune.Filter}, "pattern"),
        ({"criterion": "l3"}, "criterion"),
        ({"criterion": 1}, "criterion"),
        ({"scope": "everywhere"}, "scope"),
    ],
)
def test_bad_part(part, name):
    with pytest.raises((ValueError, TypeError), match=rf"Expected `{name}` .* Received: {name}="):
        Rule("*", **part)


@pytest.mark.parametrize("thing", [Rule("conv_*", schedule=MOST), DEFAULT])
def test_frozen(thing):
    with pytest.raises(dataclasses.FrozenInstanceError):
        thing.schedule = HALF


@pytest.mark.parametrize(
    "method",
    [
        DEFAULT,
        Method.of(
            tfprune.Cosine(0.1, 0.8, 5, 50), tfprune.Block((4, 1), "MAX"), None, tfprune.Global(0.9)
        ),
        Method.of(tfprune.DenseSparseDense(0.0, 0.8, 5, 50), tfprune.Slice((0, 1))),
    ],
)
def test_config_round_trip(method):
    assert Method.of(**json.loads(json.dumps(method.get_config()))) == method


class Own(tfprune.PruningSchedule):
    def __init__(self, target):
        self.target = target

    def __call__(self, step):
        return True, self.target

    def get_config(self):
        return {"target": self.target}


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        (Method.of(HALF), Method.of(tfprune.ConstantSparsity(0.5, 0)), True),
        (Method.of(HALF), Method.of(MOST), False),
        (Method.of(HALF), Method.of(HALF, scope="global"), False),
        (Method.of(HALF, scope="global"), Method.of(HALF, scope=tfprune.Global(0.9)), False),
        (Method.of(HALF, "filter"), Method.of(HALF, "unstructured"), True),
        # Schedules of one's own need no `==`.
        (Method.of(Own(0.5)), Method.of(Own(0.5)), True),
        (Method.of(Own(0.5)), Method.of(Own(0.6)), False),
    ],
)
def test_same_competition(one, other, expected):
    assert one.same_competition(other) is expected
    assert other.same_competition(one) is expected


def test_a_class_that_only_carries_on_the_name_of_another_means_that_one():
    """KerasHub exports a ReversibleEmbedding, and its models use Keras's."""
    alias = type("Dense", (layers.Dense,), {})
    other = type("Mine", (layers.Dense,), {})
    assert Rule(alias).matches("a", layers.Dense(2))
    assert not Rule(other).matches("a", layers.Dense(2))
