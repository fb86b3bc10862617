"""Channels: which go together, and models without some of them, against plain Keras."""

import subprocess
import sys

import keras
import numpy as np
import pytest
from keras import layers
from structural_graphs import BUILDERS
from structural_support import (
    as_channels,
    choice,
    copy,
    data,
    distance,
    outputs,
    randomize,
    spread,
    unread,
    zeroed,
)

import tfprune

each_graph = pytest.mark.parametrize("name", sorted(BUILDERS))


def made(name):
    keras.utils.set_random_seed(3)
    return randomize(BUILDERS[name]())


def by_layers(model):
    return {frozenset(group.layers): group for group in tfprune.dependency_groups(model)}


# -- Groups ----------------------------------------------------------------------------------------


def test_residual_branches_are_one_group():
    model = made("residual")
    sizes = sorted((len(g.layers), g.size) for g in tfprune.dependency_groups(model))
    assert sizes == [(1, 3), (1, 4), (1, 4), (3, 6)]


def test_concatenation_keeps_offsets():
    # 5, 4 and 3 channels side by side, added to 12 of one layer.
    (group,) = [g for g in tfprune.dependency_groups(made("dense_blocks")) if g.size == 12]
    sizes = {path: units.tolist() for path, units in group.makers.items()}
    assert sorted(sizes.values(), key=len) == [
        [9, 10, 11],
        [5, 6, 7, 8],
        [0, 1, 2, 3, 4],
        list(range(12)),
    ]


def test_flatten_makes_a_channel_a_block_of_positions():
    model = keras.Sequential(
        [keras.Input((4, 4, 3)), layers.Conv2D(2, 3, name="conv"), layers.Flatten()]
        + [layers.Dense(3, name="dense")]
    )
    group = by_layers(model)[frozenset({"conv"})]
    (member,) = [m for m in group.members if m.layer == "dense"]
    assert (member.weight, member.axis, member.reads) == ("kernel", 0, True)
    assert member.units.tolist() == [0, 1] * 4


def test_grouped_convolution_ties_what_a_group_reads():
    groups = tfprune.dependency_groups(made("grouped"))
    # 8 channels in 4 groups of 2.
    assert sorted(g.size for g in groups) == [3, 4, 6]
    (four,) = [g for g in groups if g.size == 4]
    assert [u.tolist() for u in four.makers.values()] == [[0, 0, 1, 1, 2, 2, 3, 3]]


def test_a_gate_goes_with_what_it_gates():
    groups = by_layers(made("squeeze_and_excite"))
    assert sorted((len(names), g.size) for names, g in groups.items()) == [
        (1, 3),
        (1, 3),
        (1, 5),
        (2, 8),
    ]


def test_outputs_stay():
    last = [g for g in tfprune.dependency_groups(made("chain")) if g.fixed]
    assert [(len(g.layers), g.size, g.removable) for g in last] == [(1, 3, 0)]
    assert set(last[0].fixed.values()) == {"they are the model's output"}


@pytest.mark.parametrize(
    ("name", "layer", "reason"),
    [
        ("unknown_layer", "before", "'barrier', a UnitNormalization, has no rule for channels"),
        ("constants", "conv2d", "has a number for each of them"),
        ("softmax_inside", "conv2d", "softmax"),
        ("normalized", "dense", "mixes them into its statistics"),
    ],
)
def test_channels_that_stay_say_why(name, layer, reason):
    keras.backend.clear_session()
    groups = tfprune.dependency_groups(made(name))
    (group,) = [g for g in groups if layer in g.layers]
    assert group.removable == 0 and set(group.fixed) == set(range(group.size))
    assert all(reason in text for text in group.fixed.values())


def test_layers_behind_a_barrier_are_free():
    groups = by_layers(made("unknown_layer"))
    assert groups[frozenset({"free"})].fixed == groups[frozenset({"after"})].fixed == {}


def test_feed_forward_width_between_normalizations_is_free():
    groups = tfprune.dependency_groups(made("normalized"))
    assert sorted(g.size for g in groups if not g.fixed) == [2, 5, 10, 10]


