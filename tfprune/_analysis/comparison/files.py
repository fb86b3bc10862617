"""Writes both sides of a comparison in deployment formats, and measures the files."""

import gzip
from dataclasses import dataclass, field, replace
from pathlib import Path

from tfprune._analysis.comparison.metrics import metrics_of
from tfprune._base import validation as check
from tfprune._deployment.exporting import export
from tfprune._formats.table import format_of, opened
from tfprune._reports.latency import compare_latency

# Name of a format, file, and arguments of `export`.
FORMATS: dict[str, tuple[str, dict]] = {
    "keras": ("model.keras", {}),
    "litert": ("model.tflite", {}),
    "sparse litert": ("model.tflite", {"sparse": True}),
    "dynamic litert": ("model.tflite", {"quantize": "dynamic"}),
    "float16 litert": ("model.tflite", {"quantize": "float16"}),
    "int8 litert": ("model.tflite", {"quantize": "int8"}),
    "onnx": ("model.onnx", {}),
    "dynamic onnx": ("model.onnx", {"quantize": "dynamic"}),
    "int8 onnx": ("model.onnx", {"quantize": "int8"}),
    "saved_model": ("model", {}),
    "torch": ("model.pt2", {}),
}
# Number of examples on which int8 finds its ranges, so that comparing stays quick.
_SAMPLES = 32
_ONCE = {"runs": 1, "warmup": 1, "verbose": 0}
BY_DEFAULT = ("keras", "litert", "sparse litert", "int8 litert", "onnx")


@dataclass(frozen=True)
class ShippedFile:
    """One file: its size, and the measurements in its own runtime.

    Attributes:
        raw: Size of the file in bytes, or `None` if it could not be written.
        gzipped: Size after compression with gzip, or `None`.
        note: Error message if the file could not be written or run, or an empty string.
        latency: `{batch size: Latency}`; empty if not measured.
        metrics: `{name: value}` on the data; empty without data.
    """

    raw: int | None
    gzipped: int | None
    note: str
    latency: dict = field(default_factory=dict)
    metrics: dict = field(default_factory=dict)


MISSING = ShippedFile(None, None, "")
# The entry, among the files, of a model that Keras runs without a file.
LIVE = "live"


def check_formats(formats):
    """Returns the names of formats as a tuple, or raises if one is unknown."""
    if isinstance(formats, str) or not hasattr(formats, "__iter__"):
        raise TypeError(
            check.message(
                "`formats` to be a list of names", f"formats={formats!r}", 'Use ["keras"].'
            )
        )
    return tuple(check.choice("formats", name, tuple(FORMATS)) for name in formats)


def write_files(model, formats, inputs, folder, done):
    """Writes a model in several formats.

    Args:
        model: A plain model.
        formats: Names of formats.
        inputs: Examples for int8, or `None`.
        folder: `pathlib.Path` of an empty folder.
        done: Function to call after each file.

    Returns:
        `{format: (path or None, ShippedFile)}`.
    """
    found = {}
    for number, name in enumerate(formats):
        file, options = FORMATS[name]
        path = folder / str(number) / file
        path.parent.mkdir(parents=True)
        data = inputs if options.get("quantize") == "int8" else None
        try:
            # A quantized file is judged by its metrics, so allow any rounding error.
            export(model, path, data=data, samples=_SAMPLES, tolerance=1e9, verbose=0, **options)
        except Exception as error:
            # Converters raise all kinds of errors. Still measure the other formats.
            found[name] = None, ShippedFile(None, None, check.first_line(error))
        else:
            found[name] = path, _sizes(path)
        done()
    return found


def given_file(path):
    """Returns `{format: (path, ShippedFile)}` of an existing file."""
    return {format_of(path).name: (path, _sizes(path))}


def _sizes(path):
    files = [file for file in sorted([path, *path.rglob("*")]) if file.is_file()]
    contents = [file.read_bytes() for file in files]
    return ShippedFile(
        sum(map(len, contents)), sum(len(gzip.compress(content, 9)) for content in contents), ""
    )


def with_latency(sides, batch_size, how):
    """Measures all files of both sides in turn.

    Args:
        sides: Pair of `{format: (path or model or None, ShippedFile)}`.
        batch_size: A batch size, or a list of them.
        how: Further arguments of `compare_latency`.

    Returns:
        Pair of the same dictionaries, with latencies.
    """
    models, sides = {}, tuple(dict(side) for side in sides)
    for number, side in enumerate(sides):
        for name, (model, file) in side.items():
            if model is None or (name == "keras" and LIVE in side):
                continue
            try:
                # Some files open and fail when they run; the others are still measured.
                compare_latency({"model": model}, batch_size, **{**how, **_ONCE})
            except (RuntimeError, ValueError) as error:
                if not isinstance(model, Path):
                    raise
                side[name] = model, replace(file, note=check.first_line(error))
            else:
                models[number, name] = model
    sizes = batch_size if isinstance(batch_size, (list, tuple)) else [batch_size]
    if models:
        for (number, name), found in compare_latency(models, list(sizes), **how).items():
            model, file = sides[number][name]
            sides[number][name] = model, replace(file, latency=found)
    for side in sides:
        # Keras computes the same from its file.
        if LIVE in side and side.get("keras", (None, None))[0] is not None:
            path, file = side["keras"]
            side["keras"] = path, replace(file, latency=side[LIVE][1].latency)
    return sides


def with_metrics(side, judge, data, done):
    """Returns `{format: (path, ShippedFile)}` of one side, with the metrics of each file."""
    found = {}
    for name, (path, file) in side.items():
        if isinstance(path, Path) and not file.note:
            session = opened(path)
            try:
                file = replace(file, metrics=metrics_of(session, judge, data))
            finally:
                session.close()
        found[name] = path, file
        done()
    return found
