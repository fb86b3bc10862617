"""Loads models and data for the commands, without running code from untrusted files."""

import importlib
import os
import sys
import zipfile
from dataclasses import dataclass

import keras
import numpy as np

from tfprune._base import validation as check
from tfprune._formats.table import by_suffix
from tfprune.interop import from_tf_keras
from tfprune.interop.tfmot_reader import code_in, config_of_file

_KEYS = "x_train and y_train, with x_test and y_test, or x and y"


# -- Models ----------------------------------------------------------------------------------------


def load_model(path, args, compile=False):
    """Loads a model from a file.

    Args:
        path: The file, or the folder of a SavedModel that tf_keras wrote.
        args: The command's arguments, with `imports` and `unsafe`.
        compile: Whether to compile the model with its saved configuration. If this fails, the
            model is returned uncompiled.
    """
    _check_file(path)
    _import(args.imports)
    if path.is_dir():
        return from_tf_keras(path, safe_mode=not args.unsafe)
    if not args.unsafe:
        _check_code(path)
    try:
        return _load(path, args.unsafe, compile)
    except Exception as error:
        raise _explained(path, error) from error


def load_model_or_file(path, args):
    """Loads a model with its metrics, or returns the path of a file that another runtime opens."""
    format = by_suffix(path.suffix)
    if format is not None and path.suffix not in ("", ".keras"):
        if format.runs_code and not args.unsafe:
            mend = "Pass --unsafe if you trust the file: opening it can run code in the file."
            raise ValueError(check.message("a file without code of its own", f"{path}", mend))
        return path
    foreign = (path / "saved_model.pb").is_file() and not (path / "keras_metadata.pb").is_file()
    return path if foreign else load_model(path, args, compile=True)


def _load(path, unsafe, compile):
    try:
        return keras.saving.load_model(path, compile=compile, safe_mode=not unsafe)
    except Exception:
        if not compile:
            raise
        # Only training needs the user's own loss or metrics, and it has --loss.
        return keras.saving.load_model(path, compile=False, safe_mode=not unsafe)


def _check_code(path):
    """Raises if a file contains code, before anything is created from it.

    Keras 3.10 does not check .h5 files, even in `safe_mode`.
    """
    try:
        found = code_in(config_of_file(path))
    except Exception as error:
        # What reads archives and HDF5 raises errors of many kinds for files that are damaged.
        raise _explained(path, error) from error
    if found:
        mend = "Pass --unsafe if you trust the file: it runs code in the file."
        raise ValueError(
            check.message("a model without code of its own", f"{path} with {found}", mend)
        )


def _check_file(path):
    mend = "Pass a file written by Keras's model.save()."
    if not path.exists():
        raise ValueError(
            check.message("a model file", f"{str(path)!r}, which does not exist", mend)
        )
    if path.is_dir():
        if (path / "keras_metadata.pb").is_file():
            return
        received = f"the folder {str(path)!r}"
        if (path / "saved_model.pb").is_file():
            received = f"the SavedModel {str(path)!r}"
            mend = (
                "Only SavedModels written by tf_keras contain layers to prune. Pass the .keras "
                "file that this one was exported from."
            )
        raise ValueError(check.message("a .keras or .h5 file", received, mend))
    if path.suffix not in (".keras", ".h5", ".hdf5"):
        raise ValueError(
            check.message("a file that ends with .keras or .h5", f"{str(path)!r}", mend)
        )
    if path.suffix == ".keras" and not zipfile.is_zipfile(path):
        raise ValueError(
            check.message(
                "a .keras file", f"{str(path)!r}, which is damaged or of another kind", mend
            )
        )


def _import(modules):
    sys.path.insert(0, os.getcwd())
    try:
        for name in modules:
            try:
                importlib.import_module(name)
            except ImportError as error:
                raise ValueError(
                    check.message(
                        "a module that can be imported",
                        f"--import {name} ({error})",
                        "Run the command in the folder of the module, or install the module.",
                    )
                ) from error
    finally:
        sys.path.remove(os.getcwd())


def _explained(path, error):
    text = str(error)
    first = check.first_line(error)
    if "safe_mode" in text or "safe mode" in text or "lambda" in text.lower():
        mend = "Pass --unsafe if you trust the file. It runs the code that the file contains."
        return ValueError(check.message("a model file without code", f"{path}", mend))
    if "Could not locate" in text or "Unknown layer" in text or "not registered" in text:
        mend = (
            "Pass --import MODULE, naming a module that registers the model's classes with "
            "keras.saving.register_keras_serializable."
        )
        return ValueError(check.message("a model of known layers", f"{path}: {first}"[:300], mend))
    mend = "Save it again with model.save()."
    return ValueError(
        check.message("a model file that Keras can read", f"{path}: {first}"[:300], mend)
    )


# -- Data ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Data:
    """Data for training and testing.

    Attributes:
        train: Inputs and labels, as a tuple of arrays.
        test: The same.
    """

    train: tuple
    test: tuple


def load_data(args, model):
    """Returns `Data` for a model, or `None` if the command got none."""
    if args.data is None:
        return None
    if not 0 < args.held_out < 1:
        raise ValueError(
            check.message("a share between 0 and 1", f"--held-out {args.held_out}", "Use 0.1.")
        )
    path = args.data
    if not path.exists():
        raise ValueError(
            check.message("data", f"{str(path)!r}, which does not exist", "Check the path.")
        )
    parts = _from_folder(path, model) if path.is_dir() else _from_npz(path)
    for name, (x, y) in parts.items():
        _check(path, name, x, y, model)
    parts = {name: (_scaled(x, args.scale), y) for name, (x, y) in parts.items()}
    if "test" not in parts:
        x, y = parts["train"]
        parts = split(x, y, args.held_out)
    return Data(parts["train"], parts["test"])