def test_subclasses_that_compute_something_else_are_not_known():
    class Doubled(layers.Conv2D):
        def call(self, inputs):
            return 2 * super().call(inputs) - keras.ops.mean(inputs)

    class Renamed(layers.Conv2D):
        pass

    x = inputs = keras.Input((8, 8, 3))
    x = Renamed(4, 3, name="renamed")(x)
    x = Doubled(4, 3, name="doubled")(x)
    model = keras.Model(inputs, layers.Dense(2, name="last")(layers.Flatten()(x)))
    groups = by_layers(model)
    assert "Doubled" in groups[frozenset({"renamed"})].fixed[0]
    assert frozenset({"doubled"}) not in groups


def test_what_hooks_of_a_subclass_compute_is_not_known():
    class Centred(layers.Conv2D):
        def convolution_op(self, inputs, kernel):
            return super().convolution_op(inputs, kernel - keras.ops.mean(kernel))

    x = inputs = keras.Input((8, 8, 3))
    x = Centred(5, 3)(layers.Conv2D(4, 3, name="before")(x))
    model = keras.Model(inputs, layers.Dense(2)(layers.Flatten()(x)))
    assert "Centred" in by_layers(model)[frozenset({"before"})].fixed[0]


def test_noise_with_a_number_for_each_channel_keeps_them():
    model = keras.Sequential([keras.Input((5, 3)), layers.Dense(4, name="hidden")])
    model.add(layers.Dropout(0.5, noise_shape=(None, 1, 4)))
    model.add(layers.Dense(2))
    assert by_layers(model)[frozenset({"hidden"})].removable == 0


def test_tensors_beside_the_input_keep_their_channels():
    inputs = keras.Input((5, 4))
    x = layers.Dense(4, name="hidden")(inputs)
    mask = layers.Dense(5, activation="relu", name="mask")(keras.ops.mean(x, axis=1))
    x = layers.GlobalAveragePooling1D()(x, mask=keras.ops.cast(mask, "bool"))
    model = keras.Model(inputs, layers.Dense(2)(x))
    groups = by_layers(model)
    for name in ("hidden", "mask"):
        assert set(groups[frozenset({name})].fixed) == set(range(groups[frozenset({name})].size))


def test_wrapped_models_have_the_groups_of_the_plain_model():
    model = made("residual")
    wrapped = tfprune.prune_low_magnitude(model, pattern="filter")
    assert [(g.layers, g.size) for g in tfprune.dependency_groups(wrapped)] == [
        (g.layers, g.size) for g in tfprune.dependency_groups(model)
    ]


# -- Removal ---------------------------------------------------------------------------------------


@each_graph
@pytest.mark.parametrize("share", [0.3, 0.6])
def test_removed_channels_are_as_if_nobody_read_them(name, share):
    model = made(name)
    chosen = choice(tfprune.dependency_groups(model), share)
    if not chosen:
        pytest.fail("a graph without any removable channel tests nothing")
    silenced = copy(model)
    for group, units in chosen:
        unread(silenced, group, units)
    before = model.get_weights()
    small = tfprune.remove_channels(model, as_channels(chosen))
    x = data(model)
    assert spread(outputs(silenced, x)) > 1e-2
    assert distance(silenced, small, x) < 1e-4
    assert small.count_params() < model.count_params()
    for old, new in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


@each_graph
def test_the_comparison_can_fail(name):
    """With one more channel removed than silenced, the outputs differ."""
    model = made(name)
    (group, units), *others = choice(tfprune.dependency_groups(model), 0.3)
    silenced = copy(model)
    for other in others:
        unread(silenced, *other)
    unread(silenced, group, units[1:])
    small = tfprune.remove_channels(model, as_channels([(group, units), *others]))
    assert distance(silenced, small, data(model)) > 1e-3


def test_weights_are_the_rows_and_columns_that_stay():
    model = keras.Sequential([keras.Input((3,)), layers.Dense(4, name="a"), layers.Dense(2)])
    randomize(model)
    small = tfprune.remove_channels(model, {"a": [1, 2]})
    kernel, bias, reader, last = model.get_weights()
    for ours, truth in zip(
        small.get_weights(), [kernel[:, [0, 3]], bias[[0, 3]], reader[[0, 3]], last], strict=True
    ):
        np.testing.assert_array_equal(ours, truth)


def test_coupled_channels_go_without_being_named():
    model = made("residual")
    first = model.layers[1].name
    small = tfprune.remove_channels(model, {first: [0, 5]})
    assert [w.shape[-1] for layer in small.layers for w in layer.weights if w.name == "bias"] == [
        4,
        4,
        4,
        4,
        4,
        3,
    ]


