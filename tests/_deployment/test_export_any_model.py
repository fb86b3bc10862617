"""Exports of models of every kind: of custom classes, in half precision, with texts as inputs."""

import keras
import numpy as np
import pytest
from keras import layers

import tfprune
from tfprune import _keras
from tfprune._formats.table import FORMATS, opened

PATHS = ("model.keras", "folder", "model.onnx", "model.tflite")


@keras.saving.register_keras_serializable(package="test_export")
class Own(keras.Model):
    """A model whose call is code."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.hidden = layers.Dense(8, activation="relu")
        self.out = layers.Dense(3)

    def call(self, inputs):
        return self.out(self.hidden(inputs))


def dense_layers(model, x):
    """What two dense layers compute, in plain NumPy."""
    kernel, bias, last, offset = (np.asarray(w, "float32") for w in model.get_weights())
    return np.maximum(x @ kernel + bias, 0) @ last + offset


@pytest.mark.parametrize("path", PATHS)
def test_a_model_of_its_own_class_is_exported_by_the_shape_it_was_built_for(path, tmp_path):
    model = Own()
    model(np.zeros((2, 5), "float32"))
    exported = tfprune.export(model, tmp_path / path)
    x = np.random.default_rng(0).normal(size=(4, 5)).astype("float32")
    session = opened(exported.path)
    (found,) = session.run([x])
    session.close()
    np.testing.assert_allclose(found, dense_layers(model, x), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("half", "path"),
    [
        ("float16", "model.tflite"),
        ("float16", "model.onnx"),
        ("bfloat16", "model.onnx"),
    ],
)
def test_a_model_in_half_precision_runs_in_float32_elsewhere(half, path, tmp_path):
    stack = [layers.Dense(8, activation="relu", dtype=f"mixed_{half}"), layers.Dense(3)]
    model = keras.Sequential([keras.Input((5,)), *stack])
    before = model.get_weights()
    exported = tfprune.export(model, tmp_path / path)
    x = np.random.default_rng(0).normal(size=(4, 5)).astype("float32")
    (found,) = opened(exported.path).run([x])
    # It computes in float32, so more exactly than the model itself.
    np.testing.assert_allclose(found, dense_layers(model, x), rtol=1e-4, atol=1e-5)
    assert model.layers[0].compute_dtype == half
    for one, other in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)
    plain = keras.Sequential([keras.Input((5,)), layers.Dense(3)])
    assert _keras.in_float32(plain) is plain and not _keras.computes_in_half(plain)


@pytest.mark.parametrize("given", [None, np.array([["a"], ["other"]])])
def test_a_model_that_reads_texts_becomes_a_saved_model(given, tmp_path):
    words = keras.Input((1,), dtype="string")
    x = layers.Embedding(4, 3)(layers.StringLookup(vocabulary=["a", "b"])(words))
    model = keras.Model(words, layers.Dense(2)(x))
    exported = tfprune.export(model, tmp_path / "folder", data=given)
    texts = np.array([["b"], ["a"], ["c"]], object)
    (found,) = opened(exported.path).run([texts])
    vectors, kernel, bias = model.get_weights()
    # Index 0 means a word that is not in the vocabulary.
    expected = vectors[[2, 1, 0]][:, None] @ kernel + bias
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("format", ["saved_model", "onnx", "litert"])
def test_a_backend_that_cannot_write_a_format_is_told_where_it_can(format, tmp_path, monkeypatch):
    def refuses(*arguments):
        raise ImportError("This requires another module.\nInstall it.")

    monkeypatch.setattr(FORMATS[format], "write", refuses)
    monkeypatch.setattr(_keras, "backend", lambda: "jax")
    model = keras.Sequential([keras.Input((5,)), layers.Dense(3)])
    wanted = r"=jax, where.*another module.*load the stripped \.keras file under KERAS_BACKEND=tens"
    with pytest.raises(ValueError, match=wanted):
        tfprune.export(model, tmp_path / f"model{FORMATS[format].suffix}")
    assert list(tmp_path.iterdir()) == []
