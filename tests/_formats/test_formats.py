"""Every file format: written, opened in its runtime, and run on any batch and number of threads."""

import os

import keras
import numpy as np
import pytest
from keras import layers

from tfprune._formats import processors
from tfprune._formats.base import TensorSpec, WriteOptions
from tfprune._formats.examples import random_inputs
from tfprune._formats.table import FORMATS, by_suffix, opened

# PyTorch alone writes its programs; it has none of TensorFlow's formats.
HERE = ("keras", "torch") if keras.backend.backend() == "torch" else tuple(FORMATS)[:-1]


@pytest.fixture(scope="module")
def model():
    keras.utils.set_random_seed(1)
    one, two = keras.Input((5,), name="b"), keras.Input((3,), name="a")
    x = layers.Dense(6, activation="relu")(one)
    y = layers.Concatenate()([x, layers.Dense(6)(two)])
    return keras.Model([one, two], [layers.Dense(2, name="z")(y), layers.Dense(3, name="y")(x)])


@pytest.fixture(scope="module")
def files(model, tmp_path_factory):
    folder = tmp_path_factory.mktemp("formats")
    inputs = [np.ones((2, 5), "float32"), np.ones((2, 3), "float32")]
    paths = {}
    for name in HERE:
        format = FORMATS[name]
        paths[name] = folder / f"{name}{format.suffix}"
        format.write(model, paths[name], WriteOptions(), inputs)
    return paths


@pytest.mark.parametrize("name", HERE)
def test_a_file_computes_what_the_model_computes_on_batches_of_any_size(name, model, files):
    session = opened(files[name], threads=1)
    assert session.runtime == FORMATS[name].runtime and session.threads == 1
    assert [(spec.shape, spec.dtype) for spec in session.inputs] == [
        ((None, 5), "float32"),
        ((None, 3), "float32"),
    ]
    for batch in (3, 1, 3):
        inputs = random_inputs(session, batch)
        truth = [keras.ops.convert_to_numpy(array) for array in model(inputs)]
        with session.confined():
            found = session.run(inputs)
        for array, expected in zip(found, truth, strict=True):
            np.testing.assert_allclose(array, expected, rtol=1e-5, atol=1e-5)
    session.close()


@pytest.mark.parametrize("name", FORMATS)
def test_each_format_is_found_by_what_its_files_end_with(name):
    assert by_suffix(FORMATS[name].suffix) is FORMATS[name] and FORMATS[name].name == name


def test_a_live_model_is_opened_too(model):
    session = opened(model)
    assert session.inputs == [
        TensorSpec("b", (None, 5), "float32"),
        TensorSpec("a", (None, 3), "float32"),
    ]
    session.run(random_inputs(session, 2))
    assert model.predict_function is not None
    session.close()
    assert model.predict_function is None


@pytest.mark.skipif(not processors.can_keep(), reason="needs Linux")
def test_processors_are_given_back():
    before = os.sched_getaffinity(0)
    with processors.kept_to(1):
        assert os.sched_getaffinity(0) == {min(before)}
    assert os.sched_getaffinity(0) == before
    with processors.kept_to(None):
        assert os.sched_getaffinity(0) == before


def test_what_cannot_be_opened(tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "model.h5").touch()
    for path, message in (
        ("missing.onnx", "does not exist"),
        ("empty", r"ends with \.keras, \.onnx, \.tflite"),
        ("model.h5", "model.h5"),
    ):
        with pytest.raises(ValueError, match=message):
            opened(tmp_path / path)
    with pytest.raises(TypeError, match="Keras 3"):
        opened(3)
