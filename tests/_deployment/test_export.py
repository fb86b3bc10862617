"""Exports: each file is run in its own runtime, and what was there stays if anything is wrong."""

import importlib
import importlib.util
import inspect
import json

import keras
import numpy as np
import pytest
from keras import layers

import tfprune
from tfprune._formats.table import FORMATS, by_suffix

# By its name in the package, it is the function.
exporting = importlib.import_module("tfprune._deployment.exporting")
# Keras 3.10 writes opset 15 whatever is asked for.
CHOOSES_OPSET = "opset_version" in inspect.signature(keras.src.export.export_onnx).parameters


def image_model():
    inputs = keras.Input((12, 12, 3))
    x = layers.Conv2D(16, 3, activation="relu", name="conv")(inputs)
    x = layers.BatchNormalization()(x)
    x = layers.GlobalAveragePooling2D()(layers.Conv2D(32, 3, activation="relu", name="wide")(x))
    return keras.Model(inputs, layers.Dense(4, name="out")(x))


def several():
    one, two = keras.Input((5,), name="b"), keras.Input((3,), name="a")
    x = layers.Dense(6, activation="relu")(one)
    y = layers.Concatenate()([x, layers.Dense(6)(two)])
    return keras.Model([one, two], [layers.Dense(2, name="z")(y), layers.Dense(3, name="y")(x)])


def by_name():
    one, two = keras.Input((5,), name="one"), keras.Input((5,), name="two")
    x, y = layers.Dense(6)(one), layers.Dense(6)(two)
    return keras.Model({"one": one, "two": two}, {"sum": x + y, "less": x - y})


MODELS = {"images": image_model, "several": several, "by name": by_name}
PATHS = ("model.keras", "folder", "model.onnx", "model.tflite")


def pruned(build, **parts):
    keras.utils.set_random_seed(3)
    schedule = tfprune.ConstantSparsity.one_shot(0.5)
    model = tfprune.prune_low_magnitude(build(), schedule, **parts)
    tfprune.UpdatePruningStep(model)
    return model


def images(number=16):
    return np.random.default_rng(0).normal(size=(number, 12, 12, 3)).astype("float32")


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("name", MODELS)
def test_every_format_is_run_in_its_runtime(name, path, tmp_path):
    model = pruned(MODELS[name])
    exported = tfprune.export(model, tmp_path / path)
    assert exported.path == tmp_path / path and exported.path.exists()
    assert exported.relative <= 1e-5
    files = [f for f in [exported.path, *exported.path.rglob("*")] if f.is_file()]
    assert exported.bytes == sum(f.stat().st_size for f in files) > 0
    assert [f.name for f in tmp_path.iterdir()] == [path]


def test_files_load_without_tfprune(tmp_path):
    import onnxruntime
    import tensorflow as tf
    from ai_edge_litert.interpreter import Interpreter

    model, x = pruned(image_model), images(2)
    truth = tfprune.strip_pruning(model).predict(x, verbose=0)
    for path in PATHS:
        tfprune.export(model, tmp_path / path)
    found = [keras.saving.load_model(tmp_path / "model.keras").predict(x, verbose=0)]
    assert "tfprune" not in json.dumps(
        keras.saving.load_model(tmp_path / "model.keras").get_config(), default=str
    )
    loaded = tf.saved_model.load(str(tmp_path / "folder"))
    found.append(loaded.serve(x).numpy())
    session = onnxruntime.InferenceSession(str(tmp_path / "model.onnx"))
    found.append(session.run(None, {session.get_inputs()[0].name: x})[0])
    interpreter = Interpreter(str(tmp_path / "model.tflite"))
    interpreter.resize_tensor_input(interpreter.get_input_details()[0]["index"], x.shape)
    interpreter.allocate_tensors()
    interpreter.set_tensor(interpreter.get_input_details()[0]["index"], x)
    interpreter.invoke()
    found.append(interpreter.get_tensor(interpreter.get_output_details()[0]["index"]))
    for array in found:
        np.testing.assert_allclose(array, truth, rtol=1e-4, atol=1e-5)


def constants(path):
    """`(scale, zero point, array)` of all tensors that a LiteRT file holds as constants."""
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(str(path), experimental_preserve_all_tensors=True)
    interpreter.allocate_tensors()
    for entry in interpreter.get_tensor_details():
        zero = entry["quantization_parameters"]["zero_points"]
        try:
            yield zero, interpreter.get_tensor(entry["index"])
        except ValueError:
            continue


