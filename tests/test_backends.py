"""Training on the active backend, by `fit` and by a loop of one's own.

`KERAS_BACKEND=jax pytest tests/test_backends.py`, likewise torch.
"""

import keras
import numpy as np
import pytest
from keras import layers, ops

import tfprune
from tfprune.wrapper import mask_owners

BACKEND = keras.backend.backend()
SIZES = (512, 128)


def ramp():
    return tfprune.PolynomialDecay(0.0, 0.8, begin_step=0, end_step=6, frequency=2)


def model_of(compiled=None):
    keras.utils.set_random_seed(1)
    model = keras.Sequential(
        [
            keras.Input((16,)),
            layers.Dense(32, "relu"),
            layers.BatchNormalization(),
            layers.Dropout(0.2, seed=3),
            layers.Dense(4),
        ]
    )
    model = tfprune.prune_low_magnitude(model, ramp())
    if compiled is not None:
        model.compile(compiled, "mse")
    return model


def data():
    x = np.random.default_rng(0).normal(size=(56, 16)).astype("float32")
    return x, x[:, :4] * 2


def weights_of(model):
    return [weight for owner in mask_owners(model) for weight in owner.pruned_weights]


def assert_exactly_sparse(model):
    for weight in weights_of(model):
        value, mask = (ops.convert_to_numpy(v) for v in (weight.variable, weight.mask))
        assert not value[~mask].any() and not np.signbit(value[~mask]).any()


def expected_zeros(step):
    due, sparsity = ramp().evaluate(np.arange(step + 1))
    held = float(str(sparsity[np.flatnonzero(due)[-1]]))
    return [size - max(1, round(size * (1 - held))) for size in SIZES]


def tensorflow_loop(model, pruning, x, y):
    import tensorflow as tf

    optimizer = keras.optimizers.Adam()
    optimizer.build(model.trainable_variables)

    @tf.function(jit_compile=True)
    def train_step(x, y):
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean((model(x, training=True) - y) ** 2)
        gradients = tape.gradient(loss, [v.value for v in model.trainable_variables])
        optimizer.apply(gradients, model.trainable_variables)

    while True:
        train_step(x, y)
        yield pruning.step()


def jax_loop(model, pruning, x, y):
    import jax

    optimizer = keras.optimizers.Adam()
    optimizer.build(model.trainable_variables)

    def loss_of(trainable, others):
        output, others = model.stateless_call(trainable, others, x, training=True)
        return ((output - y) ** 2).mean(), others

    @jax.jit
    def train_step(trainable, others, slots):
        gradients, others = jax.grad(loss_of, has_aux=True)(trainable, others)
        trainable, slots = optimizer.stateless_apply(slots, gradients, trainable)
        return pruning.project(trainable, others), others, slots

    variables = (model.trainable_variables, model.non_trainable_variables, optimizer.variables)
    state = [[v.value for v in group] for group in variables]

    def sync():
        for group, values in zip(variables, state, strict=True):
            for variable, value in zip(group, values, strict=True):
                variable.assign(value)

    while True:
        state = list(train_step(*state))
        due = pruning.step(sync)
        if due:
            state = [[v.value for v in group] for group in variables]
        else:
            sync()
        yield due


def torch_loop(model, pruning, x, y):
    import torch

    # An optimizer that knows nothing of Keras and its constraints.
    parameters = [v.value for v in model.trainable_variables]
    optimizer = torch.optim.Adam(parameters, lr=1e-2)
    x, y = torch.from_numpy(x), torch.from_numpy(y)
    while True:
        optimizer.zero_grad()
        ((model(x, training=True) - y) ** 2).mean().backward()
        optimizer.step()
        yield pruning.step()


def test_a_loop_of_ones_own():
    model = model_of()
    pruning = tfprune.UpdatePruningStep(model)
    due, _ = ramp().evaluate(np.arange(9))
    loop = {"tensorflow": tensorflow_loop, "jax": jax_loop, "torch": torch_loop}[BACKEND]
    before = [ops.convert_to_numpy(v).copy() for v in model.trainable_variables]
    for step, asked in zip(range(1, 9), loop(model, pruning, *data()), strict=False):
        assert asked == bool(due[step])
        assert [weight.zeros for weight in weights_of(model)] == expected_zeros(step)
        assert_exactly_sparse(model)
    assert mask_owners(model)[0].pruning_step == 8
    after = [ops.convert_to_numpy(v) for v in model.trainable_variables]
    assert all((old != new).any() for old, new in zip(before, after, strict=True))


OPTIMIZERS = {
    "adam": lambda: keras.optimizers.Adam(),
    "accumulation": lambda: keras.optimizers.SGD(0.01, 0.9, gradient_accumulation_steps=2),
    "ema": lambda: keras.optimizers.Adam(use_ema=True, ema_momentum=0.5),
    "ema_overwrite": lambda: keras.optimizers.Adam(use_ema=True, ema_overwrite_frequency=2),
    "muon": lambda: keras.optimizers.Muon(0.01),
}


class Watch(keras.callbacks.Callback):
    def on_train_batch_end(self, batch, logs=None):
        assert_exactly_sparse(self.model)

    def on_epoch_end(self, epoch, logs=None):
        assert_exactly_sparse(self.model)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_fit_is_exact_after_every_step(name):
    model = model_of(OPTIMIZERS[name]())
    swaps = [keras.callbacks.SwapEMAWeights(swap_on_epoch=True)] if name == "ema" else []
    callbacks = [Watch(), *swaps, tfprune.UpdatePruningStep(), Watch()]
    model.fit(*data(), batch_size=8, epochs=2, verbose=0, callbacks=callbacks)
    assert [weight.zeros for weight in weights_of(model)] == expected_zeros(7)
    assert_exactly_sparse(model)


def test_strip_save_and_load(tmp_path):
    model = model_of("adam")
    model.fit(*data(), batch_size=8, verbose=0, callbacks=[tfprune.UpdatePruningStep()])
    model.save(tmp_path / "wrapped.keras")
    loaded = keras.models.load_model(tmp_path / "wrapped.keras")
    stripped = tfprune.strip_pruning(loaded)
    stripped.save(tmp_path / "plain.keras")
    plain = keras.models.load_model(tmp_path / "plain.keras")
    expected = model.predict(data()[0], verbose=0)
    for other in (loaded, stripped, plain):
        np.testing.assert_array_equal(expected, other.predict(data()[0], verbose=0))
    assert [weight.zeros for weight in weights_of(loaded)] == expected_zeros(7)
    assert mask_owners(loaded)[0].pruning_step == 7
    # Training goes on, and neither model harms the other: no buffer is shared.
    loaded.fit(*data(), batch_size=8, verbose=0, callbacks=[tfprune.UpdatePruningStep()])
    np.testing.assert_array_equal(expected, model.predict(data()[0], verbose=0))
    np.testing.assert_array_equal(expected, plain.predict(data()[0], verbose=0))
    assert_exactly_sparse(loaded)
