"""Exports models: writes a file, runs it in its own runtime, and compares the outputs."""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from tfprune import _keras
from tfprune._base import validation as check
from tfprune._base.differences import relative_difference
from tfprune._base.files import check_target, size_on_disk, written_atomically
from tfprune._base.progress import progress
from tfprune._deployment.layers_of_nodes import layer_of
from tfprune._formats.base import WriteOptions
from tfprune._formats.examples import fitting_inputs
from tfprune._formats.keras_file import outputs
from tfprune._formats.litert import CannotRun
from tfprune._formats.quiet import without_log
from tfprune._formats.ranges import Ranges
from tfprune._formats.table import FORMATS, by_suffix, check_packages
from tfprune._keras.checks import check_model
from tfprune._wrapping.strip import strip_pruning
from tfprune.structural.shrinking import shrink as without_silent_channels


@dataclass(frozen=True)
class Exported:
    """A file that was written and verified against its model.

    Attributes:
        path: Path of the file or folder.
        format: "keras", "saved_model", "onnx", "litert" or "torch".
        bytes: Size of the file, or of all files in the folder.
        runtime: Name of the runtime that ran the file.
        difference: Largest difference from the model's outputs.
        relative: The same as a fraction of the largest output.
    """

    path: Path
    format: str
    bytes: int
    runtime: str
    difference: float
    relative: float

    def __str__(self):
        return (
            f"{self.path}: {self.bytes:,} bytes; {self.runtime} is {self.difference:.2g} off "
            f"({self.relative:.2g} of the largest output)"
        )


QUANTIZED = ("dynamic", "float16", "int8")
IO_DTYPES = ("int8",)
# Number of examples in the comparison.
_COMPARED = 32
# Differences, as fractions of the largest output, that count as rounding.
_TOLERANCES = {None: 1e-3, "float16": 1e-2, "dynamic": 0.1, "int8": 0.2}
# LiteRT stores some Dense kernels in blocks of four inputs and loses a shorter last block.
_WITHOUT_SPARSE = (
    "Leave out `sparse`: LiteRT encodes some Dense layers wrongly if their number of inputs is "
    "not a multiple of 4. Or pass `data`"
)