def _from_npz(path):
    wanted = f"an .npz file with {_KEYS}, or a folder of images"
    write = "Write it with numpy.savez(path, x=inputs, y=labels)."
    if not zipfile.is_zipfile(path):
        raise ValueError(check.message(wanted, f"{path}, a file of another kind", write))
    try:
        with np.load(path, allow_pickle=False) as arrays:
            names = set(arrays.files)
            if {"x_train", "y_train"} <= names:
                pairs = {"train": ("x_train", "y_train"), "test": ("x_test", "y_test")}
            else:
                pairs = {"train": ("x", "y")}
            if not set(pairs["train"]) <= names:
                received = f"{path} with {', '.join(sorted(names)) or 'nothing'}"
                raise _Unfit(check.message(wanted, received, write))
            return {
                part: (arrays[x], arrays[y]) for part, (x, y) in pairs.items() if {x, y} <= names
            }
    except _Unfit:
        raise
    except Exception as error:
        # NumPy's readers raise many kinds of errors for files of another kind.
        raise ValueError(
            check.message(wanted, f"{path}, which cannot be read ({error})", "Check the file.")
        ) from error


class _Unfit(ValueError):
    """Raised for a readable file with the wrong contents."""


_IMAGES = (".png", ".jpg", ".jpeg", ".bmp", ".gif")


def _from_folder(path, model):
    if any((path / part).is_dir() for part in ("train", "test")):
        parts = [part for part in ("train", "test") if (path / part).is_dir()]
        if "train" not in parts:
            raise ValueError(check.message("a folder train/ next to test/", f"{path}", "Add one."))
        classes = _classes(path / "train")
        return {part: _images(path / part, classes, model) for part in parts}
    return {"train": _images(path, _classes(path), model)}


def _classes(path):
    names = sorted(folder.name for folder in path.iterdir() if folder.is_dir())
    if not names:
        raise ValueError(
            check.message(
                "one folder of images for each class",
                f"{path}, which contains no folders",
                "Sort the images into folders, one per class. Classes are numbered in "
                "alphabetical order.",
            )
        )
    return names


def _images(path, classes, model):
    shape = tuple(model.input_shape[1:])
    if len(shape) != 3 or None in shape or shape[-1] not in (1, 3, 4):
        raise ValueError(
            check.message(
                "a model that takes images of a fixed size, for a folder of images",
                f"input shape {shape}",
                "Pass the data as an .npz file.",
            )
        )
    mode = {1: "grayscale", 3: "rgb", 4: "rgba"}[shape[-1]]
    x, y = [], []
    for number, name in enumerate(classes):
        for file in sorted((path / name).glob("*")):
            if file.suffix.lower() not in _IMAGES:
                continue
            try:
                image = keras.utils.load_img(file, color_mode=mode, target_size=shape[:2])
            except Exception as error:
                raise ValueError(
                    check.message("images", f"{file}, which cannot be read ({error})", "Remove it.")
                ) from error
            x.append(keras.utils.img_to_array(image))
            y.append(number)
    if not x:
        endings = ", ".join(_IMAGES)
        raise ValueError(check.message(f"images ({endings})", f"none in {path}", "Add some."))
    return np.stack(x).astype("float32"), np.asarray(y)


def _check(path, name, x, y, model):
    if x.dtype.kind not in "fiub" or y.dtype.kind not in "fiub":
        raise ValueError(
            check.message("numbers", f"{path}: {x.dtype} and {y.dtype}", "Encode the data first.")
        )
    if len(x) != len(y) or not len(x):
        raise ValueError(
            check.message(
                "one label for each input",
                f"{path}: {len(x)} inputs and {len(y)} labels for {name}",
                "Check the file.",
            )
        )
    shape = model.input_shape
    if not isinstance(shape, tuple):
        raise ValueError(
            check.message(
                "a model with one input",
                f"'{model.name}' with {len(shape)}",
                "Use the Python functions, which take any data.",
            )
        )
    fits = len(shape) == x.ndim and all(
        n in (None, m) for n, m in zip(shape[1:], x.shape[1:], strict=True)
    )
    # Grayscale images often have no channel axis.
    if not fits and shape[-1] == 1 and tuple(shape[1:-1]) == x.shape[1:]:
        return
    if not fits:
        raise ValueError(
            check.message(
                f"inputs of shape {tuple(shape[1:])}, which '{model.name}' takes",
                f"{path}: {x.shape[1:]}",
                "Reshape or resize the data to match the model.",
            )
        )


def _scaled(x, scale):
    return x if scale == 1.0 else (x * np.float32(scale)).astype("float32")


def split(x, y, share):
    """Splits off the same examples every time, so that results can be compared across runs.

    They are drawn at random, because data may be sorted by class.

    Returns:
        `{"train": (x, y), "test": (x, y)}`.
    """
    order = np.random.default_rng(0).permutation(len(x))
    held_out = min(len(x) - 1, max(1, round(share * len(x))))
    if held_out < 1:
        raise ValueError(
            check.message("two examples or more", f"{len(x)}", "Pass more data, or a test part.")
        )
    test, train = order[:held_out], order[held_out:]
    return {"train": (x[train], y[train]), "test": (x[test], y[test])}
