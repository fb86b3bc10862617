"""Models, layers and arguments that `prune_low_magnitude` refuses, and what it leaves as it was."""

import keras
import numpy as np
import pytest
from keras import layers, ops
from pruned_models import (
    MORE,
    Subclassed,
    at_once,
    data_for,
    equal,
    functional,
    is_plain,
    register,
    schedule_to,
    subclassed,
    values,
    weights_of,
)
from structural_support import outputs

import tfprune
from tfprune import Rule

pytestmark = pytest.mark.usefixtures("fresh")


def legacy(kind):
    import tf_keras

    layer = tf_keras.layers.Dense(2, input_shape=(6,))
    return {
        "model": tf_keras.Sequential([layer]),
        "layer": layer,
        "list": [layer],
    }[kind]


@pytest.mark.parametrize("kind", ["model", "layer", "list"])
def test_tf_keras(kind):
    message = r"Expected a Keras 3 layer or model. Received: a tf_keras object, .*`import keras`"
    with pytest.raises(TypeError, match=message):
        tfprune.prune_low_magnitude(legacy(kind))
    if kind == "list":
        return
    for function in (
        tfprune.strip_pruning,
        tfprune.sparsity_report,
        lambda thing: tfprune.load_plain_weights(thing, "plain.keras"),
        lambda thing: tfprune.load_plain_weights(tfprune.prune_low_magnitude(functional()), thing),
    ):
        with pytest.raises(TypeError, match=message):
            function(legacy(kind))


class HoldsAttention(layers.Layer):
    """More layers come into being inside the attention when it is built."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.attention = layers.MultiHeadAttention(2, 2, name="attention")
        self.dense = layers.Dense(4, name="dense")


@register
class Grows(layers.Layer):
    """Makes a layer, without a name, when it is built."""

    def build(self, input_shape):
        self.made = layers.Dense(4)
        self.made.build(input_shape)
        super().build(input_shape)

    def call(self, inputs):
        return self.made(inputs)


@register
class HoldsGrowing(layers.Layer):
    """Building it puts a layer between those that it has."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.growing = [Grows(name="growing")]
        self.dense = layers.Dense(4)
        self.last = {"x": layers.Dense(4)}

    def build(self, input_shape):
        self.growing[0].build(input_shape)
        self.dense.build(input_shape)
        self.last["x"].build(input_shape)
        super().build(input_shape)

    def call(self, inputs):
        return self.last["x"](self.dense(self.growing[0](inputs)))


@pytest.mark.parametrize("built", [True, False])
def test_rules_hold_where_building_makes_further_layers(built, tmp_path):
    layer = HoldsGrowing(name="h")
    if built:
        layer(np.ones((1, 4), "float32"))
    rules = [Rule(f"h/{layer.dense.name}", prune=False), Rule("h/growing", MORE)]
    wrapped = tfprune.prune_low_magnitude(layer, at_once(), rules=rules)
    model = keras.Sequential([keras.Input((4,)), wrapped])
    model.save(tmp_path / "grown.keras")
    for item in (model, keras.saving.load_model(tmp_path / "grown.keras")):
        tfprune.UpdatePruningStep(item)
        inner = item.layers[0].inner
        parts = (inner.growing[0].made, inner.dense, inner.last["x"])
        assert [int((part.kernel.numpy() == 0).sum()) for part in parts] == [12, 0, 8]


def test_layers_that_have_built_their_own_are_wrapped():
    layer = Grows(name="g")
    layer(np.ones((1, 4), "float32"))
    single = tfprune.prune_low_magnitude(layer, at_once())
    (listed,) = tfprune.prune_low_magnitude([layer], at_once())
    for wrapped in (single, listed):
        assert [w.path for w in wrapped.pruned_weights] == [f"{wrapped.inner.made.name}/kernel"]


def test_a_list_leaves_out_layers_without_weights():
    class Plain(layers.Layer):
        def call(self, inputs):
            return inputs

    relu, plain = layers.ReLU(), Plain()
    assert tfprune.prune_low_magnitude([relu, plain]) == [relu, plain]


def two_wrappers(layer):
    for _ in range(2):
        tfprune.PruneLowMagnitude(layer, at_once())(np.ones((1, 3), "float32"))


