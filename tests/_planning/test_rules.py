"""Rules: methods that vary by layer, and layers that are exempt."""

import keras
import numpy as np
import pytest
from keras import layers
from pruned_models import LESS, MORE, at_once, subclassed, weights_of

import tfprune
from tfprune import Rule
from tfprune._wrapping.wrapper import mask_owners

pytestmark = pytest.mark.usefixtures("fresh")


def with_parts():
    """Sizes divisible by 4, so that quarters are exact."""
    x = keras.Input((8, 4))
    encoder = keras.Sequential(
        [keras.Input((8, 4)), layers.Conv1D(4, 3, name="conv_b"), layers.Dense(4, name="dense_b")],
        name="encoder",
    )
    y = encoder(layers.Conv1D(4, 1, name="conv_a")(x))
    y = layers.Bidirectional(layers.LSTM(4, name="lstm"), name="both")(y)
    return keras.Model(x, layers.Dense(4, name="out")(y))


ALL = ("conv_a", "encoder/conv_b", "encoder/dense_b", "forward", "backward", "out")


HALF = dict.fromkeys(ALL, 0.5)


RULES = {
    "none": ([], HALF),
    "by name": ([Rule("out", MORE)], HALF | {"out": 0.75}),
    "by glob": (
        [Rule("conv_*", MORE)],
        HALF | {"conv_a": 0.75, "encoder/conv_b": 0.75},
    ),
    "by path": (
        [Rule("encoder/*", MORE)],
        HALF | {"encoder/conv_b": 0.75, "encoder/dense_b": 0.75},
    ),
    "by the layer around": (
        [Rule("encoder", MORE)],
        HALF | {"encoder/conv_b": 0.75, "encoder/dense_b": 0.75},
    ),
    "by type": (
        [Rule(layers.Conv1D, MORE)],
        HALF | {"conv_a": 0.75, "encoder/conv_b": 0.75},
    ),
    "by list": (
        [Rule(["out", layers.Conv1D], MORE)],
        HALF | {"conv_a": 0.75, "encoder/conv_b": 0.75, "out": 0.75},
    ),
    "later overrides": (
        [Rule("*", MORE), Rule("out", LESS)],
        dict.fromkeys(ALL, 0.75) | {"out": 0.25},
    ),
    "earlier is overridden": ([Rule("out", LESS), Rule("*", MORE)], dict.fromkeys(ALL, 0.75)),
    "exempt": ([Rule("out", prune=False)], HALF | {"out": 0.0}),
    "exempt by the layer around": (
        [Rule("encoder", prune=False)],
        HALF | {"encoder/conv_b": 0.0, "encoder/dense_b": 0.0},
    ),
    "back again": (
        [Rule("encoder", prune=False), Rule("encoder/conv_b", MORE)],
        HALF | {"encoder/conv_b": 0.75, "encoder/dense_b": 0.0},
    ),
    "a layer that holds layers": (
        [Rule("both", MORE)],
        HALF | {"forward": 0.75, "backward": 0.75},
    ),
    "inside it, by path": ([Rule("both/forward*", MORE)], HALF | {"forward": 0.75}),
    "inside it, by type": (
        [Rule(layers.LSTMCell, LESS)],
        HALF | {"forward": 0.25, "backward": 0.25},
    ),
    "inside it, exempt": ([Rule("both/backward*", prune=False)], HALF | {"backward": 0.0}),
    "outside and inside": (
        [Rule("both", MORE), Rule("both/backward*", LESS)],
        HALF | {"forward": 0.75, "backward": 0.25},
    ),
}


def sparsity_by_part(model):
    found = {}
    for row in tfprune.sparsity_report(model).rows:
        key = next((k for k in ("forward", "backward") if f"/{k}" in row.layer), row.layer)
        if row.status != "nothing to prune":
            found[key] = row.sparsity
    return found


@pytest.mark.parametrize("name", RULES)
def test_rules(name, tmp_path):
    rules, expected = RULES[name]
    pruned = tfprune.prune_low_magnitude(with_parts(), at_once(), rules=rules)
    tfprune.UpdatePruningStep(pruned)
    assert sparsity_by_part(pruned) == expected
    assert sparsity_by_part(tfprune.strip_pruning(pruned)) == expected
    # The rules are in the file: a loaded copy, its masks forgotten, comes to the same.
    pruned.save(tmp_path / "rules.keras")
    loaded = keras.saving.load_model(tmp_path / "rules.keras")
    tfprune.load_plain_weights(loaded, with_parts())
    for weight in weights_of(loaded):
        weight.set_mask(np.ones(weight.mask.shape, bool))
    tfprune.load_plain_weights(loaded, with_parts())
    for owner in mask_owners(loaded):
        owner.mask_set.step = 0
    tfprune.UpdatePruningStep(loaded)
    assert sparsity_by_part(loaded) == expected


def test_rules_in_a_subclassed_model():
    rules = [Rule("block_*", MORE), Rule("twin/right", prune=False), Rule("out", LESS)]
    pruned = tfprune.prune_low_magnitude(subclassed(), at_once(), rules=rules)
    tfprune.UpdatePruningStep(pruned)
    found = {
        r.layer.removeprefix("subclassed/"): r.sparsity
        for r in tfprune.sparsity_report(pruned).rows
    }
    assert found == {
        "first": 0.5,
        "block_0": 0.75,
        "block_1": 0.75,
        "twin/left": 0.5,
        "twin/right": 0.0,
        "out": 0.25,
    }


def test_rules_give_patterns_and_scopes():
    rules = [Rule(layers.Conv1D, pattern="filter"), Rule("out", scope="global")]
    pruned = tfprune.prune_low_magnitude(with_parts(), at_once(), rules=rules)
    methods = {w.layer.name: w.method for w in weights_of(pruned)}
    assert methods["conv_a"].pattern == methods["conv_b"].pattern == tfprune.Filter()
    assert methods["dense_b"].pattern == tfprune.Unstructured()
    assert (methods["out"].scope, methods["conv_a"].scope) == (tfprune.Global(), tfprune.Local())
    tfprune.UpdatePruningStep(pruned)
    mask = next(w.mask.numpy() for w in weights_of(pruned) if w.layer.name == "conv_b")
    filters = mask.reshape(-1, 4)
    assert sorted(filters.all(axis=0)) == sorted(filters.any(axis=0)) == [False, False, True, True]


def test_rules_for_a_layer_and_a_list():
    (first, second) = tfprune.prune_low_magnitude(
        [layers.Dense(4, name="a"), layers.Dense(4, name="b")], at_once(), rules=[Rule("b", MORE)]
    )
    model = keras.Sequential([keras.Input((4,)), first, second])
    tfprune.UpdatePruningStep(model)
    assert [w.zeros for w in weights_of(model)] == [8, 12]
    with pytest.raises(ValueError, match=r"Rule\(match='c'\), which matches none. .*: a, b"):
        tfprune.prune_low_magnitude([layers.Dense(4, name="a"), second.inner], rules=[Rule("c")])
