"""Filters of a whole model: coupled layers share one mask, and what is pruned can be removed."""

import keras
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from keras import layers
from structural_graphs import BUILDERS
from structural_support import data, distance, examples, layer_at, randomize, residual

import tfprune
from tfprune import masks
from tfprune._channels.coupling import Couplings
from tfprune._wrapping.wrapper import mask_owners

HALF = tfprune.ConstantSparsity(0.5, 0)


def values(layer, name):
    (weight,) = [w for w in layer.weights if w.name == name]
    return keras.ops.convert_to_numpy(weight)


def pruned_channels(model, layer, name="kernel", axis=-1):
    """Which channels of a layer's weight are zero, read off a stripped copy."""
    kernel = np.moveaxis(values(layer_at(tfprune.strip_pruning(model), layer), name), axis, 0)
    return np.flatnonzero(~kernel.reshape(len(kernel), -1).any(axis=1)).tolist()


def applied(model, schedule=HALF, **parts):
    pruned = tfprune.prune_low_magnitude(
        model, schedule, pattern=parts.pop("pattern", "filter"), **parts
    )
    tfprune.UpdatePruningStep(pruned)
    return pruned


# -- Groups of channels ----------------------------------------------------------------------------


@pytest.mark.parametrize("over_group", ["AVG", "MAX", "SUM"])
@pytest.mark.parametrize("pooling", ["AVG", "MAX", "SUM"])
def test_importance_is_pooled_over_the_group(pooling, over_group):
    model = randomize(residual())
    pattern = tfprune.Filter(pooling, over_group=over_group)
    pruned = applied(model, pattern=pattern)
    how = {"AVG": np.mean, "MAX": np.max, "SUM": np.sum}
    of_filter = [
        how[pooling](np.abs(values(model.get_layer(name), "kernel")).reshape(-1, 8), axis=0)
        for name in ("stem", "back")
    ]
    scores = how[over_group](of_filter, axis=0)
    expected = np.sort(np.argsort(scores)[:4]).tolist()
    assert pruned_channels(pruned, "stem") == pruned_channels(pruned, "back") == expected
    assert len(pruned_channels(pruned, "wide")) == 8
    assert pruned_channels(pruned, "out") == []


def test_all_that_belongs_to_a_channel_is_masked():
    pruned = applied(randomize(residual()))
    plain = tfprune.strip_pruning(pruned)
    gone = pruned_channels(pruned, "stem")
    for layer, names in {
        "stem": ["kernel", "bias"],
        "norm": ["gamma", "beta", "moving_mean"],
        "back": ["kernel", "bias"],
        "norm_2": ["gamma", "beta", "moving_mean"],
    }.items():
        for name in names:
            value = values(plain.get_layer(layer), name)
            assert np.flatnonzero(~value.reshape(-1, 8).any(axis=0)).tolist() == gone, name
    assert values(plain.get_layer("norm"), "moving_variance").all()
    assert values(plain.get_layer("out"), "kernel").all()


# A test below covers layers that cannot lose filters.
some_stay = pytest.mark.filterwarnings("ignore:Expected filters that can be removed:UserWarning")


@some_stay
@pytest.mark.parametrize("name", BUILDERS)
def test_pruned_channels_are_removed_and_nothing_else_changes(name):
    model = randomize(BUILDERS[name]())
    pruned = applied(model)
    groups = Couplings(pruned).groups
    assert groups
    for group in groups:
        size, count = group.coupling.size, int(group.pruned.sum())
        assert count == min(size - max(1, round(size / 2)), group.coupling.most_zeros)
    plan = tfprune.plan_shrink(pruned)
    small = plan.apply()
    assert distance(tfprune.strip_pruning(pruned), small, data(model)) <= 1e-4
    # Constants that no bias can take over stay; all others go.
    stay = sum(n for group in plan.groups for why, n in group.why.items() if "constant" in why)
    removed = sum(len(group.removed) for group in plan.groups)
    assert removed >= sum(int(group.pruned.sum()) for group in groups) - stay > 0
    assert plan.after.parameters < plan.before.parameters


