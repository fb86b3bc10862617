"""Layers with channels of their own kind: heads, recurrent units, groups of a normalization."""

import keras
import numpy as np
import pytest
from keras import layers
from structural_graphs import BUILDERS
from structural_support import copy, data, distance, layer_at, outputs, randomize, zeroed

import tfprune


def made(name):
    # Resets the default names of layers.
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


def plan_removal(model, name):
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
        (
            "tensors",
            {
                ("einsum_dense",): 5,
                ("einsum_dense_1",): 6,
                ("einsum_dense_2",): 5,
                ("einsum_dense_4",): 5,
                ("einsum_dense_5",): 4,
                ("einsum_dense_6",): 3,
            },
        ),
        ("group_normalized", {("conv2d",): 3, ("conv2d_1",): 5}),
        ("lstm_stack", {("embedding",): 3, ("lstm",): 5, ("lstm_1",): 4, ("lstm_2",): 6}),
        (
            "gru_stack",
            {
                ("gru",): 5,
                ("gru_1",): 4,
                ("gru_2",): 5,
                ("simple_rnn",): 4,
                ("simple_rnn_1",): 3,
            },
        ),
        (
            "tagger",
            {
                ("embedding",): 3,
                ("bidirectional/forward_lstm", "bidirectional/backward_lstm"): 4,
                ("bidirectional_1/forward_gru", "bidirectional_1/backward_gru"): 5,
                ("bidirectional_2/forward_gru_1", "bidirectional_2/backward_gru_1"): 5,
                ("bidirectional_3/forward_gru_2", "bidirectional_3/lstm_1"): 3,
                ("bidirectional_4/forward_simple_rnn", "bidirectional_4/backward_simple_rnn"): 3,
            },
        ),
        (
            "translator",
            {
                ("lstm",): 5,
                ("lstm_1", "lstm_2"): 4,
                (
                    "bidirectional/forward_gru_1",
                    "bidirectional/backward_gru_1",
                    "bidirectional_1/forward_gru_2",
                    "bidirectional_1/backward_gru_2",
                ): 2,
                ("start", "gru"): 3,
            },
        ),
        (
            "frames",
            {
                ("time_distributed/conv2d",): 4,
                ("time_distributed_5/network/other", "time_distributed_5/network/conv"): 3,
                ("time_distributed_7/tail/dense",): 8,
                ("time_distributed_7/tail/dense_1",): 7,
                ("time_distributed_6/dense_2",): 8,
                ("lstm",): 7,
            },
        ),
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
        # It still adds its bias, with any inputs.
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
    assert plan_removal(model, "attention:heads").removed == removed
    assert distance(model, tfprune.shrink(model), data(model)) < 1e-4


@pytest.mark.parametrize("use_bias", [True, False])
def test_constants_go_into_the_biases_of_the_projections(use_bias):
    model = attending(use_bias=use_bias)
    assign(model, "before", "kernel", put(np.s_[:, 1]))
    plan = plan_removal(model, "before")
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
    assert plan_removal(model, "attention:heads").removed == ()
    assign(model, "reader", "kernel", put(1))
    assert plan_removal(model, "attention:heads").removed == (1,)


@pytest.mark.parametrize(("heads", "left"), [(4, 0), (1, 3)])
def test_a_mask_for_each_head_keeps_them(heads, left):
    inputs, mask = keras.Input((5, 4)), keras.Input((heads, 5, 5), dtype="bool")
    x = layers.MultiHeadAttention(4, 3, name="attention")(inputs, inputs, attention_mask=mask)
    group = group_of(keras.Model([inputs, mask], layers.Dense(2)(x)), "attention:heads")
    assert group.removable == left
    assert all("the mask of 'attention'" in why for why in group.fixed.values())


def test_heads_with_a_single_number_keep_their_bias():
    """Keras would add it along the steps if there were as many as heads."""
    for use_bias, left in ((True, 0), (False, 3)):
        inputs = keras.Input((3, 4))
        attention = layers.MultiHeadAttention(4, 1, use_bias=use_bias, name="attention")
        model = keras.Model(inputs, layers.Dense(2)(attention(inputs, inputs)))
        assert group_of(model, "attention:heads").removable == left


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


# -- Matrices with several axes --------------------------------------------------------------------


def multiplied(*equation, **arguments):
    x = inputs = keras.Input((5, 4))
    x = layers.Dense(6, name="before")(x)
    x = layers.EinsumDense(*equation, name="einsum", **arguments)(x)
    return randomize(keras.Model(inputs, layers.Dense(2)(x)))


