"""Measures the size of a model in its deployment formats."""

import gzip
import tempfile
from dataclasses import dataclass
from pathlib import Path

from tfprune._base import validation as check
from tfprune._deployment.exporting import export

# Name of a format, file, and arguments of `export`.
FORMATS: dict[str, tuple[str, dict]] = {
    "keras": ("model.keras", {}),
    "litert": ("model.tflite", {}),
    "sparse litert": ("model.tflite", {"sparse": True}),
    "dynamic litert": ("model.tflite", {"quantize": "dynamic"}),
    "float16 litert": ("model.tflite", {"quantize": "float16"}),
    "int8 litert": ("model.tflite", {"quantize": "int8"}),
    "onnx": ("model.onnx", {}),
}
BY_DEFAULT = ("keras", "litert", "sparse litert", "int8 litert")


@dataclass(frozen=True)
class FileSizes:
    """The size of one file in bytes.

    Attributes:
        raw: Size of the file, or `None` if it could not be written.
        gzipped: Size after compression with gzip, or `None`.
        note: Error message if the file could not be written, or an empty string.
    """

    raw: int | None
    gzipped: int | None
    note: str


def check_formats(formats):
    """Returns the names of formats as a tuple, or raises if one is unknown."""
    if isinstance(formats, str) or not hasattr(formats, "__iter__"):
        raise TypeError(
            check.message(
                "`formats` to be a list of names", f"formats={formats!r}", 'Use ["keras"].'
            )
        )
    return tuple(check.choice("formats", name, tuple(FORMATS)) for name in formats)


def measure_files(model, formats, inputs):
    """Writes a model in several formats and returns `{format: FileSizes}`.

    Args:
        model: A plain model.
        formats: Names of formats.
        inputs: Examples for int8, or `None`.
    """
    found = {}
    for name in formats:
        file, options = FORMATS[name]
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / file
            data = inputs if options.get("quantize") == "int8" else None
            try:
                # Only the size matters here, so allow any rounding error of 8-bit weights.
                export(model, path, data=data, tolerance=1e9, **options)
            except Exception as error:
                # Converters raise all kinds of errors. Still measure the other formats.
                found[name] = FileSizes(None, None, _first_line(error))
            else:
                written = path.read_bytes()
                found[name] = FileSizes(len(written), len(gzip.compress(written, 9)), "")
    return found


def _first_line(error):
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