@pytest.mark.parametrize("scope", ["local", "global", "uniform", "erdos_renyi_kernel", "lamp"])
def test_scopes_share_out_channels(scope):
    pruned = applied(randomize(residual()), scope=scope)
    stem, wide = (len(pruned_channels(pruned, name)) for name in ("stem", "wide"))
    assert stem + wide == 12
    assert pruned_channels(pruned, "stem") == pruned_channels(pruned, "back")
    if scope in ("local", "uniform"):
        assert (stem, wide) == (4, 8)


def test_global_cap_holds_for_each_group():
    pruned = applied(randomize(residual()), scope=tfprune.scopes.Global(max_sparsity=0.625))
    stem, wide = (len(pruned_channels(pruned, name)) for name in ("stem", "wide"))
    assert stem + wide == 12 and stem <= 5 and wide <= 10


@pytest.mark.parametrize(
    "criterion", ["magnitude", "fpgm", "l2_filter", "random", "batch_norm_scale", "taylor", "apoz"]
)
def test_criteria(criterion):
    model = randomize(residual())
    model.compile("sgd", "mse")
    rules = [tfprune.Rule("wide", prune=False)] if criterion == "batch_norm_scale" else None
    pruned = tfprune.pruners.one_shot(
        model, 0.5, pattern="filter", criterion=criterion, data=examples(), rules=rules, verbose=0
    )
    gone = pruned_channels(pruned, "stem")
    assert len(gone) == 4 and gone == pruned_channels(pruned, "back")
    if criterion == "batch_norm_scale":
        scales = [np.abs(values(model.get_layer(n), "gamma")) for n in ("norm", "norm_2")]
        assert gone == np.sort(np.argsort(np.mean(scales, axis=0))[:4]).tolist()


def test_layers_that_read_keep_their_numbers():
    inputs = keras.Input((4,))
    x = layers.Dense(6, name="one")(inputs)
    x = layers.Dense(8, name="two")(x)
    pruned = applied(randomize(keras.Model(inputs, layers.Dense(2)(x))))
    kernel = values(tfprune.strip_pruning(pruned).get_layer("two"), "kernel")
    stay = kernel.any(axis=0)
    assert stay.sum() == 4 and kernel[:, stay].all()


# -- Training --------------------------------------------------------------------------------------


@pytest.mark.parametrize("bias, scale", [(True, True), (False, False)])
def test_channels_stay_silent_in_training(bias, scale):
    schedule = tfprune.PolynomialDecay(0.0, 0.5, begin_step=0, end_step=6, frequency=2)
    pruned = tfprune.prune_low_magnitude(
        randomize(residual(bias, scale)), schedule, pattern="filter"
    )
    pruned.compile(keras.optimizers.Adam(0.01), "mse")
    x, y = examples()
    callback = tfprune.UpdatePruningStep()
    pruned.fit(x, y, batch_size=4, epochs=2, verbose=0, callbacks=[callback])
    gone = pruned_channels(pruned, "stem")
    assert len(gone) == 4 and gone == pruned_channels(pruned, "back")
    small = tfprune.shrink(pruned)
    assert small.get_layer("stem").filters == small.get_layer("back").filters == 4
    assert small.get_layer("wide").filters == 8
    assert distance(pruned, small, x) <= 1e-4


