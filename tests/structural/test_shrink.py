"""Shrinking: the smaller model computes what the masked one computes."""

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from keras import layers
from structural_graphs import BUILDERS
from structural_support import choice, data, distance, outputs, randomize, spread, zeroed

import tfprune

each_graph = pytest.mark.parametrize("name", sorted(BUILDERS))


def made(name):
    keras.utils.set_random_seed(3)
    return randomize(BUILDERS[name]())


@each_graph
@pytest.mark.parametrize("share", [0.3, 0.6])
def test_silent_channels_go_and_nothing_else_changes(name, share):
    model = made(name)
    chosen = choice(tfprune.dependency_groups(model), share)
    for group, units in chosen:
        zeroed(model, group, units, reads=False)
    before = model.get_weights()
    plan = tfprune.plan_shrink(model)
    gone = {group.layers: group.removed for group in plan.groups if group.removed}
    assert gone == {group.layers: tuple(units.tolist()) for group, units in chosen}
    x = data(model)
    assert spread(outputs(model, x)) > 1e-2
    assert distance(model, plan.apply(), x) < 1e-4
    assert plan.after.parameters == plan.apply().count_params() < plan.before.parameters
    assert plan.after.bytes < plan.before.bytes and plan.after.macs < plan.before.macs
    for old, new in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


def one_constant(make, filters=4, **arguments):
    """A layer whose filter 1 has no weights, but a bias of 0.7; and what reads it."""
    x = inputs = keras.Input((6, 6, 3))
    x = layers.Conv2D(filters, 3, name="constant", **arguments)(x)
    model = randomize(keras.Model(inputs, layers.Dense(2)(layers.Flatten()(make(x)))))
    kernel, bias = (w.numpy().copy() for w in model.get_layer("constant").weights)
    kernel[..., 1], bias[1] = 0, 0.7
    model.get_layer("constant").set_weights([kernel, bias])
    return model


FOLDING = {
    "valid": lambda x: layers.Conv2D(3, 3)(x),
    "valid, no bias": lambda x: layers.Conv2D(3, 3, use_bias=False)(x),
    "strides": lambda x: layers.Conv2D(3, 2, strides=2)(x),
    "1x1": lambda x: layers.Conv2D(3, 1, padding="same")(x),
    "dense": lambda x: layers.Dense(3, use_bias=False, activation="relu")(x),
    "separable": lambda x: layers.SeparableConv2D(3, 3, depth_multiplier=2)(x),
    "depthwise": lambda x: layers.Conv2D(3, 1)(layers.DepthwiseConv2D(3)(x)),
    "normalized": lambda x: layers.Conv2D(3, 3)(layers.BatchNormalization()(x)),
    "flattened": lambda x: layers.Dense(3)(layers.Flatten()(x)),
    "pooled": lambda x: layers.Dense(3)(layers.GlobalAveragePooling2D()(layers.MaxPooling2D()(x))),
    "sum": lambda x: layers.Dense(3)(x * 2.0 + 1.0),
    "read twice": lambda x: layers.Add()([layers.Conv2D(3, 1)(x), layers.Dense(3)(x)]),
    "grouped": lambda x: layers.Conv2D(3, 1)(layers.Conv2D(4, 1, groups=4)(x)),
}
NOT_FOLDING = {
    "same": (lambda x: layers.Conv2D(3, 3, padding="same", name="reader")(x), "is 'same'"),
    "padded": (lambda x: layers.Conv2D(3, 3)(layers.ZeroPadding2D()(x)), "not silent"),
    "transposed": (lambda x: layers.Conv2DTranspose(3, 3, name="reader")(x), "borders differ"),
    "depthwise": (
        lambda x: layers.Conv2D(3, 1)(layers.DepthwiseConv2D(3, padding="same")(x)),
        "not silent",
    ),
    "separable": (lambda x: layers.SeparableConv2D(3, 3, padding="same")(x), "is 'same'"),
    "added to a live one": (
        lambda x: layers.Dense(3)(layers.Add()([x, layers.Conv2D(4, 3, padding="same")(x)])),
        "not silent",
    ),
}


