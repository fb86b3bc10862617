"""`.onnx` files, run by ONNX Runtime."""

import tempfile
from pathlib import Path

import keras

from tfprune import _keras
from tfprune._base import validation as check
from tfprune._formats.base import FileFormat, Session, TensorSpec
from tfprune._formats.keras_file import outputs
from tfprune._formats.onnx_quantization import quantize_file

_DTYPES = {"float": "float32", "double": "float64"}


class _OnnxSession(Session):
    """A file opened in ONNX Runtime on the processor."""

    runtime = "ONNX Runtime"

    def __init__(self, path, threads):
        import onnxruntime

        options = onnxruntime.SessionOptions()
        if threads is not None:
            options.intra_op_num_threads = threads
            options.inter_op_num_threads = 1
        self.name, self.threads = path.name, threads
        self._session = onnxruntime.InferenceSession(
            str(path), options, providers=["CPUExecutionProvider"]
        )
        self.inputs = [_spec(entry) for entry in self._session.get_inputs()]
        self._names = [entry.name for entry in self._session.get_inputs()]

    def run(self, inputs):
        arrays = keras.tree.flatten(inputs)
        return self._session.run(None, dict(zip(self._names, arrays, strict=True)))


def _spec(entry):
    kind = entry.type.removeprefix("tensor(").removesuffix(")")
    shape = tuple(size if isinstance(size, int) else None for size in entry.shape)
    return TensorSpec(entry.name, shape, _DTYPES.get(kind, kind))


class OnnxFile(FileFormat):
    """An ONNX file."""

    name = "onnx"
    suffix = ".onnx"
    runtime = "ONNX Runtime"
    packages = ("onnx", "tf2onnx", "onnxruntime")
    extra = "onnx"
    quantized = ("dynamic", "int8")
    options = ("opset",)

    def write(self, model, path, options, examples):
        # ONNX Runtime has few kernels for half precision. Keras exports only models that have been
        # called.
        model = _keras.in_float32(model)
        outputs(model, examples)
        if options.quantize is None:
            self._write_float(model, path, options.opset)
            return
        with tempfile.TemporaryDirectory() as folder:
            plain = Path(folder) / path.name
            self._write_float(model, plain, options.opset)
            quantize_file(plain, path, options.quantize, options.ranges)

    def _write_float(self, model, path, wanted):
        given = {} if wanted is None else {"opset_version": wanted}
        try:
            model.export(str(path), format="onnx", verbose=False, **given)
        except Exception as error:
            if wanted is None:
                raise
            raise ValueError(_opset_message(wanted, f"an error: {error}")) from error
        if wanted is not None and (found := _opset(path)) != wanted:
            raise ValueError(_opset_message(wanted, f"a file in opset {found}"))

    def open(self, path, threads=None):
        return _OnnxSession(path, threads)


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
