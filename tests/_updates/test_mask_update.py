"""Mask updates in training: the schedule at every step, all masks or none."""

import keras
import numpy as np
import pytest
from keras import layers, ops
from training_support import BATCH, SAMPLES, Watch, data, fit, kept, schedule, small_cnn, weights_of

import tfprune
from tfprune._updates.mask_update import MaskUpdate


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
