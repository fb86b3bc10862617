"""Channels are followed through the code of layers that run layers inside."""

import keras
import numpy as np
import pytest
from keras import layers, ops
from structural_support import randomize

import tfprune

WIDTH = 8
HALF = tfprune.ConstantSparsity(0.5, 0)


class Holder(keras.layers.Layer):
    """A layer whose parts are made in `parts` and built in `build`."""

    def build(self, shape):
        self.parts(shape[-1])
        for name, width in self.widths(shape[-1]).items():
            getattr(self, name).build((None, None, width))

    def widths(self, width):
        return {}


@keras.saving.register_keras_serializable(package="test_code")
class GatedMLP(Holder):
    def parts(self, width):
        self.norm = layers.LayerNormalization(name="norm")
        self.gate = layers.Dense(WIDTH, use_bias=False, name="gate")
        self.up = layers.Dense(WIDTH, use_bias=False, name="up")
        self.down = layers.Dense(width, use_bias=False, name="down")

    def widths(self, width):
        return {"norm": width, "gate": width, "up": width, "down": WIDTH}

    def call(self, x):
        y = self.norm(x)
        return x + self.down(ops.silu(self.gate(y)) * self.up(y))


@keras.saving.register_keras_serializable(package="test_code")
class Block(Holder):
    """Attention, then another layer with code."""

    def parts(self, width):
        self.attention = layers.MultiHeadAttention(4, 2, name="attention")
        self.attention.build((None, None, width), (None, None, width))
        self.mlp = GatedMLP(name="mlp")

    def widths(self, width):
        return {"mlp": width}

    def call(self, x, mask=None, training=None):
        length = ops.shape(x)[1]
        allowed = ops.tril(ops.ones((1, length, length), dtype="bool"))
        return self.mlp(x + self.attention(x, x, attention_mask=allowed, training=training))


class Counting(Holder):
    """Its code counts the channels, so they stay."""

    def parts(self, width):
        self.wide = layers.Dense(WIDTH, name="wide")
        self.last = layers.Dense(width, name="last")

    def widths(self, width):
        return {"wide": width, "last": WIDTH}

    def call(self, x):
        y = ops.reshape(self.wide(x), (ops.shape(x)[0], -1, WIDTH))
        return self.last(y)


class Branching(Counting):
    """Its code needs numbers, not placeholders."""

    def call(self, x):
        if isinstance(x, keras.KerasTensor):
            raise TypeError("numbers only")
        return self.last(self.wide(x))


def model_of(*blocks, features=6):
    inputs = keras.Input((5, features))
    x = inputs
    for block in blocks:
        x = block(x)
    model = keras.Model(inputs, layers.Dense(3, name="out")(x))
    return randomize(model)


def tokens(seed=0):
    return np.random.default_rng(seed).normal(size=(4, 5, 6)).astype("float32")


def found_in(model):
    return {group.layers: group for group in tfprune.dependency_groups(model)}


def outputs(model, data):
    return keras.ops.convert_to_numpy(model(data, training=False))


def assert_equal_outputs(one, other):
    found = [outputs(model, tokens()) for model in (one, other)]
    np.testing.assert_allclose(*found, rtol=1e-5, atol=1e-5)


def test_groups_inside_a_layer():
    found = found_in(model_of(Block(name="block")))
    assert found["block/attention:heads",].removable == 3
    assert found["block/mlp/gate", "block/mlp/up"].removable == WIDTH - 1
    reads = {m.layer for m in found["block/mlp/gate", "block/mlp/up"].members if m.reads}
    assert reads == {"block/mlp/down"}


def test_nothing_is_left_in_the_layers_followed():
    block = Block(name="block")
    model = model_of(block)
    before = {id(layer): len(layer._inbound_nodes) for layer in block._flatten_layers()}
    tfprune.dependency_groups(model)
    assert {id(layer): len(layer._inbound_nodes) for layer in block._flatten_layers()} == before


@pytest.mark.parametrize("blocks", [1, 2])
def test_a_masked_and_a_shrunk_model_compute_the_same(blocks, tmp_path):
    model = model_of(*[Block(name=f"block_{number}") for number in range(blocks)])
    pruned = tfprune.prune_low_magnitude(model, HALF, pattern="filter")
    tfprune.UpdatePruningStep(pruned)
    plan = tfprune.plan_shrink(pruned)
    small = plan.apply()
    masked = tfprune.strip_pruning(pruned)
    assert_equal_outputs(small, masked)
    # Outputs depend on the inputs, and the masks change them.
    assert np.abs(outputs(small, tokens()) - outputs(small, tokens(1))).max() > 1e-2
    assert np.abs(outputs(small, tokens()) - outputs(model, tokens())).max() > 1e-2
    for number in range(blocks):
        block = small.get_layer(f"block_{number}")
        assert isinstance(block, Block)
        assert tuple(block.mlp.gate.kernel.shape) == (6, WIDTH // 2)
        assert tuple(block.attention._value_dense.kernel.shape) == (6, 2, 2)
        assert block.attention.num_heads == 2
    lost = blocks * (3 * 6 * WIDTH // 2 + 2 * (3 * (6 * 2 + 2) + 2 * 6))
    assert plan.before.parameters - plan.after.parameters == lost
    small.save(tmp_path / "small.keras")
    loaded = keras.saving.load_model(tmp_path / "small.keras")
    np.testing.assert_array_equal(outputs(loaded, tokens()), outputs(small, tokens()))


def test_a_shrunk_model_can_be_pruned_and_shrunk_again(tmp_path):
    small = model_of(Block(name="block"))
    for _ in range(2):
        pruned = tfprune.prune_low_magnitude(small, HALF, pattern="filter")
        tfprune.UpdatePruningStep(pruned)
        masked, small = tfprune.strip_pruning(pruned), tfprune.shrink(pruned)
    assert tuple(small.get_layer("block").mlp.gate.kernel.shape) == (6, WIDTH // 4)
    assert small.get_layer("block").attention.num_heads == 1
    assert_equal_outputs(small, masked)
    small.save(tmp_path / "small.keras")
    loaded = keras.saving.load_model(tmp_path / "small.keras")
    np.testing.assert_array_equal(outputs(loaded, tokens()), outputs(small, tokens()))


def test_a_shrunk_layer_trains():
    small = tfprune.shrink(model_of(Block(name="block")), {"parameters": 0.7}, verbose=0)
    small.compile("sgd", "mse")
    before = outputs(small, tokens())
    small.fit(tokens(), np.zeros((4, 5, 3), "float32"), verbose=0)
    assert np.abs(outputs(small, tokens()) - before).max() > 0


def test_channels_that_code_counts_stay():
    group = found_in(model_of(Counting(name="counting")))["counting/wide",]
    assert group.removable == 0
    assert "code counts them" in group.fixed[0]


class Scaling(Counting):
    """Its code multiplies by the number of channels, which no placeholder shows."""

    def call(self, x):
        return self.last(ops.relu(self.wide(x))) * (self.wide.kernel.shape[-1] / 4)


def test_code_that_multiplies_by_the_number_of_channels_is_noticed():
    pruned = tfprune.prune_low_magnitude(model_of(Scaling(name="scaling")), HALF, pattern="filter")
    tfprune.UpdatePruningStep(pruned)
    with pytest.raises(ValueError, match=r"code computes the same.*from code of Scaling"):
        tfprune.shrink(pruned)


def test_code_that_needs_numbers_is_a_barrier():
    model = model_of(Branching(name="branching"))
    assert tfprune.plan_shrink(model).barriers == {"branching": "Branching"}