@pytest.mark.parametrize(
    ("equation", "shape", "arguments", "removed"),
    [
        ("abc,cd->abd", (5, 3), {"bias_axes": "d"}, (1,)),
        ("...c,dc->...d", 3, {"bias_axes": "d"}, (1,)),
        ("abc,cd->abd", (5, 3), {"bias_axes": "bd"}, ()),
        ("abc,cd->abd", (5, 3), {}, ()),
        ("abc,bcd->abd", (5, 3), {"bias_axes": "d"}, ()),
    ],
)
def test_constants_go_into_the_bias_of_a_matrix(equation, shape, arguments, removed):
    model = multiplied(equation, shape, **arguments)
    assign(model, "before", "kernel", put((..., 1)))
    assert plan_removal(model, "before").removed == removed
    assert distance(model, tfprune.shrink(model), data(model)) < 1e-4


@pytest.mark.parametrize("axes", [None, "d", "b", "bd"])
def test_constants_of_a_matrix_are_those_of_its_bias(axes):
    model = multiplied("abc,cd->abd", (5, 3), bias_axes=axes)
    assign(model, "einsum", "kernel", put((..., 1)))
    plan = plan_removal(model, "einsum")
    if axes in ("b", "bd"):
        assert plan.why == {"the bias of 'einsum' does not lie along the last axis": 3}
    else:
        assert plan.removed == (1,)
    assert distance(model, tfprune.shrink(model), data(model)) < 1e-4


@pytest.mark.parametrize(
    ("equation", "shape"), [("abc,bd->acd", (6, 3)), ("abc,d->abd", (5, 3)), ("abc,c->abc", (5, 6))]
)
def test_other_products_keep_what_comes_in(equation, shape):
    group = group_of(multiplied(equation, shape), "before")
    assert f"'einsum' computes '{equation}'" in group.fixed[0]


# -- Normalizations --------------------------------------------------------------------------------


def normalized(norm):
    x = inputs = keras.Input((5, 4))
    x = layers.Dense(6, name="before")(x)
    return randomize(keras.Model(inputs, layers.Dense(2, name="after")(norm(x))))


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
    assign(model, "after", "kernel", put([1, 2]))
    group = plan_removal(model, "before")
    # One is a constant, and no later layer reads the other.
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
    # Only the normalization's beta remains, which the next bias absorbs.
    assert plan_removal(model, "before").removed == (1,)
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


# -- Recurrent units -------------------------------------------------------------------------------

RECURRENT = {
    "lstm": (layers.LSTM, {}, 4, 2),
    "lstm, relu": (layers.LSTM, {"activation": "relu"}, 4, 2),
    "gru": (layers.GRU, {}, 3, 2),
    "gru, reset before": (layers.GRU, {"reset_after": False}, 3, 2),
    "simple": (layers.SimpleRNN, {}, 1, 0),
}
each_recurrent = pytest.mark.parametrize("kind", sorted(RECURRENT))


def remembering(kind, **arguments):
    """A recurrent layer of 5 units."""
    layer_class, more, gates, candidate = RECURRENT[kind]
    x = inputs = keras.Input((6, 4))
    x = layers.Dense(3, name="before")(x)
    x = layer_class(5, name="layer", **{**more, **arguments})(x)
    model = randomize(keras.Model(inputs, layers.Dense(2, name="after")(x)))
    cell = f"layer/{model.get_layer('layer').cell.name}"
    return model, cell, gates, candidate


def silence(model, cell, unit, columns, weights=("kernel", "recurrent_kernel", "bias")):
    """Zeroes some of the gates of one of 5 units."""
    for weight in weights:
        assign(model, cell, weight, put((..., [5 * column + unit for column in columns])))


@each_recurrent
def test_weights_of_units_that_stay(kind):
    model, cell, gates, _ = remembering(kind)
    small = tfprune.remove_channels(model, {"layer": [1, 3]})
    layer = small.get_layer("layer")
    assert layer.units == 3
    old = {w.name: w.numpy() for w in layer_at(model, cell).weights}
    new = {w.name: w.numpy() for w in layer_at(small, cell).weights}
    stay = [5 * gate + unit for gate in range(gates) for unit in (0, 2, 4)]
    np.testing.assert_array_equal(new["kernel"], old["kernel"][:, stay])
    recurrent = old["recurrent_kernel"][[0, 2, 4]][:, stay]
    np.testing.assert_array_equal(new["recurrent_kernel"], recurrent)
    np.testing.assert_array_equal(new["bias"], old["bias"][..., stay])


@each_recurrent
def test_a_unit_is_silent_if_its_candidate_is_zero(kind):
    model, cell, gates, candidate = remembering(kind)
    silence(model, cell, 1, [candidate])
    assert plan_removal(model, "layer").removed == (1,)
    assert distance(model, tfprune.shrink(model), data(model)) < 1e-4
    others = [gate for gate in range(gates) if gate != candidate]
    silence(model, cell, 2, others)
    silence(model, cell, 3, range(gates), ("kernel", "recurrent_kernel"))
    silence(model, cell, 4, range(gates), ("kernel", "bias"))
    assert plan_removal(model, "layer").removed == (1,)


