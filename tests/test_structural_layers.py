"""Layers with channels of their own kind: heads, recurrent units, groups of a normalization."""

import keras
import numpy as np
import pytest
from keras import layers
from structural_graphs import BUILDERS
from structural_support import copy, data, distance, layer_at, randomize, zeroed

import tfprune


def made(name):
    # Layers get their default names anew.
    keras.backend.clear_session()
    keras.utils.set_random_seed(3)
    return randomize(BUILDERS[name]())


def removable(model):
    """`{(path, ...): how many may go}` of the groups in which there are any."""
    groups = tfprune.dependency_groups(model)
    return {group.layers: group.removable for group in groups if group.removable}


def group_of(model, name):
    (group,) = [g for g in tfprune.dependency_groups(model) if name in g.layers]
    return group


def planned(model, name):
    (group,) = [g for g in tfprune.plan_shrink(model).groups if name in g.layers]
    return group


def assign(model, path, weight, change):
    """Lets `change` write into a weight."""
    (variable,) = [w for w in layer_at(model, path).weights if w.name == weight]
    value = np.array(keras.ops.convert_to_numpy(variable))
    change(value)
    variable.assign(value)


def put(place, number=0.0):
    def change(value):
        value[place] = number

    return change


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        (
            "encoder",
            {
                ("multi_head_attention:heads",): 3,
                ("multi_head_attention_1:heads",): 3,
                ("dense",): 5,
                ("dense_1",): 11,
                ("dense_3",): 5,
                ("dense_4",): 11,
            },
        ),
        (
            "decoder",
            {
                ("x",): 7,
                ("memory",): 6,
                ("keys",): 4,
                ("multi_head_attention:heads",): 2,
                ("multi_head_attention",): 7,
                ("scored",): 5,
                ("gated:heads",): 2,
                ("gated",): 5,
                ("matrices:heads",): 1,
                ("frames",): 5,
                ("rows:heads",): 2,
                ("rows",): 5,
            },
        ),
        (
            "language_model",
            {
                (
                    "embedding",
                    "grouped_query_attention",
                    "dense_2",
                    "grouped_query_attention_1",
                    "dense_5",
                ): 7,
                ("grouped_query_attention:heads",): 2,
                ("grouped_query_attention_1:heads",): 2,
                ("dense", "dense_1"): 9,
                ("dense_3", "dense_4"): 9,
            },
        ),
        ("group_normalized", {("conv2d",): 3, ("conv2d_1",): 5}),
    ],
)
def test_what_may_go(name, expected):
    assert removable(made(name)) == expected


# -- Heads -----------------------------------------------------------------------------------------


def attending(**arguments):
    x = inputs = keras.Input((5, 4))
    x = layers.Dense(6, name="before")(x)
    x = layers.MultiHeadAttention(4, 3, name="attention", **arguments)(x, x)
    return randomize(keras.Model(inputs, layers.Dense(2)(x)))


def test_heads_are_removed_by_name():
    model = attending()
    small = tfprune.remove_channels(model, {"attention:heads": [0, 2], "attention": [5]})
    config = small.get_layer("attention").get_config()
    assert (config["num_heads"], config["output_shape"]) == (2, (5,))
    kernel = layer_at(model, "attention/value").kernel.numpy()
    np.testing.assert_array_equal(layer_at(small, "attention/value").kernel, kernel[:, [1, 3]])
    with pytest.raises(ValueError, match="all 4 channels of 'attention:heads'"):
        tfprune.remove_channels(model, {"attention:heads": range(4)})


def test_outputs_stay_as_many_when_inputs_go():
    model = attending()
    silenced = copy(model)
    zeroed(silenced, group_of(model, "before"), [1, 2], reads=True)
    small = tfprune.remove_channels(model, {"before": [1, 2]})
    assert small.get_layer("attention").output.shape == (None, 5, 6)
    assert distance(silenced, small, data(model)) < 1e-4


@pytest.mark.parametrize(
    ("changes", "removed"),
    [
        ({("value", "kernel"): np.s_[:, 1], ("value", "bias"): 1}, (1,)),
        ({("attention_output", "kernel"): 1}, (1,)),
        # It still adds its bias, whatever it looks at.
        ({("value", "kernel"): np.s_[:, 1]}, ()),
        # It looks at all places alike, and still takes their mean.
        ({("query", "kernel"): np.s_[:, 1], ("query", "bias"): 1}, ()),
        ({("gate", "kernel"): np.s_[:, 1], ("gate", "bias"): 1}, ()),
    ],
)
def test_when_a_head_is_silent(changes, removed):
    model = attending(use_gate=True)
    for (part, weight), place in changes.items():
        assign(model, f"attention/{part}", weight, put(place))
    assert planned(model, "attention:heads").removed == removed
    assert distance(model, tfprune.shrink(model), data(model)) < 1e-4


@pytest.mark.parametrize("use_bias", [True, False])
def test_constants_go_into_the_biases_of_the_projections(use_bias):
    model = attending(use_bias=use_bias)
    assign(model, "before", "kernel", put(np.s_[:, 1]))
    plan = planned(model, "before")
    assert plan.removed == ((1,) if use_bias else ())
    assert use_bias or any("it has no bias" in why for why in plan.why)
    assert distance(model, tfprune.shrink(model), data(model)) < 1e-4


