"""Each sparse layer computes what the Keras layer computes, on the active backend.

`KERAS_BACKEND=jax pytest tests/sparse`, likewise torch.
"""

import keras
import numpy as np
import pytest
from keras import layers
from keras_support import outputs
from sparse_support import inputs_of, with_zeros

import tfprune
from tfprune.sparse.forms import sparse_form

# PyTorch has a kernel for one example, for a few, and for many; others for one and for many.
BATCHES = (1, 3, 20) if keras.backend.backend() == "torch" else (1, 3)
CASES = {
    "dense": (layers.Dense(7, "gelu"), (11,)),
    "dense_without_bias": (layers.Dense(7, use_bias=False), (11,)),
    "dense_on_sequences": (layers.Dense(7), (4, 11)),
    "einsum_heads": (layers.EinsumDense("abc,cde->abde", (None, 2, 3), bias_axes="de"), (4, 9)),
    "einsum_output": (layers.EinsumDense("abcd,cde->abe", (None, 5), bias_axes="e"), (4, 2, 3)),
    "einsum_ellipsis": (layers.EinsumDense("...x,xy->...y", 6, bias_axes="y"), (3, 2, 9)),
    "einsum_turned": (layers.EinsumDense("abc,cd->adb", (6, 4), activation="relu"), (4, 9)),
    "einsum_spread_bias": (layers.EinsumDense("abc,cd->adb", (6, 4), bias_axes="d"), (4, 9)),
    "pointwise": (layers.Conv2D(6, 1, strides=2, activation="relu"), (5, 4, 8)),
    "window": (layers.Conv2D(6, 3), (5, 6, 4)),
    "window_same": (layers.Conv2D(6, (3, 2), strides=(2, 1), padding="same"), (7, 6, 4)),
    "window_dilated": (layers.Conv2D(6, 3, dilation_rate=2, padding="same"), (7, 6, 4)),
    "causal": (layers.Conv1D(6, 3, padding="causal", dilation_rate=2), (9, 5)),
    "strided": (layers.Conv1D(6, 4, strides=3, padding="same", use_bias=False), (10, 5)),
    "volume": (layers.Conv3D(5, 2, padding="same"), (3, 4, 2, 3)),
}


@pytest.fixture(params=CASES)
def case(request):
    layer, shape = CASES[request.param]
    layer = type(layer).from_config(layer.get_config())
    layer.build((None, *shape))
    return with_zeros(layer), shape


def test_it_computes_what_the_layer_computes(case):
    layer, shape = case
    form = sparse_form(layer, (1, *shape))
    assert form.name == layer.name and not form.trainable_variables
    for batch in BATCHES:
        x = inputs_of(batch, shape)
        expected = outputs(layer, x)
        assert form.compute_output_shape(x.shape) == expected.shape
        assert np.abs(expected).max() > 0.1
        np.testing.assert_allclose(outputs(form, x), expected, rtol=1e-5, atol=1e-5)


def test_it_works_inside_a_model_whose_batch_is_open(case):
    layer, shape = case
    form = sparse_form(layer, (1, *shape))
    model = keras.Sequential([keras.Input(shape), form])
    x = inputs_of(3, shape)
    np.testing.assert_allclose(model.predict_on_batch(x), outputs(layer, x), rtol=1e-5, atol=1e-5)


def test_a_config_makes_the_same_layer(case):
    layer, shape = case
    form = sparse_form(layer, (1, *shape))
    again = type(form).from_config(form.get_config())
    assert again.get_config() == form.get_config()


def test_it_is_the_product_with_the_transposed_matrix():
    layer = tfprune.sparse.SparseDense(3, nonzeros=3, use_bias=False)
    layer.build((None, 4))
    matrix = np.array([[0, 2, 0, 0], [0, 0, 0, 0], [1, 0, 0, -3]], "float32")
    layer.put(matrix)
    x = inputs_of(5, (4,))
    np.testing.assert_allclose(outputs(layer, x), x @ matrix.T, rtol=1e-6)
    assert np.array_equal(layer.matrix(), matrix)


def test_a_matrix_without_weights_gives_the_bias():
    layer = layers.Dense(4, bias_initializer="ones")
    layer.build((None, 6))
    layer.kernel.assign(np.zeros((6, 4)))
    form = sparse_form(layer, (1, 6))
    assert form.nonzeros == 0
    for batch in BATCHES:
        assert np.array_equal(outputs(form, inputs_of(batch, (6,))), np.ones((batch, 4)))


@pytest.mark.skipif(keras.backend.backend() == "tensorflow", reason="TensorFlow's CPU cannot")
def test_channels_first():
    layer = layers.Conv2D(6, 3, strides=2, padding="same", data_format="channels_first")
    layer.build((None, 4, 7, 6))
    form = sparse_form(with_zeros(layer), (1, 4, 7, 6))
    x = inputs_of(2, (4, 7, 6))
    np.testing.assert_allclose(outputs(form, x), outputs(layer, x), rtol=1e-5, atol=1e-5)


def test_a_file_holds_values_and_places_alone():
    layer = layers.Dense(300)
    layer.build((None, 40))
    form = sparse_form(with_zeros(layer, 0.95), (1, 40))
    store = {}
    form.save_own_variables(store)
    kernel = keras.ops.convert_to_numpy(layer.kernel)
    assert set(store) == {"values", "columns", "counts", "bias"}
    assert np.array_equal(store["values"], kernel.T[kernel.T != 0])
    assert np.array_equal(store["columns"], np.nonzero(kernel.T)[1])
    assert np.array_equal(store["counts"], np.count_nonzero(kernel, axis=0))
    assert store["columns"].dtype == "uint8" and store["counts"].dtype == "uint8"


def test_training_is_refused():
    layer = layers.Dense(4)
    layer.build((None, 6))
    form = sparse_form(with_zeros(layer), (1, 6))
    with pytest.raises(ValueError, match=r"to be used only for prediction.*to_sparse"):
        form(inputs_of(2, (6,)), training=True)


def test_reasons():
    def reason(layer, shape, share=0.9):
        layer.build((None, *shape))
        return sparse_form(with_zeros(layer, share), (1, *shape))

    assert reason(layers.Dense(5), (8,), 0.3) == "fewer than half of the weights are zero"
    assert reason(layers.Conv2D(4, 1, groups=2), (3, 3, 4)).startswith("grouped")
    assert "no product" in reason(layers.EinsumDense("abc,bcd->abd", (4, 5)), (4, 3))
    assert reason(layers.Dense(5, dtype="mixed_bfloat16"), (8,)).startswith("computes in bfloat16")
    assert reason(layers.DepthwiseConv2D(3), (5, 5, 2)) == "no sparse form of DepthwiseConv2D"

    class Doubled(layers.Dense):
        def call(self, inputs):
            return 2 * super().call(inputs)

    assert reason(Doubled(5), (8,)) == "no sparse form of Doubled"
    broken = layers.Dense(2)
    broken.build((None, 4))
    broken.kernel.assign([[0, 0], [0, np.nan], [0, 0], [0, 0]])
    assert sparse_form(broken, (1, 4)) == "has weights that are not finite"


def test_a_quantized_layer_stays_as_it_is():
    layer = layers.Dense(8)
    layer.build((None, 16))
    with_zeros(layer).quantize("int8")
    assert sparse_form(layer, (1, 16)) == "quantized"