@pytest.mark.parametrize("activation", ["linear", "sigmoid", "softplus"])
@pytest.mark.parametrize("reader", sorted(FOLDING))
def test_constants_go_into_the_bias_of_what_reads_them(reader, activation):
    model = one_constant(FOLDING[reader], activation=activation)
    small = tfprune.shrink(model)
    assert small.get_layer("constant").filters == 3
    x = data(model)
    assert distance(model, small, x) < 1e-4


@pytest.mark.parametrize("reader", sorted(NOT_FOLDING))
def test_constants_that_no_bias_can_replace_stay(reader):
    make, reason = NOT_FOLDING[reader]
    model = one_constant(make)
    plan = tfprune.plan_shrink(model)
    (group,) = [g for g in plan.groups if "constant" in g.layers]
    assert group.removed == () and any(reason in why for why in group.why)
    assert distance(model, plan.apply(), data(model)) < 1e-4


def test_a_negative_constant_is_silent_behind_a_relu():
    model = one_constant(NOT_FOLDING["same"][0], activation="relu")
    layer = model.get_layer("constant")
    layer.bias.assign([0.1, -0.7, 0.1, 0.1])
    assert tfprune.shrink(model).get_layer("constant").filters == 3


def test_constants_that_differ_from_call_to_call_stay():
    one, two = keras.Input((3,)), keras.Input((3,))
    a, b = layers.Dense(4, name="a"), layers.Dense(4, name="b")
    reader = layers.Dense(2)
    model = randomize(keras.Model([one, two], [reader(a(one)), reader(b(two))]))
    for layer, constant in ((a, 0.3), (b, 0.5)):
        kernel, bias = layer.get_weights()
        kernel[:, 1:3], bias[1], bias[2] = 0, constant, 0.4
        layer.set_weights([kernel, bias])
    plan = tfprune.plan_shrink(model)
    (group,) = [g for g in plan.groups if "a" in g.layers]
    assert group.removed == (2,) and any("at each call" in why for why in group.why)
    assert distance(model, plan.apply(), data(model)) < 1e-4


def test_channels_that_nobody_reads_go():
    model = made("chain")
    (group, units), *_ = choice(tfprune.dependency_groups(model), 0.5)
    zeroed(model, group, units, reads=True)
    plan = tfprune.plan_shrink(model)
    assert plan.groups[0].removed == tuple(units.tolist())
    assert distance(model, plan.apply(), data(model)) < 1e-4


def test_the_last_channel_stays():
    model = keras.Sequential([keras.Input((3,)), layers.Dense(4), layers.Dense(2)])
    model.set_weights([np.zeros_like(w) for w in model.get_weights()])
    plan = tfprune.plan_shrink(model)
    assert plan.groups[0].removed == (1, 2, 3)
    assert plan.groups[0].why == {"a layer keeps its last channel": 1}


@pytest.mark.parametrize(
    ("silent", "round_to", "left"), [(5, 8, 24), (8, 8, 16), (9, 8, 16), (17, 8, 8), (5, 1, 19)]
)
def test_rounding_keeps_multiples(silent, round_to, left):
    model = randomize(keras.Sequential([keras.Input((3,)), layers.Dense(24), layers.Dense(2)]))
    kernel, bias, *others = model.get_weights()
    kernel[:, :silent], bias[:silent] = 0, 0
    model.set_weights([kernel, bias, *others])
    plan = tfprune.plan_shrink(model, round_to=round_to)
    assert plan.apply().layers[0].units == left
    assert distance(model, plan.apply(), data(model)) < 1e-4