def test_scores_have_a_matrix_for_each_head():
    x = inputs = keras.Input((5, 4))
    attention = layers.MultiHeadAttention(4, 3, name="attention")
    x, scores = attention(x, x, return_attention_scores=True)
    best = layers.Dense(2, name="reader")(keras.ops.max(scores, axis=(2, 3)))
    model = randomize(keras.Model(inputs, [layers.Dense(2)(x), best]))
    silenced = copy(model)
    zeroed(silenced, group_of(model, "attention:heads"), [0, 3], reads=True)
    small = tfprune.remove_channels(model, {"attention:heads": [0, 3]})
    assert layer_at(small, "reader").kernel.shape == (2, 2)
    assert distance(silenced, small, data(model)) < 1e-4
    assign(model, "attention/attention_output", "kernel", put(1))
    assert planned(model, "attention:heads").removed == ()
    assign(model, "reader", "kernel", put(1))
    assert planned(model, "attention:heads").removed == (1,)


@pytest.mark.parametrize(("heads", "left"), [(4, 0), (1, 3)])
def test_a_mask_for_each_head_keeps_them(heads, left):
    inputs, mask = keras.Input((5, 4)), keras.Input((heads, 5, 5), dtype="bool")
    x = layers.MultiHeadAttention(4, 3, name="attention")(inputs, inputs, attention_mask=mask)
    group = group_of(keras.Model([inputs, mask], layers.Dense(2)(x)), "attention:heads")
    assert group.removable == left
    assert all("the mask of 'attention'" in why for why in group.fixed.values())


def test_attention_to_numbers_is_not_followed():
    inputs = keras.Input((5, 4))
    x = layers.Dense(4, name="before")(inputs)
    x = layers.MultiHeadAttention(2, 3, name="attention")(x, np.ones((1, 5, 4), "float32"))
    model = keras.Model(inputs, layers.Dense(2)(x))
    assert ("before",) not in removable(model)


def test_heads_of_queries_go_with_those_of_keys_and_values():
    model = made("language_model")
    small = tfprune.remove_channels(model, {"grouped_query_attention:heads": [1]})
    old, new = (m.get_layer("grouped_query_attention") for m in (model, small))
    assert (new.num_query_heads, new.num_key_value_heads) == (4, 2)
    queries, keys = (layer_at(model, f"{old.name}/{part}").kernel for part in ("query", "key"))
    kept = layer_at(small, f"{old.name}/query").kernel
    np.testing.assert_array_equal(kept, queries.numpy()[:, [0, 1, 4, 5]])
    kept = layer_at(small, f"{old.name}/key").kernel
    np.testing.assert_array_equal(kept, keys.numpy()[:, [0, 2]])


# -- Normalizations --------------------------------------------------------------------------------


def normalized(norm):
    x = inputs = keras.Input((5, 4))
    x = layers.Dense(6, name="before")(x)
    return randomize(keras.Model(inputs, layers.Dense(2, name="behind")(norm(x))))


def test_scale_and_epsilon_make_up_for_channels_of_zeros():
    model = normalized(layers.RMSNormalization(epsilon=0.5, name="norm"))
    for weight in ("kernel", "bias"):
        assign(model, "before", weight, put((..., [1, 4])))
    small = tfprune.shrink(model)
    norm = small.get_layer("norm")
    assert norm.epsilon == pytest.approx(0.5 * 6 / 4)
    scale = model.get_layer("norm").scale.numpy()[[0, 2, 3, 5]] * np.sqrt(6 / 4)
    np.testing.assert_allclose(norm.scale, scale, 1e-6)
    assert distance(model, small, data(model)) < 1e-5


def test_channels_whose_squares_are_in_a_mean_stay():
    model = normalized(layers.RMSNormalization(name="norm"))
    assign(model, "before", "kernel", put((..., 1)))
    assign(model, "behind", "kernel", put([1, 2]))
    group = planned(model, "before")
    # One is a constant, and nobody behind looks at the other.
    assert group.removed == () and any("squares are in its mean" in why for why in group.why)
    assert distance(model, tfprune.shrink(model), data(model)) < 1e-5


def test_a_normalization_along_other_axes_keeps_channels():
    model = normalized(layers.RMSNormalization(axis=(1, 2), name="norm"))
    assert removable(model) == {}
    assert "along other axes" in group_of(model, "before").fixed[0]


@pytest.mark.parametrize("constant", [0.0, 0.7])
def test_a_group_of_a_normalization_goes_as_a_whole(constant):
    model = normalized(layers.GroupNormalization(3, name="norm"))
    assign(model, "before", "kernel", put((..., [2, 3, 4])))
    assign(model, "before", "bias", put([2, 3, 4], constant))
    # What is left of it is the normalization's beta, which goes into the bias behind.
    assert planned(model, "before").removed == (1,)
    small = tfprune.shrink(model)
    assert small.get_layer("norm").groups == 2
    assert distance(model, small, data(model)) < 1e-5


def test_different_constants_of_a_group_are_known_behind_it():
    model = normalized(layers.GroupNormalization(3, name="norm"))
    assign(model, "before", "kernel", put((..., [2, 3])))
    assign(model, "before", "bias", put([2, 3], [0.3, -0.9]))
    small = tfprune.shrink(model)
    assert small.get_layer("norm").groups == 2
    assert distance(model, small, data(model)) < 1e-5