def export(
    model,
    path,
    format=None,
    *,
    shrink=False,
    quantize=None,
    sparse=False,
    opset=None,
    io_dtype=None,
    data=None,
    samples=None,
    tolerance=None,
    verbose=1,
):
    """Writes a model for deployment and verifies the file in its own runtime.

    Strips the wrappers first. The file appears under `path` only after it has been opened, run on
    examples and compared with the model; on any error, an existing file is kept.

    Args:
        model: A built model, wrapped or plain. It is not changed.
        path: Path of the output: a `.keras`, `.onnx`, `.tflite` or `.pt2` file, or a folder for a
            SavedModel. A `.pt2` file needs the PyTorch backend.
        format: "keras", "saved_model", "onnx", "litert" or "torch"; by default, the suffix of the
            path decides.
        shrink: Whether to remove silent channels first; see `tfprune.shrink`.
        quantize: For LiteRT and ONNX: "dynamic" (8-bit weights; activations are quantized in each
            run) or "int8" (8-bit weights and activations; see `io_dtype`). For LiteRT also
            "float16". Pruned weights stay zero. Files with convolutions are often slower with
            "dynamic": `tfprune.compare` says so.
        sparse: For LiteRT: whether to store weights without their zeros where this is smaller.
        opset: For ONNX: version of the operator set; by default, Keras chooses.
        io_dtype: For LiteRT with "int8": "int8" for inputs and outputs in 8 bits, for processors
            without floating point. By default they stay in floating point.
        data: Examples for the comparison and for the ranges of activations: an array, a data set,
            or anything else that `fit` takes. Labels are ignored. Random numbers by default;
            required for "int8".
        samples: Largest number of examples of `data` to use. By default, the comparison uses up to
            32, and "int8" finds ranges on all of them, or on these 32 where the data has no known
            length.
        tolerance: Largest difference allowed, as a fraction of the largest output; by default
            0.001, for "float16" 0.01, for "dynamic" 0.1, and for "int8" 0.2.
        verbose: 1 shows a progress bar on a terminal, 0 does not.

    Returns:
        An `Exported`: `print` it, or read its `bytes` and `difference`.

    Raises:
        TypeError: If `model` is not a Keras 3 model.
        ValueError: If the model is not built, an argument is unknown or does not fit the format,
            the path cannot be written, or the outputs of the file differ too much.
        ImportError: If a runtime is not installed. The message names the extra to install.

    Example:

    >>> model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(4)])
    >>> exported = tfprune.export(tfprune.prune_low_magnitude(model), "model.keras")
    >>> exported.format, exported.difference
    ('keras', 0.0)
    """
    check_model(model)
    path = Path(path)
    format = _format(path, format)
    options = _options(format, quantize, sparse, opset, io_dtype, data)
    if samples is not None:
        samples = check.integer("samples", samples, 1, "Use for instance 32.")
    half = quantize is None and _keras.computes_in_half(model)
    usual = _TOLERANCES["float16" if half else quantize]
    limit = usual if tolerance is None else tolerance
    check.positive("tolerance", limit, "Use for instance 0.01.")
    check_packages(format)
    check_target(path, format.name)
    plain = without_silent_channels(model) if shrink else strip_pruning(model)
    examples = fitting_inputs(plain, data, samples or _COMPARED)
    # Finding ranges takes longest, and shows its own bar.
    shown = verbose
    if quantize == "int8":
        options = replace(options, ranges=Ranges(plain, data, samples, examples, verbose))
        shown = 0
    with (
        progress(3, f"export of {path.name}", shown) as done,
        written_atomically(path) as unfinished,
        without_log(),
    ):
        truth = outputs(plain, examples)
        done()
        _written(format, plain, unfinished, options, examples)
        done()
        found = _computed(format, plain, unfinished, examples)
        done()
        difference, relative = _difference(truth, found)
        if not relative <= limit:
            raise ValueError(
                check.message(
                    f"the {format.name} file to compute what the model computes, to {limit:g} of "
                    "the largest output",
                    f"a difference of {difference:.3g}, {relative:.3g} of it",
                    (_WITHOUT_SPARSE if sparse else "Pass `data`")
                    + " similar to the real inputs, another `quantize`, or, if this difference "
                    "is acceptable, a larger `tolerance`. Nothing was written.",
                )
            )
        size = size_on_disk(unfinished)
    return Exported(path, format.name, size, format.runtime, difference, relative)


# -- Arguments -------------------------------------------------------------------------------------


def _format(path, format):
    if format is not None:
        check.choice("format", format, tuple(FORMATS))
        suffix = FORMATS[format].suffix
        if suffix and path.suffix != suffix:
            raise ValueError(
                check.message(
                    f"a path that ends with {suffix}, for format={format!r}",
                    f"{path.name!r}",
                    f"Use for instance {path.stem + suffix!r}.",
                )
            )
        return FORMATS[format]
    found = by_suffix(path.suffix)
    if found is None:
        *first, last = (known.suffix for known in FORMATS.values() if known.suffix)
        raise ValueError(
            check.message(
                f"a path that ends with {', '.join(first)} or {last}, or names a folder",
                f"{path.name!r}",
                'Change it, or pass format="saved_model" for a folder of that name.',
            )
        )
    return found