def test_training_resumes_from_a_file(tmp_path):
    schedule = tfprune.PolynomialDecay(0.0, 0.5, begin_step=0, end_step=12, frequency=1)
    x, y = examples()
    keras.utils.set_random_seed(1)
    pruned = tfprune.prune_low_magnitude(residual(), schedule, pattern="filter")
    pruned.compile(keras.optimizers.Adam(0.01), "mse")
    fit = {"batch_size": 4, "verbose": 0, "shuffle": False}
    with pytest.warns(UserWarning, match="4 more optimizer steps"):
        pruned.fit(x, y, callbacks=[tfprune.UpdatePruningStep()], **fit)
    pruned.save(tmp_path / "half.keras")
    loaded = keras.models.load_model(tmp_path / "half.keras")
    for model in (pruned, loaded):
        model.fit(x, y, callbacks=[tfprune.UpdatePruningStep()], **fit)
    for one, other in zip(pruned.get_weights(), loaded.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)
    assert len(pruned_channels(loaded, "stem")) == 4


# -- Methods that do not combine -------------------------------------------------------------------


def test_layers_by_themselves_if_asked():
    model = randomize(residual(), seed=1)
    pruned = applied(model, pattern=tfprune.Filter(coupled=False))
    assert pruned_channels(pruned, "stem") != pruned_channels(pruned, "back")
    assert len(pruned_channels(pruned, "out")) == 1
    assert values(tfprune.strip_pruning(pruned).get_layer("stem"), "bias").all()


def test_a_rule_that_exempts_one_layer_keeps_the_group():
    pruned = applied(randomize(residual()), rules=[tfprune.Rule("back", prune=False)])
    assert pruned_channels(pruned, "stem") == pruned_channels(pruned, "back") == []
    assert len(pruned_channels(pruned, "wide")) == 8


def test_different_methods_in_one_group():
    rules = [tfprune.Rule("back", schedule=tfprune.ConstantSparsity(0.25, 0))]
    with pytest.raises(ValueError, match=r"different ones for stem/kernel and back/kernel.*Rule"):
        tfprune.prune_low_magnitude(residual(), HALF, pattern="filter", rules=rules)


def test_scores_of_different_criteria_do_not_mix():
    rules = [tfprune.Rule("back", criterion="l2_filter")]
    with pytest.raises(ValueError, match=r"criterion.*different ones for stem/kernel and back"):
        tfprune.prune_low_magnitude(residual(), HALF, pattern="filter", rules=rules)


def test_random_tickets_have_whole_channels():
    def train(model, callback):
        model.compile("sgd", "mse")
        model.fit(*examples(), batch_size=16, verbose=0, callbacks=[callback])

    lottery = tfprune.LotteryTicket(residual(), 0.5, 1, pattern="filter")
    found, drawn = (
        lottery.run(train).ticket(1),
        lottery.run(train, control="random_masks").ticket(1),
    )
    gone = pruned_channels(drawn, "stem")
    assert len(gone) == 4 and gone == pruned_channels(drawn, "back")
    for name in ("gamma", "beta", "moving_mean"):
        assert set(gone) <= set(pruned_channels(drawn, "norm", name))
    wide = [pruned_channels(model, "wide") for model in (found, drawn)]
    assert len(wide[0]) == len(wide[1]) == 8 and wide[0] != wide[1]
    small = tfprune.shrink(drawn)
    assert [small.get_layer(name).filters for name in ("stem", "wide")] == [4, 8]


def test_nothing_to_remove():
    model = keras.Sequential([keras.Input((4,)), layers.Dense(3, name="only")])
    with pytest.raises(ValueError, match=r"only: they are the model's output.*coupled=False"):
        tfprune.prune_low_magnitude(model, HALF, pattern="filter")


def test_layers_that_are_not_followed_are_named():
    inputs = keras.Input((5, 4))
    recurrent = layers.RNN(layers.LSTMCell(6), name="recurrent")
    model = keras.Model(inputs, layers.Dense(2, name="out")(recurrent(inputs)))
    with pytest.raises(ValueError, match=r"output; recurrent.*: their channels are not followed"):
        tfprune.prune_low_magnitude(model, HALF, pattern="filter")


