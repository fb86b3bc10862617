"""The export formats: how each file is written, and run in its own runtime."""

import keras
import numpy as np

from tfprune import _keras
from tfprune._base import validation as check


def outputs(model, examples):
    """Returns the outputs of a model as a list of arrays."""
    found = model(examples, training=False)
    return [np.asarray(_keras.on_host(array)) for array in keras.tree.flatten(found)]


def _write_keras(model, path, options, examples):
    model.save(path)


def _run_keras(path, model, examples):
    # The file was written a moment ago: its Lambda layers are the model's own.
    return outputs(keras.saving.load_model(path, safe_mode=False), examples)


def _write_saved_model(model, path, options, examples):
    model.export(str(path), format="tf_saved_model", verbose=False)


def _run_saved_model(path, model, examples):
    import tensorflow as tf

    loaded = tf.saved_model.load(str(path))
    found = loaded.serve(examples)
    return [array.numpy() for array in keras.tree.flatten(found)]


def _write_onnx(model, path, options, examples):
    wanted = options["opset"]
    given = {} if wanted is None else {"opset_version": wanted}
    try:
        model.export(str(path), format="onnx", verbose=False, **given)
    except Exception as error:
        if wanted is None:
            raise
        raise ValueError(_opset_message(wanted, f"an error: {error}")) from error
    if wanted is not None and (found := _opset(path)) != wanted:
        raise ValueError(_opset_message(wanted, f"a file in opset {found}"))


def _opset(path):
    """Returns the version of the standard ONNX operator set in a file."""
    import onnx

    versions = {entry.domain: entry.version for entry in onnx.load(str(path)).opset_import}
    return versions.get("", versions.get("ai.onnx"))


def _opset_message(wanted, received):
    return check.message(
        f"a file in ONNX opset {wanted}",
        received,
        "Use another opset, for instance 15, or leave it out. Nothing was written.",
    )


def _run_onnx(path, model, examples):
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    names = [entry.name for entry in session.get_inputs()]
    arrays = keras.tree.flatten(examples)
    return session.run(None, dict(zip(names, arrays, strict=True)))


def _write_litert(model, path, options, examples):
    import tensorflow as tf

    quantize = options["quantize"]
    given: dict = {"optimizations": []}
    if quantize is not None:
        given["optimizations"].append(tf.lite.Optimize.DEFAULT)
    if options["sparse"]:
        given["optimizations"].append(tf.lite.Optimize.EXPERIMENTAL_SPARSITY)
    if quantize == "float16":
        given["target_spec"] = {"supported_types": [tf.float16]}
    if quantize == "int8":
        arrays = keras.tree.flatten(examples)
        number = len(arrays[0])
        given["target_spec"] = {"supported_ops": [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]}
        given["representative_dataset"] = lambda: (
            [array[i : i + 1] for array in arrays] for i in range(number)
        )
    model.export(str(path), format="litert", verbose=False, **given)


def _run_litert(path, model, examples):
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(str(path))
    arrays = keras.tree.flatten(examples)
    # The converter names and numbers inputs and outputs in the model's order.
    entries = sorted(interpreter.get_input_details(), key=lambda entry: entry["index"])
    try:
        for entry, array in zip(entries, arrays, strict=True):
            interpreter.resize_tensor_input(entry["index"], array.shape)
        interpreter.allocate_tensors()
        for entry, array in zip(entries, arrays, strict=True):
            interpreter.set_tensor(entry["index"], array)
        interpreter.invoke()
    except RuntimeError as error:
        raise ValueError(
            check.message(
                "a file that LiteRT can run",
                f"its error: {error}",
                "Leave out `sparse` or `quantize`: not every layer supports both. Nothing was "
                "written.",
            )
        ) from error
    (signature,) = interpreter.get_signature_list().values()
    runner = interpreter.get_signature_runner()
    made = runner.get_output_details()
    order = sorted(signature["outputs"], key=_by_number)
    return [interpreter.get_tensor(made[name]["index"]) for name in order]


def _by_number(name):
    """Sorts unnamed outputs by number, and named ones by name, as Keras does."""
    stem, _, number = name.rpartition("_")
    return (stem, int(number), "") if number.isdigit() else (name, 0, name)


WRITERS = {
    "keras": _write_keras,
    "saved_model": _write_saved_model,
    "onnx": _write_onnx,
    "litert": _write_litert,
}
RUNNERS = {
    "keras": _run_keras,
    "saved_model": _run_saved_model,
    "onnx": _run_onnx,
    "litert": _run_litert,
}
RUNTIMES = {
    "keras": "Keras",
    "saved_model": "tf.saved_model",
    "onnx": "ONNX Runtime",
    "litert": "LiteRT",
}