@each_recurrent
def test_units_whose_activation_is_not_zero_at_zero_stay(kind):
    model, cell, gates, _ = remembering(kind, activation="sigmoid")
    silence(model, cell, 1, range(gates))
    assert plan_removal(model, "layer").removed == ()
    assert tfprune.remove_channels(model, {"layer": [1]}).get_layer("layer").units == 4


def test_units_that_an_activation_mixes_stay():
    for arguments in ({"activation": "softmax"}, {"recurrent_activation": "softmax"}):
        model, *_ = remembering("gru", **arguments)
        assert "known to be elementwise" in group_of(model, "layer").fixed[0]


@each_recurrent
@pytest.mark.parametrize("use_bias", [True, False])
def test_constants_go_into_the_bias_of_the_inputs(kind, use_bias):
    model, *_ = remembering(kind, use_bias=use_bias)
    assign(model, "before", "kernel", put((..., 1)))
    assign(model, "before", "bias", put(1, 0.8))
    assert plan_removal(model, "before").removed == ((1,) if use_bias else ())
    assert distance(model, tfprune.shrink(model), data(model)) < 1e-4


def test_units_that_start_with_a_state_are_not_silent():
    model = made("translator")
    silence(model, "lstm_2/lstm_cell", 1, range(4))
    assert plan_removal(model, "lstm_2").removed == ()
    silence(model, "lstm_1/lstm_cell", 1, range(4))
    assert plan_removal(model, "lstm_2").removed == (1,)
    assert distance(model, tfprune.shrink(model), data(model)) < 1e-4


def test_states_that_are_inputs_keep_their_units():
    inputs, state = keras.Input((6, 4)), keras.Input((5,))
    for start in (state, np.ones((1, 5), "float32")):
        x = layers.GRU(5, name="layer")(inputs, initial_state=start)
        model = keras.Model([inputs, state], layers.Dense(2)(layers.Concatenate()([x, state])))
        assert group_of(model, "layer").removable == 0


def test_what_a_stateful_layer_remembers_is_kept():
    inputs = keras.Input(batch_shape=(3, 6, 4))
    x = layers.LSTM(5, stateful=True, return_sequences=True, name="layer")(inputs)
    x = layers.Bidirectional(layers.GRU(4, stateful=True), name="both")(x)
    model = randomize(keras.Model(inputs, layers.Dense(2)(x)))
    silence(model, "layer/lstm_cell", 2, range(4))
    x = data(model, batch=3)
    model(x)
    small = tfprune.shrink(model)
    assert small.get_layer("layer").units == 4
    # From where the model is now, more than once.
    assert distance(model, small, x) < 1e-4
    assert distance(model, small, x[:, ::-1]) < 1e-4
    model.get_layer("layer").states[1].assign(np.ones((3, 5)))
    assert plan_removal(model, "layer").removed == ()
    assert distance(model, tfprune.shrink(model), x) < 1e-4


# -- Layers that wrap others -----------------------------------------------------------------------


def both_ways(**arguments):
    x = inputs = keras.Input((6, 4))
    wrapper = layers.Bidirectional(layers.LSTM(5, name="inner"), name="both", **arguments)
    return randomize(keras.Model(inputs, layers.Dense(2, name="after")(wrapper(x))))


@pytest.mark.parametrize(("mode", "rows"), [("concat", 6), ("sum", 3), ("mul", 3), ("ave", 3)])
def test_units_of_both_directions_go_in_pairs(mode, rows):
    model = both_ways(merge_mode=mode)
    small = tfprune.remove_channels(model, {"both/forward_inner": [0, 3]})
    both = small.get_layer("both")
    assert both.forward_layer.units == both.backward_layer.units == 3
    assert small.get_layer("after").kernel.shape == (rows, 2)
    silence(model, "both/forward_inner/lstm_cell", 1, range(4))
    assert plan_removal(model, "both/forward_inner").removed == ()
    silence(model, "both/backward_inner/lstm_cell", 1, range(4))
    assert plan_removal(model, "both/forward_inner").removed == (1,)
    assert distance(model, tfprune.shrink(model), data(model)) < 1e-4


def test_layers_in_both_directions_that_are_not_known_keep_channels():
    x = inputs = keras.Input((6, 4))
    x = layers.Dense(3, name="before")(x)
    cells = [layers.LSTMCell(4), layers.LSTMCell(4)]
    x = layers.Bidirectional(layers.RNN(cells, name="stack"), name="both")(x)
    model = keras.Model(inputs, layers.Dense(2)(x))
    assert removable(model) == {}
    assert tfprune.plan_shrink(model).barriers == {
        "both/forward_stack": "RNN",
        "both/backward_stack": "RNN",
    }


