"""The table of file formats."""

from pathlib import Path

import keras

from tfprune._base import validation as check
from tfprune._base.packages import check_installed
from tfprune._formats.exported_program import ExportedProgram
from tfprune._formats.keras_file import KerasFile, KerasSession
from tfprune._formats.litert import LiteRTFile
from tfprune._formats.onnx_file import OnnxFile
from tfprune._formats.saved_model import SavedModel
from tfprune._keras.checks import check_built, not_keras

FORMATS = {
    "keras": KerasFile(),
    "saved_model": SavedModel(),
    "onnx": OnnxFile(),
    "litert": LiteRTFile(),
    "torch": ExportedProgram(),
}


def by_suffix(suffix):
    """Returns the `FileFormat` whose files end with a suffix ("" for a folder), or `None`."""
    return next((found for found in FORMATS.values() if found.suffix == suffix), None)


def check_packages(format):
    """Raises ImportError, naming the extra to install, if a format's packages are missing."""
    if format.packages:
        check_installed(format.packages, format.extra, f"for {format.name}")


def opened(model, threads=None, name="model"):
    """Opens a model or file in its own runtime.

    Args:
        model: A built Keras model, or the path of a file that a `FileFormat` can open.
        threads: Number of threads; by default, the runtime decides.
        name: The argument's name, for messages.

    Returns:
        A `Session`.

    Raises:
        TypeError: If `model` is neither a model nor a path.
        ValueError: If the model is not built, or there is no such file or format.
        ImportError: If the runtime is not installed.
    """
    if isinstance(model, keras.Model):
        check_built(model)
        return KerasSession(model, threads)
    if not isinstance(model, (str, Path)):
        raise TypeError(not_keras(model, name))
    path = Path(model)
    format = format_of(path)
    check_packages(format)
    return format.open(path, threads)


def format_of(path):
    """Returns the `FileFormat` of a file or folder that exists."""
    suffixes = [found.suffix for found in FORMATS.values() if found.suffix]
    expected = f"a file that ends with {', '.join(suffixes)}, or the folder of a SavedModel"
    mend = "Write one with tfprune.export(model, path)."
    if not path.exists():
        raise ValueError(check.message(expected, f"{str(path)!r}, which does not exist", mend))
    format = by_suffix("" if path.is_dir() else path.suffix)
    fits = format is not None and path.is_dir() == (format.suffix == "")
    if not fits or (path.is_dir() and not (path / "saved_model.pb").is_file()):
        raise ValueError(check.message(expected, f"{str(path)!r}", mend))
    return format
