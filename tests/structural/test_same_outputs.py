"""The check that a smaller model computes the same, on random inputs."""

import keras
import numpy as np
import pytest
from keras import layers

from tfprune.structural.same_outputs import check_same, difference


@keras.saving.register_keras_serializable(package="same_outputs")
class Failing(layers.Layer):
    """Fails when it runs, but not while a model is built."""

    def call(self, inputs):
        raise RuntimeError("It reads channel 7.\nMore lines.")

    def compute_output_shape(self, input_shape):
        return input_shape


def model(*others):
    dense = layers.Dense(3, kernel_initializer="ones")
    return keras.Sequential([keras.Input((None, 4)), dense, *others])


def test_equal_outputs_pass():
    assert difference(model(), model()) == 0
    check_same(model(), model(), [])


@pytest.mark.parametrize(
    ("other", "received"),
    [
        (layers.Rescaling(1.5), r"outputs that differ by 0\.5 of the largest"),
        (layers.Dense(2), "outputs that differ by inf of the largest"),
        (Failing(), "the error 'It reads channel 7.'"),
    ],
)
def test_other_outputs_or_a_failure_raise(other, received):
    message = rf"without the silent channels. Received: {received}, from code of ReLU"
    with pytest.raises(ValueError, match=message):
        check_same(model(), model(other), [layers.ReLU(), layers.ReLU()])


def test_a_model_that_fails_on_random_inputs_passes():
    check_same(model(Failing()), model(), [])


def test_nan_passes():
    check_same(model(layers.Rescaling(np.nan)), model(layers.Rescaling(np.nan)), [])
