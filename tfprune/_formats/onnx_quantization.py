"""Writes ONNX files with 8-bit weights, by ONNX Runtime's own tools."""

import logging
import tempfile
from contextlib import contextmanager
from pathlib import Path


def quantize_file(source, target, how, ranges):
    """Quantizes an ONNX file. Weights are symmetric, or have a zero point, so zeros stay zero.

    Args:
        source: The file with weights in floating point.
        target: Path of the file to write.
        how: "dynamic" (8-bit weights; each run quantizes the activations) or "int8"
            (weights and activations, as pairs of QuantizeLinear and DequantizeLinear).
        ranges: For "int8": yields examples to find ranges with, as in `WriteOptions`.
    """
    from onnxruntime import quantization
    from onnxruntime.quantization.shape_inference import quant_pre_process

    with tempfile.TemporaryDirectory() as folder, _without_advice():
        prepared = Path(folder) / "prepared.onnx"
        quant_pre_process(str(source), str(prepared), skip_symbolic_shape=True)
        if how == "dynamic":
            # ONNX Runtime has no dynamic convolution with signed weights.
            kind = quantization.QuantType.QUInt8
            quantization.quantize_dynamic(str(prepared), str(target), weight_type=kind)
        else:
            quantization.quantize_static(
                str(prepared),
                str(target),
                _reader(quantization.CalibrationDataReader, prepared, ranges),
                per_channel=True,
                # Processors with AVX2 alone add pairs of products in 16 bits, which products of
                # 8 bits overflow: a network was off by 24 % there.
                reduce_range=True,
            )


def _reader(base, path, ranges):
    """Returns a reader that gives the examples one by one, so that memory stays small."""
    import onnx

    known = onnx.load(str(path), load_external_data=False).graph
    constants = {entry.name for entry in known.initializer}
    names = [entry.name for entry in known.input if entry.name not in constants]

    class Reader(base):  # type: ignore[misc, valid-type]
        def __init__(self):
            self._left = iter(ranges)

        def get_next(self):
            arrays = next(self._left, None)
            return None if arrays is None else dict(zip(names, arrays, strict=True))

    return Reader()


@contextmanager
def _without_advice():
    """Silences the tools, which advise on preparing the file even if it is prepared."""
    level = logging.root.level
    logging.root.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logging.root.setLevel(level)
