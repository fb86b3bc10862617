"""Every pruned weight is +0 after every optimizer step, in every way of training."""

import keras
import numpy as np
import pytest
from keras import layers, ops
from keras_support import muon, outputs
from training_support import (
    BATCH,
    SAMPLES,
    STEPS,
    Watch,
    assert_exactly_sparse,
    data,
    fit,
    kept,
    schedule,
    small_cnn,
    weights_of,
)

import tfprune
from tfprune._wrapping.wrapper import mask_owners


def assert_at(model, sparsity):
    for weight in weights_of(model):
        mask = ops.convert_to_numpy(weight.mask)
        assert mask.sum() == kept(mask.size, sparsity), weight.path


OPTIMIZERS = {
    "adam": lambda: keras.optimizers.Adam(),
    "adamw": lambda: keras.optimizers.AdamW(weight_decay=0.1),
    "nesterov": lambda: keras.optimizers.SGD(0.01, momentum=0.9, nesterov=True),
    "lion": lambda: keras.optimizers.Lion(),
    "lamb": lambda: keras.optimizers.Lamb(),
    "ftrl": lambda: keras.optimizers.Ftrl(),
    "muon": lambda: muon(0.01),
    "rmsprop": lambda: keras.optimizers.RMSprop(),
    "clipped": lambda: keras.optimizers.Adam(global_clipnorm=1.0),
    "ema": lambda: keras.optimizers.Adam(use_ema=True, ema_momentum=0.9),
    "ema_overwrite": lambda: keras.optimizers.SGD(
        0.01, use_ema=True, ema_momentum=0.5, ema_overwrite_frequency=3
    ),
    "loss_scale": lambda: keras.optimizers.LossScaleOptimizer(keras.optimizers.Adam()),
    "loss_scale_ema": lambda: keras.optimizers.LossScaleOptimizer(
        keras.optimizers.Adam(use_ema=True)
    ),
}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_optimizer_keeps_pruned_weights_at_zero(name):
    model = tfprune.prune_low_magnitude(small_cnn(), schedule())
    model.compile(OPTIMIZERS[name](), "mse")
    history, zeros = fit(model)
    assert zeros == sorted(zeros)
    assert_exactly_sparse(model)
    assert_at(model, 0.8)
    total = sum(weight.size for weight in weights_of(model))
    assert history.history["sparsity"][-1] == zeros[-1] / total


MODES = {
    "jit": {"jit_compile": True},
    "no_jit": {"jit_compile": False},
    "eager": {"run_eagerly": True},
}


@pytest.mark.parametrize("name", MODES)
def test_every_way_of_running_the_step(name):
    model = tfprune.prune_low_magnitude(small_cnn(), schedule())
    model.compile("adam", "mse", **MODES[name])
    fit(model)
    assert_at(model, 0.8)


@pytest.mark.parametrize("accumulation", [2, 4, 5])
def test_a_step_is_an_update_not_a_batch(accumulation):
    model = tfprune.prune_low_magnitude(small_cnn(), schedule(end=2, frequency=1))
    model.compile(keras.optimizers.Adam(gradient_accumulation_steps=accumulation), "mse")
    _, zeros = fit(model)
    changes = [batch for batch in range(1, len(zeros)) if zeros[batch] != zeros[batch - 1]]
    assert [batch + 1 for batch in changes] == [
        n * accumulation for n in (1, 2) if n * accumulation > 1
    ]
    assert mask_owners(model)[0].pruning_step == 2 * STEPS // accumulation


@pytest.mark.parametrize("executions", [2, 4, 7])
def test_steps_per_execution(executions):
    # 6 batches an epoch: with 4, the last execution is cut short and Keras counts too far.
    model = tfprune.prune_low_magnitude(small_cnn(), schedule(end=9, frequency=1))
    model.compile("adam", "mse", steps_per_execution=executions)
    fit(model, epochs=3)
    assert mask_owners(model)[0].pruning_step == 3 * STEPS
    assert_at(model, 0.8)


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16", "bfloat16", "float16"])
def test_dtype_policies(policy):
    keras.config.set_dtype_policy(policy)
    try:
        plain = small_cnn()
    finally:
        keras.config.set_dtype_policy("float32")
    model = tfprune.prune_low_magnitude(plain, schedule())
    x, _ = data()
    np.testing.assert_array_equal(outputs(plain, x), outputs(model, x))
    model.compile(keras.optimizers.SGD(1e-3), "mse")
    fit(model)
    assert_at(model, 0.8)
    assert_exactly_sparse(model)
    for weight in weights_of(model):
        expected = "float32" if policy.startswith("mixed") else policy
        assert keras.backend.standardize_dtype(weight.variable.dtype) == expected


