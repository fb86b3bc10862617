"""`.tflite` files, run by LiteRT."""

import re
import tempfile

import keras
import numpy as np

from tfprune import _keras
from tfprune._base import validation as check
from tfprune._formats.base import FileFormat, Session, TensorSpec
from tfprune._formats.litert_nodes import nodes_of


class CannotRun(ValueError):
    """LiteRT cannot run a file.

    Attributes:
        received: What is wrong, for a message.
        nodes: List of the `Node`s that it cannot run; empty if it names none.
    """

    def __init__(self, received, nodes):
        self.received, self.nodes = received, nodes
        names = [f"'{node.names[0]}'" for node in nodes if node.names]
        of = f"; the tensors are {', '.join(names)}" if names else ""
        super().__init__(
            check.message(
                "a file that LiteRT can run",
                received + of,
                "Leave out `sparse` or `quantize`: not every layer supports both. Nothing was "
                "written.",
            )
        )


class _LiteRTSession(Session):
    """A file opened in LiteRT, with XNNPACK where it can."""

    runtime = "LiteRT"

    def __init__(self, path, threads):
        from ai_edge_litert.interpreter import Interpreter

        self.name, self.threads, self._path = path.name, threads, path
        self._interpreter = Interpreter(str(path), num_threads=threads)
        # The converter names and numbers inputs and outputs in the model's order.
        entries = self._interpreter.get_input_details()
        self._inputs = sorted(entries, key=lambda entry: entry["index"])
        self.inputs = [_spec(entry) for entry in self._inputs]
        self._shapes: list = []
        self._outputs: list = []

    def run(self, inputs):
        arrays = keras.tree.flatten(inputs)
        try:
            self._resize([array.shape for array in arrays])
            for entry, array in zip(self._inputs, arrays, strict=True):
                self._interpreter.set_tensor(entry["index"], _quantized(entry, array))
            self._interpreter.invoke()
        except RuntimeError as error:
            raise CannotRun(_sentence(error), nodes_of(self._path, error)) from error
        return [
            _dequantized(entry, self._interpreter.get_tensor(entry["index"]))
            for entry in self._outputs
        ]

    def _resize(self, shapes):
        if shapes == self._shapes:
            return
        for entry, shape in zip(self._inputs, shapes, strict=True):
            self._interpreter.resize_tensor_input(entry["index"], shape)
        self._interpreter.allocate_tensors()
        self._shapes, self._outputs = shapes, self._output_entries()

    def _output_entries(self):
        signatures = list(self._interpreter.get_signature_list().values())
        if len(signatures) != 1:
            return self._interpreter.get_output_details()
        made = self._interpreter.get_signature_runner().get_output_details()
        return [made[name] for name in sorted(signatures[0]["outputs"], key=_by_number)]


def _sentence(error):
    # LiteRT puts its messages after each other without a space.
    text = re.sub(r"(?<=[\d.])(?=failed|Node number)", ", ", str(error).strip())
    return f"its error: {text.rstrip('.')}"


def _spec(entry):
    # Only the signature keeps open lengths; `shape` has a 1 there.
    shape = entry["shape_signature"] if len(entry["shape_signature"]) else entry["shape"]
    sizes = tuple(None if size < 0 else int(size) for size in shape)
    return TensorSpec(entry["name"], sizes, np.dtype(entry["dtype"]).name)


def _quantized(entry, array):
    """Returns floats as the integers that an input takes; other arrays unchanged."""
    scale, zero = entry["quantization"]
    if not scale or not np.issubdtype(array.dtype, np.floating):
        return array
    limits = np.iinfo(entry["dtype"])
    return np.clip(np.round(array / scale) + zero, limits.min, limits.max).astype(entry["dtype"])


def _dequantized(entry, array):
    """Returns the numbers for which the integers of an output stand."""
    scale, zero = entry["quantization"]
    if not scale or not np.issubdtype(array.dtype, np.integer):
        return array
    return (scale * (array.astype("float32") - zero)).astype("float32")


def _by_number(name):
    """Sorts unnamed outputs by number, and named ones by name, as Keras does."""
    stem, _, number = name.rpartition("_")
    return (stem, int(number), "") if number.isdigit() else (name, 0, name)


def _convert(model, path, options):
    """Writes a file by TensorFlow's own converter, as Keras 3.12 and older cannot write LiteRT."""
    import tensorflow as tf

    with tempfile.TemporaryDirectory() as folder:
        model.export(folder, format="tf_saved_model", verbose=False)
        converter = tf.lite.TFLiteConverter.from_saved_model(folder)
        for name, value in options.items():
            if name == "target_spec":
                for part, setting in value.items():
                    setattr(converter.target_spec, part, setting)
            else:
                setattr(converter, name, value)
        path.write_bytes(converter.convert())


class LiteRTFile(FileFormat):
    """A LiteRT file."""

    name = "litert"
    suffix = ".tflite"
    runtime = "LiteRT"
    packages = ("tensorflow", "ai_edge_litert")
    extra = "litert"
    quantized = ("dynamic", "float16", "int8")
    options = ("sparse", "io_dtype")

    def write(self, model, path, options, examples):
        import tensorflow as tf

        # LiteRT has no kernels for mixed precision; quantize="float16" stores half of the bits.
        model = _keras.in_float32(model)
        given: dict = {"optimizations": []}
        if options.quantize is not None:
            given["optimizations"].append(tf.lite.Optimize.DEFAULT)
        if options.sparse:
            given["optimizations"].append(tf.lite.Optimize.EXPERIMENTAL_SPARSITY)
        if options.quantize == "float16":
            given["target_spec"] = {"supported_types": [tf.float16]}
        if options.quantize == "int8":
            given["target_spec"] = {"supported_ops": [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]}
            given["representative_dataset"] = lambda: iter(options.ranges)
        if options.io_dtype == "int8":
            given["inference_input_type"] = given["inference_output_type"] = tf.int8
        try:
            model.export(str(path), format="litert", verbose=False, **given)
        except ValueError as error:
            if "Unrecognized format" not in str(error):
                raise
            _convert(model, path, given)

    def open(self, path, threads=None):
        return _LiteRTSession(path, threads)