def every_kernel():
    """Kernels of all kinds, large enough that the converter takes each for worth quantizing."""
    inputs = keras.Input((12, 12, 3))
    x = layers.Conv2D(48, 3, activation="relu", name="conv")(inputs)
    x = layers.DepthwiseConv2D(5, depth_multiplier=2, name="depthwise")(x)
    x = layers.Conv2D(40, 1, activation="relu", name="point")(x)
    x = layers.Dense(64, activation="relu", name="wide")(layers.GlobalAveragePooling2D()(x))
    return keras.Model(inputs, layers.Dense(24, name="out")(x))


def as_in_litert(layer):
    """A layer's kernel in the order in which LiteRT stores it."""
    kernel = keras.ops.convert_to_numpy(layer.kernel)
    if isinstance(layer, layers.DepthwiseConv2D):
        return kernel.reshape(1, *kernel.shape[:2], -1)
    return np.moveaxis(kernel, -1, 0)


@pytest.mark.parametrize("quantize", ["dynamic", "int8"])
def test_pruned_weights_stay_zero_in_8_bits(quantize, tmp_path):
    model = pruned(every_kernel, rules=tfprune.Rule(layers.DepthwiseConv2D))
    tfprune.export(model, tmp_path / "model.tflite", quantize=quantize, data=images())
    found = [(zero, a) for zero, a in constants(tmp_path / "model.tflite") if a.dtype == np.int8]
    kernels = [layer for layer in tfprune.strip_pruning(model).layers if hasattr(layer, "kernel")]
    assert len(kernels) == 5
    for layer in kernels:
        expected = as_in_litert(layer)
        # Exactly one tensor has this shape and these signs: large weights keep theirs.
        large = np.abs(expected) > 0.2 * np.abs(expected).max()
        alike = [
            (zero, array)
            for zero, array in found
            if array.shape == expected.shape
            and (np.sign(array)[large] == np.sign(expected)[large]).all()
        ]
        ((zero, array),) = alike
        assert not np.any(zero), layer.name
        assert np.mean(expected == 0) == 0.5
        assert not array[expected == 0].any(), layer.name


def onnx_weights(path):
    """Weights of an ONNX file as they are computed with, from their 8 bits, by shape."""
    import onnx
    from onnx import numpy_helper

    graph = onnx.load(str(path)).graph
    arrays = {entry.name: numpy_helper.to_array(entry) for entry in graph.initializer}
    for name, array in arrays.items():
        stem = name.removesuffix("_quantized")
        if array.dtype.itemsize == 1 and stem != name:
            zero = arrays[f"{stem}_zero_point"].astype(int)
            assert not (array.dtype == np.int8 and zero.any())
            # Only symmetric weights have a scale for each channel.
            yield array.astype(int) - (zero if zero.ndim == 0 else 0)


@pytest.mark.parametrize("quantize", ["dynamic", "int8"])
def test_pruned_weights_stay_zero_in_8_bits_of_onnx(quantize, tmp_path):
    model = pruned(every_kernel)
    plain = tfprune.export(model, tmp_path / "plain.onnx")
    exported = tfprune.export(model, tmp_path / "m.onnx", quantize=quantize, data=images())
    assert exported.runtime == "ONNX Runtime" and exported.relative < 0.1
    assert exported.bytes < 0.6 * plain.bytes
    found = list(onnx_weights(tmp_path / "m.onnx"))
    for name in ("conv", "point", "wide", "out"):
        kernel = keras.ops.convert_to_numpy(tfprune.strip_pruning(model).get_layer(name).kernel)
        expected = kernel if kernel.ndim == 2 else kernel.transpose(3, 2, 0, 1)
        large = np.abs(expected) > 0.3 * np.abs(expected).max()
        (array,) = [
            array
            for array in found
            if array.shape == expected.shape
            and (np.sign(array)[large] == np.sign(expected)[large]).all()
        ]
        assert np.mean(expected == 0) == 0.5 and not array[expected == 0].any(), name


def test_pruned_weights_stay_zero_when_keras_quantizes():
    inputs = keras.Input((6, 12))
    x = layers.EinsumDense("abc,cd->abd", output_shape=(6, 10), name="einsum")(inputs)
    x = layers.Dense(16, activation="relu", name="wide")(layers.Flatten()(x))
    model = pruned(lambda: keras.Model(inputs, layers.Dense(8, name="out")(x)))
    plain = tfprune.strip_pruning(model)
    before = {name: plain.get_layer(name).kernel.numpy() for name in ("einsum", "wide", "out")}
    with pytest.warns(UserWarning, match="does not have a `quantize` method"):
        plain.quantize("int8")
    for name, kernel in before.items():
        eight = plain.get_layer(name).get_weights()
        (eight,) = [array for array in eight if array.dtype == np.int8]
        assert eight.shape == kernel.shape and np.mean(kernel == 0) == 0.5
        assert not eight[kernel == 0].any(), name
        assert eight.any()