def test_filter_masks_of_a_wrapped_model_are_shrunk():
    inputs = keras.Input((8, 8, 3))
    x = layers.Conv2D(8, 3, use_bias=False, name="a")(inputs)
    x = layers.Conv2D(8, 3, activation="relu", name="b")(layers.ReLU()(x))
    model = randomize(keras.Model(inputs, layers.Dense(2)(layers.GlobalMaxPooling2D()(x))))
    model.get_layer("b").bias.assign(np.full(8, 0.1))
    rules = [tfprune.Rule(layers.Dense, prune=False)]
    pruned = tfprune.prune_low_magnitude(
        model, tfprune.ConstantSparsity(0.5, 0), pattern="filter", rules=rules
    )
    tfprune.UpdatePruningStep(pruned)
    small = tfprune.shrink(pruned)
    assert (small.get_layer("a").filters, small.get_layer("b").filters) == (4, 4)
    assert distance(pruned, small, data(model)) < 1e-4


def test_plans_say_what_goes_and_why_others_stay():
    model = made("unknown_layer")
    groups = tfprune.dependency_groups(model)
    for group, units in choice(groups, 0.5):
        zeroed(model, group, units, reads=False)
    plan = tfprune.plan_shrink(model)
    rows = {group.layers: group for group in plan.groups}
    assert len(rows["free",].removed) == 3 and rows["free",].why == {"they are not silent": 3}
    assert plan.barriers == {"barrier": "UnitNormalization"}
    text = " ".join(str(plan).split())
    assert "UnitNormalization" in text and "│ free │ 6 │ 3 │" in text
    assert f"{plan.before.parameters:,}" in text and f"{plan.after.macs:,}" in text
    assert plan.to_dict()["groups"][0]["removed"] == rows["free",].removed


def test_summary_prints_the_plan(capsys):
    tfprune.plan_shrink(made("chain")).summary()
    assert "Shrinking" in capsys.readouterr().out


def test_plans_give_the_widths_of_each_layer():
    model = made("dense_blocks")
    groups = tfprune.dependency_groups(model)
    for group, units in choice(groups, 0.5):
        zeroed(model, group, units, reads=False)
    plan = tfprune.plan_shrink(model)
    small = plan.apply()
    widths = {path: pair for group in plan.groups for path, pair in group.widths.items()}
    kinds = (layers.Conv2D, layers.Dense)
    makers = [layer for layer in model.layers if isinstance(layer, kinds)]
    assert widths == {
        m.name: (m.kernel.shape[-1], small.get_layer(m.name).kernel.shape[-1]) for m in makers
    }
    assert any(before > after for before, after in widths.values())


def test_latency_of_both_models_is_measured_and_printed(capsys):
    model = randomize(
        keras.Sequential([keras.Input((64,)), layers.Dense(100_000), layers.Dense(2)])
    )
    kernel, bias, *others = model.get_weights()
    kernel[:, 500:], bias[500:] = 0, 0
    model.set_weights([kernel, bias, *others])
    model.compile("sgd", "mse")
    plan = tfprune.plan_shrink(model)
    found = plan.latency(batch_size=32, runs=7)
    # A two-hundredth of the multiplications is left.
    assert found["before"].median > found["after"].median and found["before"].batch_size == 32
    assert model.predict_function is None
    plan.summary(latency=found)
    printed = " ".join(capsys.readouterr().out.split())
    assert "Latency, batch 32" in printed and "times as fast (7 runs)" in printed
    assert f"{1000 * found['before'].median:.2f} ms" in printed
    plan.summary(latency=True)
    assert "Latency, batch 1 " in capsys.readouterr().out
    plan.summary()
    assert "Latency" not in capsys.readouterr().out


def test_masks_of_single_weights_are_refused():
    model = keras.Sequential([keras.Input((3,)), layers.Dense(4, name="hidden"), layers.Dense(2)])
    pruned = tfprune.prune_low_magnitude(model, tfprune.ConstantSparsity(0.5, 0))
    with pytest.raises(ValueError, match=r"'hidden' with the pattern .*\"filter\""):
        tfprune.shrink(pruned)
    with pytest.raises(ValueError, match="round_to"):
        tfprune.shrink(model, round_to=0)


# -- Random graphs ---------------------------------------------------------------------------------


