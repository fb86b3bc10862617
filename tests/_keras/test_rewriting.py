"""Values that NumPy writes into a variable's new memory."""

import keras
import numpy as np
import pytest

from tfprune import _keras

on_tensorflow = pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="other backends are left alone"
)


def halved(old, new):
    np.multiply(old, old.dtype.type(0.5), out=new)


@on_tensorflow
@pytest.mark.parametrize("dtype", ["float16", "float32", "bfloat16"])
def test_the_variable_has_the_new_value(dtype):
    value = np.arange(15, dtype="float32").reshape(3, 5)
    variable = keras.Variable(value, dtype=dtype)
    before = variable.value.read_value()
    assert _keras.rewrite(variable, halved)
    np.testing.assert_array_equal(np.asarray(variable.numpy(), "float32"), value / 2)
    # A tensor that was read earlier still holds what it read.
    np.testing.assert_array_equal(np.asarray(before.numpy(), "float32"), value)
    # What is added later does not reach the old value either.
    variable.assign_add(np.ones((3, 5)))
    np.testing.assert_array_equal(np.asarray(variable.numpy(), "float32"), value / 2 + 1)


@on_tensorflow
def test_an_error_changes_nothing():
    variable = keras.Variable(np.ones((2, 2), "float32"))

    def fails(old, new):
        new[...] = 5
        raise ValueError("while writing")

    with pytest.raises(ValueError, match="while writing"):
        _keras.rewrite(variable, fails)
    np.testing.assert_array_equal(variable.numpy(), 1)


@on_tensorflow
def test_the_old_value_is_read_only():
    variable = keras.Variable(np.ones((2, 2), "float32"))
    with pytest.raises(ValueError, match="read-only"):
        _keras.rewrite(variable, lambda old, new: old.fill(3))


@on_tensorflow
def test_replicas_and_graphs_are_left_to_the_backend():
    import tensorflow as tf

    with tf.distribute.MirroredStrategy(["CPU:0"]).scope():
        mirrored = keras.Variable(np.ones((2, 2), "float32"))
    assert not _keras.rewrite(mirrored, halved)
    variable = keras.Variable(np.ones((2, 2), "float32"))
    said = []

    @tf.function
    def traced():
        said.append(_keras.rewrite(variable, halved))
        return tf.zeros(())

    traced()
    assert said == [False]
    np.testing.assert_array_equal(variable.numpy(), 1)


@pytest.mark.skipif(keras.backend.backend() == "tensorflow", reason="TensorFlow takes part")
def test_other_backends_are_left_alone():
    variable = keras.Variable(np.ones((2, 2), "float32"))
    assert not _keras.rewrite(variable, halved)
    np.testing.assert_array_equal(keras.ops.convert_to_numpy(variable), 1)
