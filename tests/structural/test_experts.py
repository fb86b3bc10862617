"""Experts are removed as if the router gave them no token."""

import keras
import numpy as np
import pytest
from keras import layers, ops
from structural_support import randomize

import tfprune
from tfprune.patterns import KernelAxes
from tfprune.structural import remove_experts

EXPERTS, WIDTH = 5, 6


@keras.saving.register_keras_serializable(package="test_experts")
class Bank(layers.Layer):
    def __init__(self, num_experts, **kwargs):
        super().__init__(**kwargs)
        self.num_experts = num_experts

    def build(self, shape):
        self.kernels = self.add_weight(shape=(self.num_experts, shape[-1], shape[-1]))

    def call(self, x):
        return ops.einsum("th,ehm->etm", x, self.kernels)


tfprune.register_prunable(
    Bank,
    tfprune.PrunableWeight(
        "kernels", lambda bank: bank.kernels, KernelAxes((-2,), (-1,), experts=True), False
    ),
)


@keras.saving.register_keras_serializable(package="test_experts")
class Mixture(layers.Layer):
    """The two experts with the largest logits, weighted by their softmax; a router with a bias."""

    def __init__(self, num_experts, **kwargs):
        super().__init__(**kwargs)
        self.num_experts = num_experts

    def build(self, shape):
        self.router = layers.Dense(self.num_experts, name="router")
        self.router.build(shape)
        self.bank = Bank(self.num_experts, name="bank")
        self.bank.build(shape)

    def call(self, x):
        values, chosen = ops.top_k(self.router(x), k=2)
        shares = ops.one_hot(chosen, self.num_experts) * ops.softmax(values)[..., None]
        return x + ops.einsum("te,eth->th", ops.sum(shares, axis=1), self.bank(x))

    def get_config(self):
        return {**super().get_config(), "num_experts": self.num_experts}


@keras.saving.register_keras_serializable(package="test_experts")
class Uncounted(Mixture):
    """Its config counts the experts under another name."""

    def get_config(self):
        config = super().get_config()
        return {"bunch": config.pop("num_experts"), **config}

    @classmethod
    def from_config(cls, config):
        return cls(config.pop("bunch"), **config)


@keras.saving.register_keras_serializable(package="test_experts")
class AfterSoftmax(Mixture):
    """The last layer of its router gives shares instead of logits."""

    def build(self, shape):
        super().build(shape)
        self.router.activation = keras.activations.softmax


def model_of(block, number=2, experts=EXPERTS):
    inputs = x = keras.Input((WIDTH,))
    for place in range(number):
        x = block(experts, name=f"mixture_{place}")(x)
    return randomize(keras.Model(inputs, layers.Dense(3, name="out")(x)))


def data():
    return np.random.default_rng(1).normal(size=(40, WIDTH)).astype("float32")


def block_in_numpy(block, x, left):
    """A block's outputs with only some of its experts, in their order."""
    router, bias = (w[..., left] for w in block.router.get_weights())
    (kernels,) = block.bank.get_weights()
    logits = x @ router + bias
    found = x.copy()
    for row, token in enumerate(logits):
        chosen = np.argsort(-token)[:2]
        shares = np.exp(token[chosen]) / np.exp(token[chosen]).sum()
        for expert, share in zip(chosen, shares, strict=True):
            found[row] += share * (x[row] @ kernels[left[expert]])
    return found


def least(block, x, n):
    """The experts that stay, by the definition."""
    full = block_in_numpy(block, x, list(range(EXPERTS)))
    left = list(range(EXPERTS))
    for _ in range(n):
        rests = [[e for e in left if e != gone] for gone in left]
        changes = [((block_in_numpy(block, x, rest) - full) ** 2).sum() for rest in rests]
        left = rests[int(np.argmin(changes))]
    return left


@pytest.mark.parametrize("n", [1, 3])
def test_the_experts_of_least_change_go(n):
    model = model_of(Mixture)
    small = remove_experts(model, n, data())
    x = data()
    for place in range(2):
        block, smaller = (m.get_layer(f"mixture_{place}") for m in (model, small))
        left = least(block, x, n)
        assert smaller.get_config()["num_experts"] == EXPERTS - n
        np.testing.assert_array_equal(
            smaller.bank.get_weights()[0], block.bank.get_weights()[0][left]
        )
        for old, new in zip(block.router.get_weights(), smaller.router.get_weights(), strict=True):
            np.testing.assert_array_equal(new, old[..., left])
        x = block_in_numpy(block, x, left)
    kernel, bias = model.get_layer("out").get_weights()
    expected = x @ kernel + bias
    np.testing.assert_allclose(ops.convert_to_numpy(small(data())), expected, rtol=1e-4, atol=1e-4)
    # What is removed makes a difference, and so would the choice of others.
    assert np.abs(ops.convert_to_numpy(model(data())) - expected).max() > 1e-2


def test_the_model_stays_and_the_result_is_saved(tmp_path):
    model = model_of(Mixture)
    wrapped = tfprune.prune_low_magnitude(model, tfprune.ConstantSparsity(0.5, 0))
    before = model.get_weights()
    expected = remove_experts(model, 2, data())
    for one, other in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)
    small = remove_experts(wrapped, 2, data())
    small.save(tmp_path / "small.keras")
    loaded = keras.saving.load_model(tmp_path / "small.keras")
    for one, other in zip(expected.get_weights(), loaded.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize(
    ("model", "n", "error", "line"),
    [
        (lambda: model_of(Mixture), 4, ValueError, r"at least 2 experts to stay.*Remove at most 3"),
        (lambda: model_of(Mixture), 5, ValueError, r"more than 5 experts.*with 5"),
        (lambda: model_of(Mixture), 0, ValueError, "`n` to be at least 1"),
        (lambda: model_of(Mixture), 1.5, TypeError, "`n` to be a whole number"),
        (lambda: model_of(Mixture, 0), 1, ValueError, r"with none.*register_prunable"),
        (lambda: model_of(Uncounted), 1, ValueError, "a config without the number of experts"),
        (lambda: model_of(AfterSoftmax), 1, ValueError, "routers whose outputs are logits"),
    ],
    ids=["top_k", "all", "none", "half", "no experts", "not counted", "no logits"],
)
def test_what_cannot_be_removed(model, n, error, line):
    with pytest.raises(error, match=line):
        remove_experts(model(), n, data())