def test_dynamic_training_takes_each_layer_by_itself():
    pruned = tfprune.prune_low_magnitude(
        residual(),
        tfprune.ConstantSparsity.one_shot(0.5),
        pattern="filter",
        scope="erdos_renyi_kernel",
    )
    callback = tfprune.SET(0.5, distribution="erdos_renyi_kernel", total_steps=4)
    with pytest.raises(ValueError, match=r"coupled=False"):
        callback.set_model(pruned)


@pytest.mark.parametrize(
    "error, match, arguments",
    [
        (ValueError, "round_to", {"round_to": 0}),
        (TypeError, "round_to", {"round_to": 2.5}),
        (ValueError, "over_group", {"over_group": "median"}),
        (TypeError, "coupled", {"coupled": "no"}),
    ],
)
def test_bad_arguments(error, match, arguments):
    with pytest.raises(error, match=match):
        tfprune.Filter(**arguments)


# -- Rounding --------------------------------------------------------------------------------------


@pytest.mark.parametrize("sparsity, stem, wide", [(0.3, 8, 12), (0.4, 4, 12), (0.9, 4, 4)])
@pytest.mark.parametrize("scope", ["local", "uniform"])
def test_multiples_stay(scope, sparsity, stem, wide):
    pattern = tfprune.Filter(round_to=4)
    pruned = applied(
        randomize(residual()), tfprune.ConstantSparsity(sparsity, 0), pattern=pattern, scope=scope
    )
    left = [8 - len(pruned_channels(pruned, "stem")), 16 - len(pruned_channels(pruned, "wide"))]
    if scope == "local":
        assert left == [stem, wide]
    assert all(n % 4 == 0 for n in left)
    small = tfprune.shrink(pruned)
    assert [small.get_layer(name).filters for name in ("stem", "wide")] == left


def test_multiples_stay_under_one_threshold():
    pattern = tfprune.Filter(round_to=4)
    pruned = applied(randomize(residual()), pattern=pattern, scope="global")
    left = [8 - len(pruned_channels(pruned, "stem")), 16 - len(pruned_channels(pruned, "wide"))]
    assert sum(left) == 12 and all(n % 4 == 0 for n in left)


def test_groups_with_too_few_channels_are_named():
    with pytest.warns(UserWarning, match=r"'stem' \(8\), which are not pruned"):
        tfprune.prune_low_magnitude(residual(), HALF, pattern=tfprune.Filter(round_to=8))


def test_layers_that_cannot_lose_filters_are_named():
    graph = keras.Sequential(
        [
            keras.Input((16, 16, 3)),
            keras.layers.Conv2D(6, 3, name="before"),
            keras.layers.UnitNormalization(name="barrier"),
            keras.layers.Conv2D(6, 3, name="free"),
            keras.layers.Conv2D(4, 3, name="spared"),
            keras.layers.Conv2D(4, 3, name="last"),
        ]
    )
    rules = [tfprune.Rule("spared", prune=False)]
    said = r"all of theirs, so the.*requested: before: 'barrier', a UnitNormalization, has no rule"
    with pytest.warns(UserWarning, match=said) as caught:
        pruned = tfprune.prune_low_magnitude(graph, HALF, pattern="filter", rules=rules)
    (one,) = [one for one in caught if "than requested" in str(one.message)]
    line = str(one.message)
    assert one.filename == __file__
    # Those of the last layer are the model's output, and one was spared: both as anyone expects.
    assert "last:" not in line and "spared" not in line.split("Exempt them")[0]
    names = [w.layer.name for owner in mask_owners(pruned) for w in owner.pruned_weights]
    assert "free" in names and "before" not in names


def test_rounding_is_saved():
    pattern = tfprune.Filter("MAX", coupled=True, over_group="SUM", round_to=4)
    pruned = tfprune.prune_low_magnitude(residual(), HALF, pattern=pattern)
    again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(pruned))
    patterns = {
        w.method.pattern for layer in again.layers for w in getattr(layer, "pruned_weights", [])
    }
    assert patterns == {pattern}


