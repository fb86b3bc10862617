"""The reason in errors of Keras and TensorFlow, made by the libraries themselves."""

import keras
import numpy as np
import pytest

from tfprune._base.validation import first_line


def error_of(function, *arguments):
    with pytest.raises(Exception) as caught:
        function(*arguments)
    return caught.value


def test_keras_prints_it_below_the_layer_that_was_called():
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])
    error = error_of(model, np.zeros((2, 3)))
    assert str(error).startswith("Exception encountered when calling Sequential.call()")
    assert "incompatible with the layer" in first_line(error) and "(2, 3)" in first_line(error)


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="tf.function's errors")
def test_tensorflow_prints_it_below_the_stack():
    import tensorflow as tf

    dense = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])

    @tf.function
    def call(x):
        return dense(x)

    @tf.function
    def fail():
        raise ValueError("The second line.\nThe third one.")

    error = error_of(call, tf.zeros((2, 3)))
    assert str(error).startswith("in user code:")
    assert "incompatible with the layer" in first_line(error)
    assert first_line(error_of(fail)) == "The second line."


def test_other_errors_give_their_first_line():
    assert first_line(ValueError("\n One.\nTwo")) == "One."
    assert first_line(KeyError()) == "KeyError"
