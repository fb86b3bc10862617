"""Two of four: which matrices, what the layer computes, and tensor cores where there are any."""

import keras
import numpy as np
import pytest
from keras import layers
from keras_support import outputs
from sparse_support import inputs_of

import tfprune
from tfprune.sparse import forms
from tfprune.sparse.layers.semi_structured import has_semi_structured_kernels, is_semi_structured


def pruned(dtype, units=64, inputs=128):
    """A Dense layer with the two smallest of every four inputs of each unit at zero."""
    random = np.random.default_rng(0)
    layer = layers.Dense(units, dtype=dtype, bias_initializer="ones")
    layer.build((None, inputs))
    kernel = random.normal(size=(units, inputs // 4, 4)) / inputs**0.5
    order = np.abs(kernel).argsort(axis=-1).argsort(axis=-1)
    layer.kernel.assign(np.where(order < 2, 0, kernel).reshape(units, inputs).T)
    return layer


@pytest.mark.parametrize(
    ("row", "fits"),
    [
        ([0, 1, 0, 2], True),
        ([0, 0, 0, 0, 1, 2, 0, 0], True),
        ([1, 2, 3, 0], False),
        ([0, 1, 2, 0, 3], False),
    ],
)
def test_at_least_two_of_four_are_zero(row, fits):
    assert is_semi_structured(np.array([row])) is fits


@pytest.mark.parametrize("dtype", ["mixed_float16", "mixed_bfloat16"])
def test_elsewhere_it_computes_by_compressed_rows(dtype, monkeypatch):
    layer = pruned(dtype)
    assert is_semi_structured(keras.ops.convert_to_numpy(layer.kernel).T)
    if not has_semi_structured_kernels():
        reason = forms.sparse_form(layer, (1, 128))
        assert reason == f"computes in {layer.compute_dtype}, not in float32"
    monkeypatch.setattr(forms, "has_semi_structured_kernels", lambda: True)
    form = forms.sparse_form(layer, (1, 128))
    assert isinstance(form, tfprune.sparse.SemiStructuredDense)
    x = inputs_of(5, (128,))
    found, expected = (outputs(side, x).astype("float32") for side in (form, layer))
    # Eight bits of bfloat16, and one of the sum with the bias.
    np.testing.assert_allclose(found, expected, atol=2**-7 * np.abs(expected).max())
    assert keras.backend.standardize_dtype(form(x).dtype) == layer.compute_dtype
    again = type(form).from_config(form.get_config())
    assert again.get_config() == form.get_config()


@pytest.mark.skipif(not has_semi_structured_kernels(), reason="needs PyTorch and an NVIDIA GPU")
def test_tensor_cores_compute_the_same():
    layer = pruned("mixed_float16")
    form = forms.sparse_form(layer, (1, 128))
    x = inputs_of(64, (128,))
    found, expected = (outputs(side, x).astype("float32") for side in (form, layer))
    np.testing.assert_allclose(found, expected, atol=2**-9 * np.abs(expected).max())