REFUSED = {
    "layer that builds layers": (
        lambda: tfprune.prune_low_magnitude(Grows(name="g")),
        ValueError,
        r"Received: 'g', a Grows that makes its weights in build\(\), which has not run. Call the "
        r"layer on data once.*register_prunable\(Grows",
    ),
    "layer that builds layers, in a list": (
        lambda: tfprune.prune_low_magnitude([layers.Dense(2), Grows(name="g")]),
        ValueError,
        r"Received: 'g', a Grows that makes its weights in build\(\)",
    ),
    "tensor": (
        lambda: tfprune.prune_low_magnitude(ops.ones((2, 2))),
        TypeError,
        r"Expected a Keras 3 layer or model. Received: layer=EagerTensor. Pass a keras.Model",
    ),
    "none": (lambda: tfprune.prune_low_magnitude(None), TypeError, "Received: layer=NoneType"),
    "class": (lambda: tfprune.prune_low_magnitude(layers.Dense), TypeError, "Received: layer=type"),
    "strip a tensor": (
        lambda: tfprune.strip_pruning(ops.ones(2)),
        TypeError,
        "Received: model=EagerTensor",
    ),
    "strip unbuilt": (
        lambda: tfprune.strip_pruning(Subclassed(name="early")),
        ValueError,
        "Expected a built model. Received: 'early'",
    ),
    "pattern": (
        lambda: tfprune.prune_low_magnitude(functional(), pattern="stripes"),
        ValueError,
        r"Expected `pattern` to be one of 'unstructured', .*Received: pattern='stripes'",
    ),
    "scope": (
        lambda: tfprune.prune_low_magnitude(functional(), scope="world"),
        ValueError,
        r"Expected `scope` to be one of 'local', 'global', .*'lamp'.* Received: scope='world'",
    ),
    "criterion": (
        lambda: tfprune.prune_low_magnitude(functional(), criterion="beauty"),
        ValueError,
        r"Expected `criterion` to be one of 'magnitude'.*Received: criterion='beauty'",
    ),
    "pattern of a wrong kind": (
        lambda: tfprune.prune_low_magnitude(functional(), pattern=3),
        TypeError,
        r"Expected `pattern` to be a tfprune.patterns.Pattern.*Received: pattern=3",
    ),
    "schedule of a wrong kind": (
        lambda: tfprune.prune_low_magnitude(functional(), 0.5),
        TypeError,
        r"Expected.*Received: .*0\.5",
    ),
    "block and pattern": (
        lambda: tfprune.prune_low_magnitude(functional(), at_once(), (2, 2), pattern="filter"),
        ValueError,
        "Expected one pattern. Received: block_size and pattern together",
    ),
    "block and N:M": (
        lambda: tfprune.prune_low_magnitude(
            functional(), at_once(), block_size=(2, 2), sparsity_m_by_n=(2, 4)
        ),
        ValueError,
        "Received: block_size and sparsity_m_by_n together",
    ),
    "N:M and pattern": (
        lambda: tfprune.prune_low_magnitude(
            functional(), at_once(), sparsity_m_by_n=(2, 4), pattern="filter"
        ),
        ValueError,
        "Received: sparsity_m_by_n and pattern together",
    ),
    "large block": (
        lambda: tfprune.prune_low_magnitude(functional(), at_once(), (7, 1)),
        ValueError,
        r"Expected a block no larger than a/kernel, 6 inputs by 8 outputs. "
        r"Received: block_size=\(7, 1\)",
    ),
    "large block in a subclassed model": (
        lambda: tfprune.prune_low_magnitude(subclassed(), at_once(), (1, 4)),
        ValueError,
        r"Expected a block no larger than .*out/kernel, 8 inputs by 2 outputs",
    ),
    "pooling": (
        lambda: tfprune.prune_low_magnitude(functional(), at_once(), (2, 2), "MIN"),
        ValueError,
        "Expected `pooling` to be one of 'AVG', 'MAX', 'SUM'. Received: pooling='MIN'",
    ),
    "N:M with another target": (
        lambda: tfprune.prune_low_magnitude(functional(), at_once(0.9), sparsity_m_by_n=(2, 4)),
        ValueError,
        r"Expected the schedule of a/kernel to end at 2/4 = 0.5.*a target sparsity of 0.9",
    ),
    "N:M with another target, one layer": (
        lambda: tfprune.prune_low_magnitude(
            layers.Dense(4, name="d"), at_once(0.9), sparsity_m_by_n=(2, 4)
        ),
        ValueError,
        r"Expected the schedule of d/kernel to end at 2/4 = 0.5.*a target sparsity of 0.9",
    ),
    "cap below the target": (
        lambda: tfprune.prune_low_magnitude(
            functional(), at_once(0.9), scope=tfprune.Global(max_sparsity=0.8)
        ),
        ValueError,
        r"Expected the schedule of a/kernel to stay at or below 0.8, the cap of Global.*"
        r"Received: a target sparsity of 0.9",
    ),
    "cap below the target, subclassed": (
        lambda: tfprune.prune_low_magnitude(
            subclassed(), at_once(0.9), scope=tfprune.Global(max_sparsity=0.8)
        ),
        ValueError,
        "to stay at or below 0.8, .*Received: a target sparsity of 0.9",
    ),
    "cap below the target of a rule, unbuilt layer": (
        lambda: tfprune.prune_low_magnitude(
            layers.Dense(4, name="d"),
            at_once(0.5),
            scope=tfprune.Global(max_sparsity=0.8),
            rules=[Rule("d", at_once(0.9))],
        ),
        ValueError,
        "schedule of d/kernel to stay at or below 0.8, .*Received: a target sparsity of 0.9",
    ),
    "rules inside a layer that is not built": (
        lambda: tfprune.prune_low_magnitude(
            HoldsAttention(name="h"), rules=[Rule("h/dense", prune=False)]
        ),
        ValueError,
        "Expected a built layer where rules vary .* Received: 'h', in which 'attention' has no",
    ),
    "N:M turned round": (
        lambda: tfprune.prune_low_magnitude(functional(), at_once(), sparsity_m_by_n=(4, 2)),
        ValueError,
        "Expected `zeros` to be less than `group`. Received: zeros=4, group=2",
    ),
    "N:M no pair": (
        lambda: tfprune.prune_low_magnitude(functional(), at_once(), sparsity_m_by_n=2),
        TypeError,
        "Expected `sparsity_m_by_n` to be a pair. Received: sparsity_m_by_n=2",
    ),
    "wrapped model": (
        lambda: tfprune.prune_low_magnitude(tfprune.prune_low_magnitude(functional())),
        ValueError,
        "Expected a layer without pruning wrappers. Received: .*wrapped already.*strip_pruning",
    ),
    "wrapped layer": (
        lambda: tfprune.prune_low_magnitude(tfprune.prune_low_magnitude(layers.Dense(2, name="d"))),
        ValueError,
        "Received: 'd', which is wrapped already",
    ),
    "wrapped subclassed": (
        lambda: tfprune.prune_low_magnitude(tfprune.prune_low_magnitude(subclassed())),
        ValueError,
        "Received: 'subclassed.*', which is wrapped already",
    ),
    "wrapped in a list": (
        lambda: tfprune.prune_low_magnitude(
            [tfprune.prune_low_magnitude(layers.Dense(2, name="d"))]
        ),
        ValueError,
        "Received: 'd', which is wrapped already",
    ),
    "nothing in the model": (
        lambda: tfprune.prune_low_magnitude(
            keras.Sequential([keras.Input((6,)), layers.ReLU()], name="empty")
        ),
        ValueError,
        "Expected 'empty' to have a prunable weight. Received: a Sequential",
    ),
    "nothing left by the rules": (
        lambda: tfprune.prune_low_magnitude(functional(), rules=[Rule("*", prune=False)]),
        ValueError,
        "at least one prunable weight in 'functional.*'. Received: rules or a policy that exempt",
    ),
    "nothing left of the layer": (
        lambda: tfprune.prune_low_magnitude(
            layers.Dense(2, name="d"), rules=[Rule("d", prune=False)]
        ),
        ValueError,
        "at least one prunable weight in 'd'. Received: rules or a policy that exempt",
    ),
    "cell in a recurrent layer": (
        lambda: layers.RNN(tfprune.PruneLowMagnitude(layers.LSTMCell(2, name="c"))),
        ValueError,
        r"Expected a pruning wrapper around RNN. Received: 'c', a LSTMCell that is wrapped .*"
        r"prune_low_magnitude\(RNN\(LSTMCell",
    ),
    "cells in a recurrent layer": (
        lambda: layers.RNN([tfprune.PruneLowMagnitude(layers.GRUCell(2, name="c"))]),
        ValueError,
        "Expected a pruning wrapper around RNN. Received: 'c', a GRUCell",
    ),
    "inside of Bidirectional": (
        lambda: layers.Bidirectional(tfprune.PruneLowMagnitude(layers.LSTM(2, name="l"))),
        ValueError,
        r"Expected a pruning wrapper around Bidirectional. Received: 'l', a LSTM.*"
        r"prune_low_magnitude\(Bidirectional\(LSTM",
    ),
    "two wrappers around one layer": (
        lambda: two_wrappers(layers.Dense(2, name="d")),
        ValueError,
        "Expected one pruning wrapper around kernel. Received: a layer whose weight has the mask",
    ),
    "nothing in the layer": (
        lambda: tfprune.prune_low_magnitude(layers.ReLU(name="r")),
        ValueError,
        "Expected 'r' to have a prunable weight. Received: a ReLU",
    ),
    "nothing in the subclassed model": (
        lambda: tfprune.prune_low_magnitude(subclassed(), rules=[Rule("*", prune=False)]),
        ValueError,
        "at least one prunable weight in 'subclassed.*'. Received: rules or a policy that exempt",
    ),
    "rule without a match": (
        lambda: tfprune.prune_low_magnitude(functional(), rules=[Rule("e*")]),
        ValueError,
        r"Expected each rule to match a layer. Received: Rule\(match='e\*'\).*layers are: a, b",
    ),
    "rule of a wrong kind": (
        lambda: tfprune.prune_low_magnitude(functional(), rules=["a"]),
        TypeError,
        r"Expected `rules` to be a list of tfprune.Rule. Received: rules=\['a'\]",
    ),
    "match of a wrong kind": (
        lambda: Rule(int),
        TypeError,
        "Expected `match` to be a name pattern or a layer class. Received: match=<class 'int'>",
    ),
    "pattern in a rule": (
        lambda: Rule("a", pattern="stripes"),
        ValueError,
        "Received: pattern='stripes'",
    ),
    "policy": (
        lambda: tfprune.prune_low_magnitude(functional(), pruning_policy="fast"),
        TypeError,
        "Expected `pruning_policy` to be a tfprune.PruningPolicy. Received: pruning_policy='fast'",
    ),
    "slice axes": (
        lambda: tfprune.prune_low_magnitude(functional(), pattern=tfprune.Slice((2,))),
        ValueError,
        r"Expected axes of a/kernel, which has 2. Received: axes=\(2,\)",
    ),
    "callback on no model": (
        lambda: tfprune.UpdatePruningStep("x"),
        TypeError,
        "Expected a Keras 3 layer or model. Received: model=str",
    ),
    "callback on a plain model": (
        lambda: tfprune.UpdatePruningStep(functional()),
        ValueError,
        "Expected a model with wrapped layers. Received: .*prune_low_magnitude",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused(name):
    call, error, message = REFUSED[name]
    with pytest.raises(error, match=message):
        call()


@pytest.mark.parametrize(
    "arguments",
    [
        {"block_size": (7, 1)},
        {"sparsity_m_by_n": (1, 4)},
        {"rules": [Rule("nobody")]},
        {"pattern": tfprune.Slice((5,))},
    ],
    ids=lambda a: next(iter(a)),
)
@pytest.mark.parametrize("make", [functional, subclassed], ids=lambda m: m.__name__)
def test_a_refused_model_is_left_as_it_was(make, arguments):
    plain = make()
    before, config, x = values(plain), plain.get_config(), data_for(make)[0]
    expected = outputs(plain, x)
    with pytest.raises(ValueError, match=r"Expected .* Received: "):
        tfprune.prune_low_magnitude(plain, at_once(), **arguments)
    equal(values(plain), before)
    assert plain.get_config() == config and is_plain(plain)
    equal(outputs(plain, x), expected)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("make", [functional, subclassed], ids=lambda m: m.__name__)
def test_weights_that_are_not_finite(make, bad):
    pruned = tfprune.prune_low_magnitude(make(), schedule_to(end=4))
    pruning = tfprune.UpdatePruningStep(pruned)
    pruning.step()
    weight = weights_of(pruned)[-1]
    value = weight.variable.numpy()
    value[np.unravel_index(np.flatnonzero(weight.mask.numpy())[0], value.shape)] = bad
    weight.variable.assign(value)
    before = values(pruned)
    # The last weight is the bad one: the masks of the others are not touched either.
    with pytest.raises(ValueError, match=rf"Expected .*{weight.layer.name}/kernel.*Received: "):
        pruning.step()
    equal(values(pruned), before)