def test_a_users_constraint_and_regularizer_stay_in_force():
    layer = layers.Dense(
        16, kernel_constraint=keras.constraints.NonNeg(), kernel_regularizer="l2", name="d"
    )
    model = keras.Sequential([keras.Input((8, 8, 1)), layers.Flatten(), layer, layers.Dense(5)])
    model = tfprune.prune_low_magnitude(model, schedule())
    assert len(model.losses) == 1
    model.compile(keras.optimizers.SGD(0.05), "mse")
    fit(model)
    kernel = ops.convert_to_numpy(model.get_layer("d").layer.kernel)
    assert kernel.min() >= 0 and (kernel > 0).sum() == kept(kernel.size, 0.8)
    stripped = tfprune.strip_pruning(model).get_layer("d")
    assert type(stripped.kernel.constraint) is keras.constraints.NonNeg
    assert type(stripped.kernel_regularizer).__name__ == "L2"


def test_embeddings_with_sparse_gradients():
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [keras.Input((4,), dtype="int32"), layers.Embedding(50, 8), layers.Flatten()]
    )
    model = tfprune.prune_low_magnitude(model, schedule(end=6, frequency=1))
    model.compile("adam", "mse")
    tokens = np.random.default_rng(0).integers(0, 10, (SAMPLES, 4))
    watch = Watch()
    model.fit(
        tokens,
        np.ones((SAMPLES, 32), "float32"),
        batch_size=BATCH,
        epochs=2,
        verbose=0,
        callbacks=[tfprune.UpdatePruningStep(), watch],
    )
    assert_at(model, 0.8)


@pytest.mark.parametrize("swap_first", [True, False])
def test_swapped_averages_are_sparse_in_every_file(tmp_path, swap_first):
    model = tfprune.prune_low_magnitude(small_cnn(), schedule(frequency=3))
    model.compile(keras.optimizers.Adam(use_ema=True, ema_momentum=0.9), "mse")
    swap = keras.callbacks.SwapEMAWeights(swap_on_epoch=True)
    save = keras.callbacks.ModelCheckpoint(str(tmp_path / "{epoch}.keras"))
    prune = tfprune.UpdatePruningStep()
    x, y = data()
    order = [swap, save, prune] if swap_first else [prune, swap, save]
    model.fit(x, y, batch_size=BATCH, epochs=2, verbose=0, callbacks=order)
    for epoch in (1, 2):
        saved = keras.models.load_model(tmp_path / f"{epoch}.keras")
        assert_exactly_sparse(saved)
        assert sum(weight.zeros for weight in weights_of(saved)) > 0
    assert_exactly_sparse(model)


def test_frozen_layers_are_pruned_too():
    plain = small_cnn()
    plain.layers[0].trainable = False
    model = tfprune.prune_low_magnitude(plain, schedule())
    assert not model.layers[0].trainable
    model.compile("adam", "mse")
    fit(model)
    assert_at(model, 0.8)
    status = {row.layer: row.status for row in tfprune.sparsity_report(model).rows}
    assert status[plain.layers[0].name] == "pruned, frozen"


def test_predict_writes_nothing():
    model = tfprune.prune_low_magnitude(small_cnn(), tfprune.ConstantSparsity(0.5, 0))
    before = [ops.convert_to_numpy(variable).copy() for variable in model.weights]
    model.predict(data()[0], verbose=0)
    for old, variable in zip(before, model.weights, strict=True):
        np.testing.assert_array_equal(old, ops.convert_to_numpy(variable))


def test_a_mask_costs_one_byte_a_weight():
    model = tfprune.prune_low_magnitude(small_cnn(), schedule())
    for weight in weights_of(model):
        assert ops.convert_to_numpy(weight.mask).nbytes == weight.size


def test_gradients_reach_pruned_weights():
    import tensorflow as tf

    model = tfprune.prune_low_magnitude(small_cnn(), tfprune.ConstantSparsity(0.5, 0))
    tfprune.UpdatePruningStep(model)
    x, y = data()
    with tf.GradientTape() as tape:
        loss = tf.reduce_mean((model(x) - y) ** 2)
    kernel = weights_of(model)[-1]
    gradient = tape.gradient(loss, kernel.variable.value).numpy()
    assert np.count_nonzero(gradient[~ops.convert_to_numpy(kernel.mask)]) > 0
