"""Files in 8 bits: their inputs and outputs, and the examples that their ranges come from."""

import importlib

import keras
import numpy as np
import pytest
from keras import layers

import tfprune

ranges = importlib.import_module("tfprune._formats.ranges")


def several():
    """A model whose inputs and outputs are not in the order of their names."""
    keras.utils.set_random_seed(2)
    one, two = keras.Input((5,), name="b"), keras.Input((3,), name="a")
    x = layers.Concatenate()([layers.Dense(6, "relu")(one), layers.Dense(6)(two)])
    return keras.Model([one, two], [layers.Dense(2, name="z")(x), layers.Dense(3, name="y")(x)])


def data(number=40):
    random = np.random.default_rng(0)
    return [random.normal(size=(number, 5)), 3 * random.normal(size=(number, 3))]


def interpreter_of(path):
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(str(path))
    interpreter.allocate_tensors()
    return interpreter


def dense():
    keras.utils.set_random_seed(2)
    return keras.Sequential([keras.Input((6,)), layers.Dense(8, "relu"), layers.Dense(4)])


def test_integers_go_in_and_come_out(tmp_path):
    model = dense()
    x = np.random.default_rng(0).normal(size=(40, 6)).astype("float32")
    given = {"quantize": "int8", "data": x}
    exported = tfprune.export(model, tmp_path / "int8.tflite", io_dtype="int8", **given)
    assert 0 < exported.relative < 0.05
    interpreter = interpreter_of(exported.path)
    (taken,), (made,) = interpreter.get_input_details(), interpreter.get_output_details()
    assert taken["dtype"] is made["dtype"] is np.int8
    # By hand, with the scales that the file holds.
    scale, zero = taken["quantization"]
    found = []
    for row in x:
        integers = np.clip(np.round(row / scale) + zero, -128, 127).astype("int8")
        interpreter.set_tensor(taken["index"], integers[None])
        interpreter.invoke()
        found.append(interpreter.get_tensor(made["index"])[0])
    scale, zero = made["quantization"]
    numbers = scale * (np.array(found, "float32") - zero)
    truth = model.predict(x, verbose=0)
    np.testing.assert_allclose(numbers, truth, atol=0.05 * np.abs(truth).max())
    off = np.abs(numbers - truth)[:32].max()
    assert exported.difference == pytest.approx(off, rel=1e-4)
    floats = interpreter_of(tfprune.export(model, tmp_path / "float.tflite", **given).path)
    assert floats.get_input_details()[0]["dtype"] is np.float32


def test_several_inputs_and_outputs_keep_their_order(tmp_path):
    path = tmp_path / "int8.tflite"
    exported = tfprune.export(several(), path, quantize="int8", io_dtype="int8", data=(data(),))
    assert exported.relative < 0.05
    interpreter = interpreter_of(path)
    entries = [*interpreter.get_input_details(), *interpreter.get_output_details()]
    assert len(entries) == 4 and {entry["dtype"] for entry in entries} == {np.int8}


def test_zeros_stay_zero(tmp_path):
    pruned = tfprune.pruners.one_shot(dense(), 0.75)
    x = np.random.default_rng(0).normal(size=(40, 6)).astype("float32")
    given = {"quantize": "int8", "io_dtype": "int8", "data": x}
    path = tfprune.export(pruned, tmp_path / "int8.tflite", **given).path
    interpreter = interpreter_of(path)
    kernels = [
        interpreter.get_tensor(entry["index"])
        for entry in interpreter.get_tensor_details()
        if tuple(entry["shape"]) in {(8, 6), (4, 8)}
    ]
    assert sum((kernel == 0).sum() for kernel in kernels) >= 36 + 24


@pytest.mark.parametrize("suffix", ["tflite", "onnx"])
def test_ranges_come_from_all_of_the_data(suffix, tmp_path):
    x = np.random.default_rng(0).normal(size=(100, 6)).astype("float32")
    # The widest example is one of the last.
    x[90] *= 20
    model, path = dense(), tmp_path / f"model.{suffix}"

    def widest(**options):
        # All else is in the first 32 examples.
        tfprune.export(model, path, quantize="int8", tolerance=9, verbose=0, **options)
        if suffix == "onnx":
            return largest_input(path)
        quantized = [
            entry["quantization"]
            for entry in interpreter_of(path).get_tensor_details()
            if tuple(entry["shape"]) == (1, 6) and entry["quantization"][0]
        ]
        scale, zero = quantized[0]
        return scale * max(127 - zero, zero + 128)

    def largest_input(path):
        import onnx
        from onnx import numpy_helper

        graph = onnx.load(str(path)).graph
        first = next(node for node in graph.node if node.op_type == "QuantizeLinear")
        values = {entry.name: numpy_helper.to_array(entry) for entry in graph.initializer}
        scale, zero = (values[name] for name in first.input[1:3])
        limits = np.iinfo(zero.dtype)
        return float(scale) * max(limits.max - int(zero), int(zero) - limits.min)

    few, everything = np.abs(x[:32]).max(), np.abs(x).max()
    assert widest(data=x) == pytest.approx(everything, rel=0.02)
    assert widest(data=(x, np.zeros(100))) == pytest.approx(everything, rel=0.02)
    assert widest(data=x, samples=32) == pytest.approx(few, rel=0.02)
    assert widest(data=x, samples=91) == pytest.approx(everything, rel=0.02)


def listed(source, samples=None):
    examples = np.full((2, 6), 7.0, "float32")
    found = ranges.Ranges(dense(), source, samples, examples, verbose=0)
    once, again = ([row[0] for row in found] for _ in range(2))
    np.testing.assert_array_equal(once, again)
    assert all(row.shape == (1, 6) and row.dtype == "float32" for row in once)
    return np.concatenate(once)


def test_data_of_every_kind_is_read_to_its_end():
    import tensorflow as tf

    x = np.random.default_rng(0).normal(size=(70, 6))
    batched = tf.data.Dataset.from_tensor_slices((x, np.zeros(70))).batch(9)
    for source in (x, (x, np.zeros(70)), batched):
        np.testing.assert_array_equal(listed(source), x.astype("float32"))
        np.testing.assert_array_equal(listed(source, 40), x[:40].astype("float32"))
    for endless in (batched.repeat(), iter([x, x])):
        np.testing.assert_array_equal(listed(endless), np.full((2, 6), 7.0))