def _options(format, quantize, sparse, opset, io_dtype, data):
    if quantize is not None:
        check.choice("quantize", quantize, QUANTIZED)
        if quantize not in format.quantized:
            raise ValueError(_quantize_message(format, quantize))
    if io_dtype is not None:
        check.choice("io_dtype", io_dtype, IO_DTYPES)
    given = {"sparse": sparse, "opset": opset, "io_dtype": io_dtype}
    for name, value in given.items():
        if value and name not in format.options:
            takers = [known for known in FORMATS.values() if name in known.options]
            raise ValueError(
                check.message(
                    f"`{name}` for {' or '.join(taker.runtime for taker in takers)} alone",
                    f"{name}={value!r} with format={format.name!r}",
                    f"Leave it out, or write a {' or '.join(t.suffix for t in takers)} file.",
                )
            )
    if opset is not None:
        given["opset"] = check.integer("opset", opset, 1, "Use for instance 15.")
    if io_dtype is not None and quantize != "int8":
        raise ValueError(
            check.message(
                "quantize='int8' where `io_dtype` is given",
                f"io_dtype={io_dtype!r} with quantize={quantize!r}",
                "Leave `io_dtype` out, or pass quantize='int8' and data.",
            )
        )
    if quantize == "int8" and data is None:
        raise ValueError(
            check.message(
                "`data` to find the ranges of activations with, for quantize='int8'",
                "none",
                "Pass some of the training inputs.",
            )
        )
    return WriteOptions(quantize=quantize, **given)


def _written(format, model, path, options, examples):
    """Writes a file. Where Keras cannot on this backend, the error says where it can."""
    try:
        format.write(model, path, options, examples)
    except Exception as error:
        backend = _keras.backend()
        # Converters raise errors of all kinds. The library's own messages say enough.
        if backend == "tensorflow" or not format.extra or "Received: " in str(error):
            raise
        first = check.first_line(error).rstrip(".")
        raise ValueError(
            check.message(
                f"the TensorFlow backend to write {format.suffix or 'a SavedModel'}",
                f"KERAS_BACKEND={backend}, where Keras fails with: {first}"[:300],
                'Save the stripped model: tfprune.strip_pruning(model).save("plain.keras"). Then '
                "load the stripped .keras file under KERAS_BACKEND=tensorflow: "
                'tfprune.export(keras.saving.load_model("plain.keras"), path). Nothing was '
                "written.",
            )
        ) from error


def _computed(format, model, path, examples):
    """Runs a file. Where a layer is at fault, the error names it."""
    try:
        return format.outputs(path, examples)
    except CannotRun as error:
        paths = [layer_of(node, model) for node in error.nodes]
        named = list(dict.fromkeys(path for path in paths if path))
        if not named:
            raise
        layers = ", ".join(f"'{path}'" for path in named)
        raise ValueError(
            check.message(
                f"a file that LiteRT can run, of '{model.name}'",
                f"{error.received}, in layer {layers}",
                f"Leave out `sparse` or `quantize`: not every layer supports both. Or leave "
                f"{layers} dense, by tfprune.Rule({named[0]!r}, prune=False) when pruning. Nothing "
                "was written.",
            )
        ) from error


def _quantize_message(format, quantize):
    takers = [known for known in FORMATS.values() if quantize in known.quantized]
    return check.message(
        f"quantize={quantize!r} for {' or '.join(known.runtime for known in takers)} alone",
        f"quantize={quantize!r} with format={format.name!r}",
        f"Leave it out, or write a {' or '.join(known.suffix for known in takers)} file. Keras's "
        "own model.quantize() works on a stripped model for other formats.",
    )


# -- Comparing -------------------------------------------------------------------------------------


def _difference(truth, found):
    """Returns the largest difference of outputs, and the largest as a fraction of its output."""
    if [array.shape for array in truth] != [np.shape(array) for array in found]:
        return float("nan"), float("nan")
    worst = [0.0, 0.0]
    for ours, theirs in zip(truth, found, strict=True):
        ours, theirs = ours.astype("float64"), np.asarray(theirs).astype("float64")
        if not np.isfinite(theirs).all():
            return float("nan"), float("nan")
        worst[0] = max(worst[0], float(np.abs(ours - theirs).max()))
        worst[1] = max(worst[1], relative_difference(ours, theirs))
    return worst[0], worst[1]