class Units:
    """What rounding asks of a request."""

    def __init__(self, units, now, step):
        self.units, self.zeros_now, self.most_zeros = units, now, units - 1
        self.pattern = tfprune.Filter(round_to=step)


@given(
    st.lists(st.tuples(st.integers(1, 60), st.floats(0, 1)), min_size=1, max_size=6),
    st.sampled_from([1, 2, 4, 8]),
    st.booleans(),
)
def test_rounding(asked, step, together):
    requests = [Units(units, 0, step) for units, _ in asked]
    zeros = [int((units - 1) * share) for units, share in asked]
    result = masks.rounded(requests, zeros, together)
    for request, before, after in zip(requests, zeros, result, strict=True):
        kept = request.units - after
        assert kept == request.units or (kept % step == 0 and kept >= step)
        if not together and request.units >= step:
            near = [*range(step, request.units + 1, step), request.units]
            best = min(abs(n - (request.units - before)) for n in near)
            assert abs(kept - (request.units - before)) == best
    if together:
        alone = masks.rounded(requests, zeros)
        assert abs(sum(result) - sum(zeros)) <= abs(sum(alone) - sum(zeros))


# -- Graphs inside other models --------------------------------------------------------------------


class Around(keras.Model):
    """A model whose code calls another one."""

    def __init__(self, inner):
        super().__init__()
        self.inner, self.head = inner, layers.Dense(3, name="head")

    def call(self, inputs):
        return self.head(self.inner(inputs))


class AroundOnce(layers.Layer):
    """A layer whose code calls a model."""

    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def call(self, inputs):
        return self.inner(inputs)


def called_by_code(inner):
    model = Around(inner)
    model(np.zeros((1, 6, 6, 3)))
    return model


def called_in_a_layer(inner):
    inputs = keras.Input((6, 6, 3))
    return keras.Model(inputs, layers.Dense(3, name="head")(AroundOnce(inner)(inputs)))


@pytest.mark.parametrize("outer", [called_by_code, called_in_a_layer])
def test_a_wrapped_model_that_code_calls(outer):
    inner = tfprune.prune_low_magnitude(randomize(residual()), HALF, pattern="filter")
    model = outer(inner)
    model.compile("sgd", "mse")
    model.fit(*examples(), batch_size=16, verbose=0, callbacks=[tfprune.UpdatePruningStep()])
    gone = pruned_channels(inner, "stem")
    assert len(gone) == 4 and gone == pruned_channels(inner, "back")
    assert gone == pruned_channels(inner, "norm", "gamma")
    assert len(pruned_channels(inner, "wide")) == 8


def test_wrapped_layers_that_code_calls_stand_for_themselves():
    inputs = keras.Input((4,))
    x = layers.Dense(6, name="one")(inputs)
    plain = keras.Model(inputs, layers.Dense(2, name="two")(x))
    inner = tfprune.prune_low_magnitude(randomize(plain), HALF, pattern="filter")
    model = Around(inner.get_layer("one"))
    model(np.zeros((1, 4)))
    tfprune.UpdatePruningStep(model)
    assert len(pruned_channels(inner, "one")) == 3


@keras.saving.register_keras_serializable("test_coupling")
class Doubled(keras.Model):
    def call(self, inputs, training=None, mask=None):
        return 2 * super().call(inputs, training=training, mask=mask)


def test_a_graph_with_a_call_of_its_own_is_not_followed():
    plain = residual()
    pruned = applied(randomize(Doubled(plain.inputs, plain.outputs)))
    stripped = tfprune.strip_pruning(pruned)
    zeros = {
        name: int((~values(stripped.get_layer(name), "kernel").any(axis=tuple(range(n)))).sum())
        for name, n in (("stem", 3), ("wide", 3), ("back", 3), ("out", 1))
    }
    assert zeros == {"stem": 4, "wide": 8, "back": 4, "out": 1}
    assert values(stripped.get_layer("stem"), "bias").all()