@pytest.mark.parametrize("path", ["model.onnx", "folder"])
def test_the_batch_stays_open(path, tmp_path):
    import onnxruntime
    import tensorflow as tf

    model = pruned(image_model)
    tfprune.export(model, tmp_path / path)
    if path == "folder":
        loaded = tf.saved_model.load(str(tmp_path / path))
        run = lambda x: loaded.serve(x).numpy()  # noqa: E731
    else:
        session = onnxruntime.InferenceSession(str(tmp_path / path))
        assert not isinstance(session.get_inputs()[0].shape[0], int)
        run = lambda x: session.run(None, {session.get_inputs()[0].name: x})[0]  # noqa: E731
    for number in (1, 7):
        truth = tfprune.strip_pruning(model)(images(number))
        np.testing.assert_allclose(run(images(number)), truth, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("opset", [13, 17])
def test_onnx_is_written_in_the_opset_asked_for(opset, tmp_path):
    import onnx

    if not CHOOSES_OPSET:
        with pytest.raises(ValueError, match=f"opset {opset}. Received: a file in opset 15"):
            tfprune.export(pruned(image_model), tmp_path / "model.onnx", opset=opset)
        return
    tfprune.export(pruned(image_model), tmp_path / "model.onnx", opset=opset)
    versions = {e.domain: e.version for e in onnx.load(tmp_path / "model.onnx").opset_import}
    assert versions[""] == opset


def test_an_opset_that_cannot_be_written(tmp_path):
    with pytest.raises(ValueError, match=r"a file in ONNX opset 99.*Nothing was written"):
        tfprune.export(pruned(image_model), tmp_path / "model.onnx", opset=99)
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_litert_cannot_open(tmp_path):
    inputs = keras.Input((8, 8, 128))
    model = pruned(lambda: keras.Model(inputs, layers.Conv2D(128, 1)(inputs)))
    tfprune.export(model, tmp_path / "dense.tflite", quantize="dynamic")
    with pytest.raises(ValueError, match=r"a file that LiteRT can run.*Leave out `sparse`"):
        tfprune.export(model, tmp_path / "model.tflite", quantize="dynamic", sparse=True)
    assert [path.name for path in tmp_path.iterdir()] == ["dense.tflite"]


def test_a_dense_layer_that_the_sparse_encoding_breaks(tmp_path):
    model = keras.Sequential([keras.Input((7,)), layers.Dense(7)])
    kernel = np.random.default_rng(0).normal(size=(7, 7))
    kernel.ravel()[np.argsort(np.abs(kernel), axis=None)[:24]] = 0
    model.layers[0].set_weights([kernel, np.zeros(7)])
    with pytest.raises(ValueError, match=r"Leave out `sparse`.*not a multiple of 4"):
        tfprune.export(model, tmp_path / "model.tflite", sparse=True)
    # Inputs from 4 on make a short block, which is lost: with zeros there, nothing is.
    kernel[4:] = 0
    model.layers[0].set_weights([kernel, np.zeros(7)])
    tfprune.export(model, tmp_path / "model.tflite", sparse=True)


@pytest.mark.parametrize("quantize", ["dynamic", "float16", "int8"])
def test_quantized_files_are_smaller(quantize, tmp_path):
    inputs = keras.Input((64,))
    model = keras.Model(inputs, layers.Dense(8)(layers.Dense(256, activation="relu")(inputs)))
    data = np.random.default_rng(0).normal(size=(32, 64)).astype("float32")
    plain = tfprune.export(model, tmp_path / "plain.tflite")
    small = tfprune.export(model, tmp_path / "small.tflite", quantize=quantize, data=data)
    assert small.bytes < plain.bytes * (0.6 if quantize == "float16" else 0.4)
    assert 0 < small.relative < 0.1


def test_shrunk_on_the_way_out(tmp_path):
    model = pruned(image_model, pattern="filter")
    masked = tfprune.export(model, tmp_path / "masked.onnx")
    small = tfprune.export(model, tmp_path / "small.onnx", shrink=True)
    assert small.bytes < masked.bytes * 0.6
    with pytest.raises(ValueError, match="filter"):
        tfprune.export(pruned(image_model), tmp_path / "no.onnx", shrink=True)


@pytest.mark.parametrize("size", [1, 4])
@pytest.mark.parametrize("path", ["m.keras", "m.tflite", "m.onnx"])
def test_a_fixed_batch_is_one_batch(path, size, tmp_path):
    inputs = keras.Input(batch_shape=(size, 8))
    model = keras.Model(inputs, layers.Dense(3)(inputs))
    x = np.random.default_rng(0).normal(size=(64, 8)).astype("float32")
    for data in (None, x):
        assert tfprune.export(model, tmp_path / path, data=data, verbose=0).relative <= 1e-6


def test_data_of_every_kind(tmp_path):
    model, x = pruned(image_model), images(10)
    import tensorflow as tf

    labelled = (x, np.zeros((10, 4), "float32"))
    for data in (x, labelled, tf.data.Dataset.from_tensor_slices(labelled).batch(4)):
        path = tmp_path / "model.tflite"
        assert tfprune.export(model, path, quantize="int8", data=data).relative < 0.1


# -- Errors ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", PATHS)
def test_a_file_that_computes_something_else_is_not_written(path, tmp_path, monkeypatch):
    model = pruned(image_model)
    before = tfprune.export(model, tmp_path / path)
    stamps = {f: f.stat().st_mtime_ns for f in tmp_path.rglob("*")}
    format = FORMATS[before.format]
    run = format.outputs

    def wrong(*arguments):
        return [array * 1.01 for array in run(*arguments)]

    monkeypatch.setattr(format, "outputs", wrong)
    with pytest.raises(ValueError, match=r"to 0\.001 of the largest output.*Nothing was written"):
        tfprune.export(model, tmp_path / path)
    assert {f: f.stat().st_mtime_ns for f in tmp_path.rglob("*")} == stamps
    assert tfprune.export(model, tmp_path / path, tolerance=0.02).relative > 0.005


@pytest.mark.parametrize("path", PATHS)
def test_a_failed_export_leaves_nothing_behind(path, tmp_path, monkeypatch):
    format = by_suffix("" if path == "folder" else "." + path.split(".")[1])

    def breaks(model, unfinished, *rest):
        unfinished.mkdir() if path == "folder" else unfinished.write_bytes(b"half")
        raise OSError("no space left")

    monkeypatch.setattr(format, "write", breaks)
    with pytest.raises(OSError, match="no space"):
        tfprune.export(pruned(image_model), tmp_path / path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "error, match, path, arguments",
    [
        (ValueError, r"ends with \.keras, \.onnx, \.tflite or \.pt2", "model.h5", {}),
        (ValueError, "format", "model.keras", {"format": "pickle"}),
        (ValueError, r"ends with \.onnx", "model.keras", {"format": "onnx"}),
        (ValueError, "for LiteRT alone", "model.onnx", {"quantize": "float16"}),
        (ValueError, "`sparse` for LiteRT alone", "folder", {"sparse": True}),
        (ValueError, "for ONNX Runtime or LiteRT alone", "model.keras", {"quantize": "int8"}),
        (ValueError, "`data` to find the ranges", "model.onnx", {"quantize": "int8"}),
        (ValueError, "`opset` for ONNX Runtime alone", "model.keras", {"opset": 15}),
        (ValueError, "`opset` to be at least 1", "model.onnx", {"opset": 0}),
        (TypeError, "`opset` to be a whole number", "model.onnx", {"opset": "15"}),
        (ValueError, "quantize", "model.tflite", {"quantize": "int4"}),
        (ValueError, "`data` to find the ranges", "model.tflite", {"quantize": "int8"}),
        (ValueError, "`io_dtype` for LiteRT alone", "model.onnx", {"io_dtype": "int8"}),
        (ValueError, "quantize='int8' where `io_dtype`", "model.tflite", {"io_dtype": "int8"}),
        (ValueError, "io_dtype", "model.tflite", {"quantize": "int8", "io_dtype": "uint8"}),
        (ValueError, "folder that can be written", "nowhere/model.keras", {}),
        (ValueError, "samples", "model.keras", {"samples": 0}),
        (ValueError, "tolerance", "model.keras", {"tolerance": 0}),
        (ValueError, "input shapes of 'functional.*'", "model.keras", {"data": np.ones((4, 3))}),
    ],
)
def test_bad_arguments(error, match, path, arguments, tmp_path):
    with pytest.raises(error, match=match):
        tfprune.export(pruned(image_model), tmp_path / path, **arguments)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_with_something_else_is_left_alone(tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("important")
    with pytest.raises(ValueError, match="holds something else"):
        tfprune.export(pruned(image_model), tmp_path / "mine")
    assert (tmp_path / "mine" / "notes.txt").read_text() == "important"
    (tmp_path / "folder.keras").mkdir()
    with pytest.raises(ValueError, match="the name of a file"):
        tfprune.export(pruned(image_model), tmp_path / "folder.keras")


def test_a_runtime_that_is_missing_is_named(tmp_path, monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "onnxruntime" else find(name)
    )
    with pytest.raises(ImportError, match=r'onnxruntime.*pip install "tfprune\[onnx\]"'):
        tfprune.export(pruned(image_model), tmp_path / "model.onnx")


def test_no_keras_model(tmp_path):
    with pytest.raises(TypeError):
        tfprune.export(lambda x: x, tmp_path / "model.keras")
