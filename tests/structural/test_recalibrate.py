"""Statistics of BatchNormalization, against NumPy."""

import keras
import numpy as np
import pytest
from keras import layers
from structural_support import randomize

import tfprune
from tfprune._updates.passes import mean_statistics
from tfprune._updates.recalibration import Recalibration


def model_with(dropout=0.0):
    inputs = keras.Input((3,))
    x = layers.Dense(4, name="dense")(inputs)
    x = layers.BatchNormalization(name="norm")(x)
    x = layers.Dropout(dropout)(layers.ReLU()(x))
    return randomize(keras.Model(inputs, layers.BatchNormalization(name="last")(x)))


def test_statistics_are_means_over_the_batches():
    model = model_with()
    x = np.random.default_rng(0).normal(2, 3, (12, 3)).astype("float32")
    before = model.get_weights()
    new = tfprune.recalibrate(model, x, batch_size=4)
    kernel, bias = model.get_layer("dense").get_weights()
    hidden = (x @ kernel + bias).reshape(3, 4, 4)
    norm = new.get_layer("norm")
    np.testing.assert_allclose(norm.moving_mean, hidden.mean(axis=1).mean(axis=0), 1e-4, 1e-5)
    np.testing.assert_allclose(norm.moving_variance, hidden.var(axis=1).mean(axis=0), 1e-4, 1e-5)
    for old, same in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, same)
    for name in ("gamma", "beta"):
        ours, truth = getattr(norm, name), getattr(model.get_layer("norm"), name)
        np.testing.assert_array_equal(ours, truth)
    assert norm.momentum == model.get_layer("norm").momentum and not new.compiled


def test_later_layers_see_what_training_shows_them():
    """The second BatchNormalization follows the first one's batch statistics."""
    model = model_with()
    x = np.random.default_rng(0).normal(2, 3, (8, 3)).astype("float32")
    new = tfprune.recalibrate(model, (x, np.zeros((8, 4))), 8)
    kernel, bias = model.get_layer("dense").get_weights()
    hidden = x @ kernel + bias
    gamma, beta = (w.numpy() for w in model.get_layer("norm").weights[:2])
    normal = (hidden - hidden.mean(axis=0)) / np.sqrt(hidden.var(axis=0) + 1e-3)
    seen = np.maximum(normal * gamma + beta, 0)
    np.testing.assert_allclose(new.get_layer("last").moving_mean, seen.mean(axis=0), 1e-4, 1e-5)


def test_each_call_of_a_shared_layer_counts_alike():
    one, two = keras.Input((3,)), keras.Input((3,))
    norm = layers.BatchNormalization(name="norm")
    model = keras.Model([one, two], layers.Add()([norm(one), norm(two)]))
    x = [np.random.default_rng(seed).normal(seed, 2, (8, 3)).astype("float32") for seed in (1, 5)]
    means = np.mean([batch.mean(axis=0) for part in x for batch in np.split(part, 2)], axis=0)
    variances = np.mean([batch.var(axis=0) for part in x for batch in np.split(part, 2)], axis=0)
    new = tfprune.recalibrate(model, (x,), batch_size=4).get_layer("norm")
    np.testing.assert_allclose(new.moving_mean, means, 1e-4)
    np.testing.assert_allclose(new.moving_variance, variances, 1e-4)
    Recalibration(model, (x,), batches=2, batch_size=4)()
    np.testing.assert_allclose(norm.moving_mean, means, 1e-4)
    np.testing.assert_allclose(norm.moving_variance, variances, 1e-4)
    with mean_statistics([norm]):
        norm(x[0], training=False)
        norm(x[1], training=True)
    np.testing.assert_allclose(norm.moving_mean, x[1].mean(axis=0), 1e-4)


def test_frozen_layers_and_random_states_stay():
    model = model_with(0.5)
    model.get_layer("norm").trainable = False
    x = np.ones((8, 3), "float32")
    new = tfprune.recalibrate(model, x)
    for old, same in zip(
        model.get_layer("norm").weights, new.get_layer("norm").weights, strict=True
    ):
        np.testing.assert_array_equal(old, same)
    assert (new.get_layer("last").moving_mean.numpy() != model.layers[-1].moving_mean).any()
    np.testing.assert_array_equal(
        *(
            keras.ops.convert_to_numpy(
                next(s.seed_generator.state for s in m.layers if hasattr(s, "seed_generator"))
            )
            for m in (model, new)
        )
    )


def test_what_cannot_be_recalibrated_is_refused():
    with pytest.raises(ValueError, match="BatchNormalization"):
        tfprune.recalibrate(keras.Sequential([keras.Input((3,)), layers.Dense(2)]), np.ones((2, 3)))
    with pytest.raises(ValueError, match="no weights yet"):
        tfprune.recalibrate(keras.Sequential([layers.BatchNormalization()]), np.ones((2, 3)))
    with pytest.raises(TypeError, match="Keras 3"):
        tfprune.recalibrate(3, np.ones((2, 3)))
    model = keras.Sequential([keras.Input((3,)), layers.BatchNormalization()])
    with pytest.raises(ValueError, match=r"Expected inputs that fit model .*\(2, 5\)"):
        tfprune.recalibrate(model, np.ones((2, 5)))
    with pytest.raises(ValueError, match=r"Expected data that fit takes.*float64"):
        tfprune.recalibrate(model, np.float64(0.5))
    with pytest.raises(ValueError, match=r"Expected data that fit takes.*list"):
        tfprune.recalibrate(model, [])
    with pytest.raises(TypeError, match="Expected `batch_size` to be a whole number"):
        tfprune.recalibrate(model, np.ones((2, 3)), 0.5)
    with pytest.raises(ValueError, match="Expected `batch_size` to be at least 1"):
        tfprune.recalibrate(model, np.ones((2, 3)), 0)
    with pytest.raises(ValueError, match=r"Expected `data` to recalibrate on\. Received: no batch"):
        Recalibration(model, np.ones((0, 3)), batches=1, batch_size=2)
