"""Every pruned weight is +0 after every optimizer step, whatever trains the model."""

import keras
import numpy as np
import pytest
from keras import layers, ops
from keras_support import muon, outputs

import tfprune
from tfprune._updates.mask_update import MaskUpdate
from tfprune._wrapping.wrapper import mask_owners

SAMPLES, BATCH = 48, 8
STEPS = SAMPLES // BATCH


def data(seed=0):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(SAMPLES, 8, 8, 1)).astype("float32")
    return x, rng.normal(size=(SAMPLES, 5)).astype("float32")


def small_cnn():
    keras.utils.set_random_seed(3)
    return keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            layers.Conv2D(6, 3, activation="relu"),
            layers.BatchNormalization(),
            layers.Flatten(),
            layers.Dropout(0.3, seed=1),
            layers.Dense(7, activation="relu"),
            layers.Dense(5),
        ]
    )


def schedule(end=2 * STEPS, frequency=2):
    return tfprune.PolynomialDecay(0.0, 0.8, begin_step=0, end_step=end, frequency=frequency)


def weights_of(model):
    return [weight for owner in mask_owners(model) for weight in owner.pruned_weights]


def assert_exactly_sparse(model):
    for weight in weights_of(model):
        value, mask = (ops.convert_to_numpy(v) for v in (weight.variable, weight.mask))
        assert not value[~mask].any()
        assert not np.signbit(value[~mask].astype("float32")).any()


def kept(size, sparsity):
    return max(1, round(size * (1 - sparsity)))


def assert_at(model, sparsity):
    for weight in weights_of(model):
        mask = ops.convert_to_numpy(weight.mask)
        assert mask.sum() == kept(mask.size, sparsity), weight.path


class Watch(keras.callbacks.Callback):
    """Looks at the weights after every batch."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def on_train_batch_end(self, batch, logs=None):
        assert_exactly_sparse(self.model)
        self.seen.append(sum(weight.zeros for weight in weights_of(self.model)))


def fit(model, epochs=2, callbacks=(), **kwargs):
    x, y = data()
    # The watch stands on both sides: the order of callbacks must not matter.
    watches = [Watch(), Watch()]
    history = model.fit(
        x,
        y,
        batch_size=BATCH,
        epochs=epochs,
        verbose=0,
        shuffle=False,
        callbacks=[watches[0], tfprune.UpdatePruningStep(), *callbacks, watches[1]],
        **kwargs,
    )
    return history, watches[1].seen


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


def test_the_masks_hold_the_schedule_at_every_step():
    model = tfprune.prune_low_magnitude(small_cnn(), schedule(end=11, frequency=3))
    model.compile("adam", "mse")
    due, sparsity = schedule(end=11, frequency=3).evaluate(np.arange(13))
    expected, held = [], 0.0
    sizes = [weight.size for weight in weights_of(model)]
    for step in range(13):
        held = float(str(sparsity[step])) if due[step] else held
        expected.append(sum(size - kept(size, held) for size in sizes))
    _, zeros = fit(model)
    assert zeros == expected[1:]


def test_a_schedule_that_begins_at_zero_prunes_before_the_first_batch():
    model = tfprune.prune_low_magnitude(small_cnn(), tfprune.ConstantSparsity.one_shot(0.5))
    model.compile("adam", "mse")
    x, y = data()
    seen = []

    class Before(keras.callbacks.Callback):
        def on_train_batch_begin(self, batch, logs=None):
            seen.append(sum(weight.zeros for weight in weights_of(self.model)))

    model.fit(x, y, verbose=0, callbacks=[tfprune.UpdatePruningStep(), Before()])
    assert seen[0] == sum(w.size - kept(w.size, 0.5) for w in weights_of(model))


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


@pytest.mark.parametrize("scope", ["global", tfprune.Global(max_sparsity=0.85)])
def test_global_scope(scope):
    model = tfprune.prune_low_magnitude(small_cnn(), schedule(), scope=scope)
    model.compile("adam", "mse")
    fit(model)
    sizes = [weight.size for weight in weights_of(model)]
    zeros = [weight.zeros for weight in weights_of(model)]
    assert sum(zeros) == sum(sizes) - kept(sum(sizes), 0.8)
    assert len({round(z / s, 6) for z, s in zip(zeros, sizes, strict=True)}) > 1
    if scope != "global":
        assert all(z <= s - kept(s, 0.85) for z, s in zip(zeros, sizes, strict=True))


@pytest.mark.parametrize(
    "pattern, sparsity",
    [
        (tfprune.Block((3, 2)), 0.5),
        (tfprune.NOfM(2, 4), 0.5),
        (tfprune.Filter(), 0.5),
        (tfprune.Row(), 0.5),
    ],
)
def test_patterns_hold_through_training(pattern, sparsity):
    keras.utils.set_random_seed(0)
    plain = keras.Sequential(
        [
            keras.Input((8, 8, 4)),
            layers.Conv2D(6, 3, name="conv"),
            layers.Flatten(),
            layers.Dense(5, name="dense"),
        ]
    )
    ramp = tfprune.PolynomialDecay(0.0, sparsity, begin_step=0, end_step=8, frequency=1)
    model = tfprune.prune_low_magnitude(plain, ramp, pattern=pattern)
    model.compile("adam", "mse")
    x = np.random.default_rng(0).normal(size=(SAMPLES, 8, 8, 4)).astype("float32")
    watch = Watch()
    model.fit(
        x,
        data()[1],
        batch_size=BATCH,
        epochs=2,
        verbose=0,
        callbacks=[tfprune.UpdatePruningStep(), watch],
    )
    for weight in weights_of(model):
        mask = ops.convert_to_numpy(weight.mask)
        units = pattern.collapse(mask, weight.axes)
        np.testing.assert_array_equal(pattern.expand(units, mask.shape, weight.axes), mask)
        assert units.sum() == kept(units.size, sparsity)


def test_dense_sparse_dense_gives_the_weights_back():
    ramp = tfprune.DenseSparseDense(0.0, 0.6, begin_step=0, end_step=12, frequency=1)
    model = tfprune.prune_low_magnitude(small_cnn(), ramp)
    model.compile("adam", "mse")
    _, zeros = fit(model)
    peak = zeros.index(max(zeros))
    assert zeros[:peak] == sorted(zeros[:peak]) and zeros[peak:] == sorted(zeros[peak:])[::-1]
    assert max(zeros) == sum(w.size - kept(w.size, 0.6) for w in weights_of(model))
    assert zeros[-1] == 0


def test_non_finite_weights_are_an_error_and_the_masks_stay():
    model = tfprune.prune_low_magnitude(small_cnn(), tfprune.ConstantSparsity(0.5, 0))
    pruning = tfprune.UpdatePruningStep(model)
    before = [ops.convert_to_numpy(weight.mask).copy() for weight in weights_of(model)]
    for position, bad in enumerate((np.nan, np.inf)):
        weight = weights_of(model)[position]
        value = ops.convert_to_numpy(weight.variable).copy()
        value.flat[0] = bad
        weight.variable.assign(value)
        update = MaskUpdate(model)
        with pytest.raises(ValueError, match="finite weights"):
            update.apply([(0.9, w) for w in update.weights])
    del pruning
    for mask, weight in zip(before, weights_of(model), strict=True):
        np.testing.assert_array_equal(mask, ops.convert_to_numpy(weight.mask))


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