def test_constants_reach_the_layer_inside():
    """A layer inside without a bias gets one."""
    x = inputs = keras.Input((4, 3))
    x = layers.TimeDistributed(layers.Dense(6, name="one"), name="first")(x)
    x = layers.TimeDistributed(layers.Dense(5, use_bias=False, name="two"), name="steps")(x)
    inner = keras.Sequential(
        [keras.Input((5,)), layers.Dense(4, use_bias=False), layers.Dense(3)], name="inner"
    )
    x = layers.TimeDistributed(inner)(x)
    model = randomize(keras.Model(inputs, layers.Dense(2)(x)))
    assign(model, "first/one", "kernel", put((..., 1)))
    assign(model, "steps/two", "kernel", put((..., 2)))
    small = tfprune.shrink(model)
    assert small.get_layer("steps").layer.kernel.shape == (5, 4)
    assert small.get_layer("steps").layer.use_bias
    assert distance(model, small, data(model)) < 1e-4


def test_wrapped_layers_start_with_arrays():
    kernel = keras.initializers.Constant(np.ones((3, 6), "float32"))
    x = inputs = keras.Input((4, 3))
    x = layers.TimeDistributed(layers.Dense(6, kernel_initializer=kernel, name="one"))(x)
    model = keras.Model(inputs, layers.Dense(2)(x))
    small = tfprune.remove_channels(model, {"one": [0]})
    assert small.layers[1].layer.kernel.shape == (3, 5)


def test_wrapped_layers_that_are_called_twice_or_pass_masks_on():
    one, two = keras.Input((4, 3)), keras.Input((4, 3))
    before = layers.Dense(5, name="before")
    inner = keras.Sequential([keras.Input((5,)), layers.Dense(6, name="one")], name="inner")
    twice = layers.TimeDistributed(inner, name="twice")
    x = layers.Add()([twice(before(one)), twice(before(two))])
    model = randomize(keras.Model([one, two], layers.Dense(2)(x)))
    assert removable(model) == {("twice/inner/one",): 5}
    assert "is called several times" in group_of(model, "before").fixed[0]
    silenced = copy(model)
    zeroed(silenced, group_of(model, "twice/inner/one"), [1, 2], reads=True)
    small = tfprune.remove_channels(model, {"one": [1, 2]})
    assert distance(silenced, small, data(model)) < 1e-4
    x = layers.Masking()(one)
    x = layers.TimeDistributed(layers.Dense(6, name="free"), name="steps")(x)
    x = layers.TimeDistributed(layers.BatchNormalization(), name="masked")(x)
    model = keras.Model(one, layers.Dense(2)(x))
    assert "passes a mask on" in group_of(model, "steps/free").fixed[0]


@pytest.mark.parametrize("name", ["tagger", "frames", "language_model", "encoder", "translator"])
def test_smaller_models_are_saved_and_loaded(name, tmp_path):
    model = made(name)
    channels = {path: [1] for layers_ in removable(model) for path in layers_[:1]}
    small = tfprune.remove_channels(model, channels)
    small.save(tmp_path / "small.keras")
    loaded = keras.models.load_model(tmp_path / "small.keras")
    assert distance(small, loaded, data(model)) < 1e-6
    # Compiling a recurrent model takes longer than all the rest.
    small.compile("sgd", "mse", run_eagerly=True)
    small.train_on_batch(data(model), outputs(small, data(model)))


@pytest.mark.skipif(
    not hasattr(layers, "ReversibleEmbedding"), reason="older versions of Keras lack the layer"
)
@pytest.mark.parametrize("tied", [True, False])
def test_an_embedding_that_is_read_in_reverse_loses_channels_in_both_directions(tied):
    inputs = keras.Input((5,), dtype="int32")
    embedding = layers.ReversibleEmbedding(7, 8, tie_weights=tied, name="embedding")
    x = embedding(inputs)
    x = layers.Add()([x, layers.Dense(8, name="dense")(x)])
    x = layers.RMSNormalization(epsilon=0.1)(x)
    model = randomize(keras.Model(inputs, embedding(x, reverse=True)))
    tokens = np.arange(10).reshape(2, 5) % 7
    dense = keras.ops.convert_to_numpy(model(tokens))
    (group,) = [g for g in tfprune.dependency_groups(model) if "embedding" in g.layers]
    assert group.layers == ("embedding", "dense") and group.removable == 7
    zeroed(model, group, [1, 4], reads=False)
    masked = keras.ops.convert_to_numpy(model(tokens))
    small = tfprune.remove_channels(model, {"embedding": [1, 4]})
    np.testing.assert_allclose(keras.ops.convert_to_numpy(small(tokens)), masked, atol=1e-5)
    assert np.abs(dense - masked).max() > 0.1
    assert small.get_layer("embedding").output_dim == 6
    if not tied:
        assert small.get_layer("embedding").reverse_embeddings.shape[0] == 6