@st.composite
def graphs(draw):
    """A random graph, some of whose weights are zero, filter by filter."""
    keras.backend.clear_session()
    inputs = keras.Input((6, 6, 2))
    tensors = [layers.Conv2D(draw(st.integers(1, 5)), 1)(inputs)]
    for _ in range(draw(st.integers(1, 5))):
        x = tensors[draw(st.integers(0, len(tensors) - 1))]
        tensors.append(_block(draw, x, tensors))
    x = tensors[-1]
    if draw(st.booleans()):
        x = layers.Concatenate()([layers.GlobalMaxPooling2D()(t) for t in tensors[-2:]])
    else:
        x = layers.Flatten()(x)
    model = keras.Model(inputs, layers.Dense(2)(x))
    randomize(model, draw(st.integers(0, 99)))
    random = np.random.default_rng(draw(st.integers(0, 99)))
    share = draw(st.sampled_from([0.3, 0.8]))
    with_bias = draw(st.booleans())
    for group in tfprune.dependency_groups(model):
        silent = np.flatnonzero(random.random(group.size) < share)
        for member in group.members:
            # Biases that stay are constants that have to be folded, or kept.
            if not member.reads and (with_bias or member.weight not in ("bias", "beta")):
                only = type(group)(group.layers, group.size, group.makers, [member], {})
                if "kernel" in member.weight or random.random() < 0.7:
                    zeroed(model, only, silent, reads=False)
    return model


KINDS = "conv conv depthwise grouped separable norm act pool add cat se"


def _block(draw, x, tensors):
    kind = draw(st.sampled_from(KINDS.split()))
    channels = x.shape[-1]
    padding = draw(st.sampled_from(["same", "valid"])) if x.shape[1] > 3 else "same"
    bias = draw(st.booleans())
    if kind == "conv":
        kwargs = {"padding": padding, "use_bias": bias}
        activation = draw(st.sampled_from(["relu", "sigmoid", None]))
        return layers.Conv2D(draw(st.integers(1, 6)), 3, activation=activation, **kwargs)(x)
    if kind == "depthwise":
        return layers.DepthwiseConv2D(3, padding=padding, depth_multiplier=draw(st.integers(1, 2)))(
            x
        )
    if kind == "grouped":
        groups = draw(st.sampled_from([n for n in range(1, channels + 1) if channels % n == 0]))
        return layers.Conv2D(groups * draw(st.integers(1, 2)), 3, padding=padding, groups=groups)(x)
    if kind == "separable":
        return layers.SeparableConv2D(draw(st.integers(1, 4)), 3, padding=padding)(x)
    if kind == "norm":
        norms = [layers.BatchNormalization, layers.LayerNormalization]
        return draw(st.sampled_from([norms[0], norms[0], norms[1]]))()(x)
    if kind == "act":
        return layers.Activation(draw(st.sampled_from(["relu", "softplus", "tanh", "softmax"])))(x)
    if kind == "pool":
        return layers.AveragePooling2D(3, strides=1, padding=padding)(x)
    if kind == "se":
        gate = layers.Dense(channels, activation="sigmoid")(layers.GlobalAveragePooling2D()(x))
        return layers.Multiply()([x, layers.Reshape((1, 1, channels))(gate)])
    alike = [t for t in tensors if t.shape[1:3] == x.shape[1:3]]
    other = alike[draw(st.integers(0, len(alike) - 1))]
    if kind == "cat":
        return layers.Concatenate()([x, other])
    return layers.Add()([x, layers.Conv2D(channels, 1)(other)])


@settings(max_examples=20)
@given(graphs(), st.sampled_from([1, 2]))
def test_random_graphs_compute_the_same(model, round_to):
    small = tfprune.shrink(model, round_to=round_to)
    x = data(model, batch=3)
    ours, truth = outputs(small, x)[0], outputs(model, x)[0]
    np.testing.assert_allclose(ours, truth, rtol=1e-4, atol=1e-4 * max(np.abs(truth).max(), 1e-3))
