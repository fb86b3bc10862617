"""Projection of values outside of a model's variables, as JAX's `fit` carries them."""

import keras
import numpy as np
import pytest

import tfprune
from tfprune._wrapping.wrapper import pruned_weights
from tfprune.callbacks.projection import Projection, mask_averages


@pytest.fixture
def model():
    keras.utils.set_random_seed(3)
    layers = [keras.Input((6,)), keras.layers.Dense(5, name="a"), keras.layers.Dense(4, name="b")]
    model = tfprune.prune_low_magnitude(keras.Sequential(layers), tfprune.ConstantSparsity(0.5, 0))
    tfprune.UpdatePruningStep(model)
    return model


def masks(model):
    return [keras.ops.convert_to_numpy(weight.mask) for weight in pruned_weights(model)]


def test_values_are_projected_with_the_masks_among_the_others(model):
    trainable = [np.full(v.shape, 7.0, "float32") for v in model.trainable_variables]
    others = [keras.ops.convert_to_numpy(v) for v in model.non_trainable_variables]
    kernel_a, bias_a, kernel_b, bias_b = map(
        keras.ops.convert_to_numpy, Projection(model)(trainable, others)
    )
    for kernel, mask in zip((kernel_a, kernel_b), masks(model), strict=True):
        np.testing.assert_array_equal(kernel, np.where(mask, 7.0, 0.0))
    assert (bias_a == 7).all() and (bias_b == 7).all()


def test_the_masks_are_those_of_the_values_not_of_the_model(model):
    trainable = [np.full(v.shape, 7.0, "float32") for v in model.trainable_variables]
    others = [keras.ops.convert_to_numpy(v) for v in model.non_trainable_variables]
    others = [np.ones_like(value) if value.dtype == bool else value for value in others]
    projected = Projection(model)(trainable, others)
    assert all((keras.ops.convert_to_numpy(value) == 7).all() for value in projected)


def test_a_frozen_layer_is_left_alone(model):
    model.layers[0].trainable = False
    trainable = [np.full(v.shape, 7.0, "float32") for v in model.trainable_variables]
    others = [keras.ops.convert_to_numpy(v) for v in model.non_trainable_variables]
    kernel, bias = map(keras.ops.convert_to_numpy, Projection(model)(trainable, others))
    np.testing.assert_array_equal(kernel, np.where(masks(model)[1], 7.0, 0.0))
    assert (bias == 7).all()


def test_averages_are_projected_too(model):
    optimizer = keras.optimizers.SGD(0.1, use_ema=True, ema_momentum=0.5)
    optimizer.build(model.trainable_variables)
    weights = pruned_weights(model)
    mask_averages(optimizer, weights)
    for weight in weights:
        average = weight.constraint.average
        average.assign(np.full(average.shape, 3.0, "float32"))
        weight.project()
        mask = keras.ops.convert_to_numpy(weight.mask)
        np.testing.assert_array_equal(keras.ops.convert_to_numpy(average), np.where(mask, 3.0, 0.0))
    mask_averages(None, weights)
    assert all(weight.constraint.average is None for weight in weights)
