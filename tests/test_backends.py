"""Training on the active backend, by `fit` and by a loop of one's own.

`KERAS_BACKEND=jax pytest tests/test_backends.py`, likewise torch.
"""

import warnings

import keras
import numpy as np
import pytest
from keras import layers, ops
from keras_support import muon, outputs

import tfprune
from tfprune._wrapping.wrapper import mask_owners

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
    "muon": lambda: muon(0.01),
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
    expected = outputs(model, data()[0])
    for other in (loaded, stripped, plain):
        np.testing.assert_array_equal(expected, outputs(other, data()[0]))
    assert [weight.zeros for weight in weights_of(loaded)] == expected_zeros(7)
    assert mask_owners(loaded)[0].pruning_step == 7
    # Training continues, and neither model harms the other: no buffer is shared.
    loaded.fit(*data(), batch_size=8, verbose=0, callbacks=[tfprune.UpdatePruningStep()])
    np.testing.assert_array_equal(expected, outputs(model, data()[0]))
    np.testing.assert_array_equal(expected, outputs(plain, data()[0]))
    assert_exactly_sparse(loaded)


@pytest.mark.parametrize("steps", [(2**31, -1), (0, 2**31), (0, -1, 2**31), (2**40, 2**41)])
def test_steps_beyond_32_bits_are_refused(steps):
    with pytest.raises(
        ValueError, match=r"at most 2147483647\. Received: (begin_step|end_step|frequency)="
    ):
        tfprune.ConstantSparsity(0.5, *steps)


def test_the_last_step_of_32_bits_works():
    last = 2**31 - 1
    due, _ = tfprune.ConstantSparsity(0.5, last, last).evaluate([last - 1, last])
    assert due.tolist() == [False, True]


def quiet(function):
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        function()


def test_fit_without_the_callback_after_one_with_it_warns_and_stays_sparse():
    model = model_of("adam")
    fit = {"batch_size": 8, "verbose": 0}
    quiet(lambda: model.fit(*data(), callbacks=[tfprune.UpdatePruningStep()], **fit))
    quiet(lambda: model.fit(*data(), callbacks=[tfprune.UpdatePruningStep()], **fit))
    with pytest.warns(UserWarning, match="to be trained with UpdatePruningStep") as caught:
        model.fit(*data(), **fit)
    assert len([w for w in caught if str(w.message).startswith("Expected")]) == 1
    assert_exactly_sparse(model)
    # Freezing a layer moves the variables to other positions.
    model.layers[0].trainable = False
    model.compile("adam", "mse")
    before = ops.convert_to_numpy(weights_of(model)[1].variable)
    quiet(lambda: model.fit(*data(), **fit))
    assert_exactly_sparse(model)
    assert (ops.convert_to_numpy(weights_of(model)[1].variable) != before).any()


def test_a_forgotten_callback_is_told_once_for_a_model_of_many_layers():
    inner = keras.Sequential([layers.Dense(5, name="a"), layers.Dense(5, name="b")])
    plain = keras.Sequential([keras.Input((6,)), inner, layers.Dense(8, name="c")])
    model = tfprune.prune_low_magnitude(plain)
    assert len(mask_owners(model)) == 3
    model.compile("sgd", "mse")
    x, y = np.ones((8, 6), "float32"), np.ones((8, 8), "float32")
    if BACKEND == "jax":
        # The step is refused: JAX's `fit` would not keep the zeros.
        with pytest.raises(ValueError, match="to be run with UpdatePruningStep"):
            model.fit(x, y, verbose=0)
        return
    with pytest.warns(UserWarning, match=f"'{model.name}' to be trained with") as caught:
        model.fit(x, y, epochs=2, verbose=0)
    assert len([w for w in caught if str(w.message).startswith("Expected")]) == 1
    model.run_eagerly = True
    quiet(lambda: model.fit(x, y, verbose=0))


def test_projection_follows_a_layer_that_is_frozen_between_two_fits():
    model = model_of("adam")
    fit = {"batch_size": 8, "verbose": 0}
    quiet(lambda: model.fit(*data(), callbacks=[tfprune.UpdatePruningStep()], **fit))
    for frozen in (True, False):
        model.layers[0].trainable = not frozen
        model.compile("adam", "mse")
        before = [ops.convert_to_numpy(weight.variable) for weight in weights_of(model)]
        callbacks = [Watch(), tfprune.UpdatePruningStep()]
        quiet(lambda callbacks=callbacks: model.fit(*data(), callbacks=callbacks, **fit))
        after = [ops.convert_to_numpy(weight.variable) for weight in weights_of(model)]
        moved = [(old != new).any() for old, new in zip(before, after, strict=True)]
        assert moved == [not frozen, True]
        assert [weight.zeros for weight in weights_of(model)] == expected_zeros(7)


@keras.saving.register_keras_serializable(package="tests")
class WrapsItself(keras.Model):
    """Its constructor wraps layers: in an attribute, a list and a tuple."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.first = tfprune.prune_low_magnitude(layers.Dense(16), ramp())
        self.more = tfprune.prune_low_magnitude([layers.Dense(16), layers.Dense(16)], ramp())
        self.plain = layers.Dense(16)
        self.ends = (tfprune.prune_low_magnitude(layers.Dense(4), ramp()),)

    def build(self, input_shape):
        for layer in (self.first, self.plain, *self.more, *self.ends):
            layer.build((None, 16))
        self.built = True

    def call(self, inputs):
        x = self.plain(self.first(inputs))
        for layer in self.more:
            x = x + layer(x)
        return self.ends[0](x)


def test_wrappers_are_taken_out_of_the_attributes_of_a_model():
    keras.utils.set_random_seed(2)
    model = WrapsItself()
    model.build((None, 16))
    model.compile("adam", "mse")
    model.fit(*data(), batch_size=8, verbose=0, callbacks=[tfprune.UpdatePruningStep()])
    stripped = tfprune.strip_pruning(model)
    assert not mask_owners(stripped) and len(mask_owners(model)) == 4
    assert type(stripped.first) is type(stripped.more[1]) is type(stripped.ends[0]) is layers.Dense
    expected = outputs(model, data()[0])
    np.testing.assert_array_equal(outputs(stripped, data()[0]), expected)


def test_rules_inside_of_a_layer_hold_after_loading(tmp_path):
    rules = [tfprune.Rule("*/backward*", prune=False)]
    both = layers.Bidirectional(layers.GRU(4), name="both")
    model = keras.Sequential([keras.Input((3, 4)), both, layers.Dense(2)])
    model = tfprune.prune_low_magnitude(model, tfprune.ConstantSparsity(0.5, 0), rules=rules)
    model.save(tmp_path / "rules.keras")
    for item in (model, keras.models.load_model(tmp_path / "rules.keras")):
        paths = [weight.path for weight in weights_of(item)]
        assert len(paths) == 3 and not any("backward" in path for path in paths)