def test_layers_in_models_inside_are_named_by_path():
    model = made("nested")
    small = tfprune.remove_channels(model, {"inner/conv": [0], "tail/conv": [1, 2], "conv": [4]})
    assert small.get_layer("conv").filters == 4
    assert small.get_layer("inner").get_layer("conv").filters == 5
    assert small.get_layer("inner").get_layer("other").filters == 5
    assert small.get_layer("tail").get_layer("conv").filters == 2


@pytest.mark.slow
@pytest.mark.parametrize("name", ["merges", "grouped", "nested", "shapes", "sentences"])
def test_saved_models_load_without_tfprune(name, tmp_path):
    model = made(name)
    small = tfprune.remove_channels(
        model, as_channels(choice(tfprune.dependency_groups(model), 0.5))
    )
    small.save(tmp_path / "small.keras")
    x = data(model)
    np.savez(tmp_path / "data.npz", x=x)
    code = (
        "import sys, keras, numpy as np\n"
        "x = np.load('data.npz')['x']\n"
        "y = keras.models.load_model('small.keras').predict(x, verbose=0)\n"
        "np.save('y.npy', y)\n"
        "sys.exit('tfprune' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=tmp_path)
    np.testing.assert_allclose(np.load(tmp_path / "y.npy"), outputs(small, x)[0], 1e-5, 1e-6)


@pytest.mark.parametrize("name", ["chain", "grouped", "shared"])
def test_smaller_models_train(name):
    model = made(name)
    small = tfprune.remove_channels(
        model, as_channels(choice(tfprune.dependency_groups(model), 0.5))
    )
    assert not small.compiled
    small.compile("sgd", "mse")
    x = data(model)
    x = dict(zip(("one", "two"), x, strict=True)) if isinstance(x, list) else x
    y = [np.zeros_like(y) for y in outputs(small, x)]
    before = small.get_weights()
    small.fit(x, y if len(y) > 1 else y[0], verbose=0)
    assert all(np.isfinite(w).all() for w in small.get_weights())
    assert any((old != new).any() for old, new in zip(before, small.get_weights(), strict=True))


def test_initial_values_that_are_arrays_do_not_stand_in_the_way():
    table = np.random.default_rng(0).normal(size=(7, 4)).astype("float32")
    kernel = np.random.default_rng(1).normal(size=(4, 3)).astype("float32")
    constant = keras.initializers.Constant
    model = keras.Sequential(
        [
            keras.Input((5,), dtype="int32"),
            layers.Embedding(7, 4, embeddings_initializer=constant(table), name="table"),
            layers.Dense(3, kernel_initializer=constant(kernel)),
        ]
    )
    small = tfprune.remove_channels(model, {"table": [1, 2]})
    np.testing.assert_array_equal(small.get_weights()[0], table[:, [0, 3]])
    np.testing.assert_array_equal(small.get_weights()[1], kernel[[0, 3]])


@keras.saving.register_keras_serializable(package="structural")
class Twice(keras.Sequential):
    def call(self, inputs, training=None, mask=None):
        return 2 * super().call(inputs, training=training, mask=mask)


def test_models_inside_with_a_call_of_their_own_stay_what_they_are():
    inner = Twice([keras.Input((4,)), layers.Dense(3, name="inside")], name="inner")
    x = inputs = keras.Input((5,))
    x = layers.Dense(4, name="before")(layers.Dense(6, name="free")(x))
    model = randomize(keras.Model(inputs, layers.Dense(2)(inner(x))))
    groups = by_layers(model)
    assert "Twice" in groups[frozenset({"before"})].fixed[0]
    silenced = keras.models.clone_model(model)
    silenced.set_weights(model.get_weights())
    zeroed(silenced, groups[frozenset({"free"})], [0, 1], reads=True)
    small = tfprune.remove_channels(model, {"free": [0, 1]})
    assert type(small.get_layer("inner")) is Twice
    assert distance(silenced, small, data(model)) < 1e-4


def test_frozen_layers_and_random_states_are_kept():
    inputs = keras.Input((6,))
    x = layers.Dropout(0.5, seed=3)(layers.Dense(5, trainable=False, name="frozen")(inputs))
    model = keras.Model(inputs, layers.Dense(2)(x))
    model(np.ones((2, 6)), training=True)
    small = tfprune.remove_channels(model, {"frozen": [0]})
    assert not small.get_layer("frozen").trainable
    (old,), (new,) = (
        [layer.seed_generator.state for layer in m.layers if hasattr(layer, "seed_generator")]
        for m in (model, small)
    )
    np.testing.assert_array_equal(keras.ops.convert_to_numpy(old), keras.ops.convert_to_numpy(new))


# -- Rules of one's own ----------------------------------------------------------------------------


class Scaled(layers.Layer):
    def build(self, input_shape):
        self.scale = self.add_weight(shape=input_shape[-1:], name="scale")

    def call(self, inputs):
        return inputs * self.scale


class Cubed(layers.Layer):
    def call(self, inputs):
        return inputs**3


def with_own_layers():
    x = inputs = keras.Input((8,))
    x = layers.Dense(6, name="hidden")(x)
    x = Cubed(name="cubed")(Scaled(name="scaled")(x))
    return randomize(keras.Model(inputs, layers.Dense(3)(x)))


def test_a_rule_makes_a_custom_layer_known():
    model = with_own_layers()
    assert by_layers(model)[frozenset({"hidden"})].removable == 0

    def rule(call):
        flow = call.take(-1)
        call.cut(call.layer.scale, 0, flow.labels)
        return [flow.carrying(np.where(flow.values == 0, 0, np.nan))]

    from tfprune._layers import facts

    known = dict(facts._FACTS)
    try:
        tfprune.register_channel_rule(Scaled, rule)
        tfprune.register_channel_rule(Cubed, "elementwise")
        group = by_layers(model)[frozenset({"hidden"})]
        assert group.fixed == {}
        silenced = copy(model)
        zeroed(silenced, group, [1, 4], reads=True)
        small = tfprune.remove_channels(model, {"hidden": [1, 4]})
        assert small.get_layer("scaled").scale.shape == (4,)
        assert distance(silenced, small, data(model)) < 1e-4
    finally:
        facts._FACTS.clear()
        facts._FACTS.update(known)


@pytest.mark.parametrize(
    ("layer_class", "rule", "error", "text"),
    [
        (3, "elementwise", TypeError, "layer_class=3"),
        (Cubed, "other", ValueError, "'elementwise'"),
        (Cubed, 3, TypeError, "rule=3"),
    ],
)
def test_wrong_rules_are_refused(layer_class, rule, error, text):
    with pytest.raises(error, match=text):
        tfprune.register_channel_rule(layer_class, rule)


# -- Bad input -------------------------------------------------------------------------------------


class Subclassed(keras.Model):
    def __init__(self):
        super().__init__()
        self.dense = layers.Dense(3)

    def call(self, inputs):
        return self.dense(inputs)


@pytest.mark.parametrize(
    ("channels", "error", "text"),
    [
        ({"nobody": [0]}, ValueError, "'nobody'"),
        ({"last": [0]}, ValueError, "they are the model's output"),
        ({"conv2d": [6]}, ValueError, "channels 0 to 5"),
        ({"conv2d": [-1]}, ValueError, "channels 0 to 5"),
        ({"conv2d": [1, 1]}, ValueError, "each once"),
        ({"conv2d": [0.5]}, TypeError, "whole numbers"),
        ({"conv2d": range(6)}, ValueError, "all 6 channels of 'conv2d'"),
        (["conv2d"], TypeError, "dictionary"),
    ],
)
def test_wrong_channels_are_refused(channels, error, text):
    keras.backend.clear_session()
    model = made("residual")
    with pytest.raises(error, match=text):
        tfprune.remove_channels(model, channels)


def test_models_that_cannot_be_followed_are_refused():
    subclassed = Subclassed()
    subclassed(np.zeros((1, 4)))
    with pytest.raises(ValueError, match=r"keras\.Model\(inputs, outputs\)"):
        tfprune.dependency_groups(subclassed)
    with pytest.raises(ValueError, match="no weights yet"):
        tfprune.dependency_groups(keras.Sequential([layers.Dense(3)]))
    with pytest.raises(TypeError, match="Keras 3"):
        tfprune.dependency_groups("model")
    with pytest.raises(TypeError, match="the layer"):
        tfprune.dependency_groups(layers.Dense(3))
