"""Converts models of tf_keras and tfmot to Keras 3: `from_tf_keras`, `from_tfmot`."""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import keras
import numpy as np

from tfprune import _keras
from tfprune._base import validation as check
from tfprune._base.differences import relative_difference
from tfprune._base.packages import check_installed
from tfprune._wrapping.strip import strip_pruning
from tfprune._wrapping.tfmot_arguments import pattern_of
from tfprune._wrapping.wrapper import PruneLowMagnitude
from tfprune.interop import tfmot_reader
from tfprune.interop.tf_keras_configs import ConvertedModel
from tfprune.interop.tfmot_layers import MigratedLayer

# Allowed differences of outputs, as fractions of the largest output: rounding only.
_TOLERANCE, _HALF_PRECISION = 1e-3, 3e-2


def from_tfmot(
    model_or_path,
    custom_objects=None,
    *,
    sparsity_m_by_n=None,
    legacy_code=None,
    safe_mode=True,
):
    """Turns a tfmot-wrapped tf_keras model, or its file, into a wrapped Keras 3 model.

    Pruning continues from the same state: weights, masks, schedules, block sizes and pruning
    steps are the same. Compile the model and call `fit` with `tfprune.UpdatePruningStep()`. The
    optimizer and its state are not converted.

    - *Weights*: kept weights are the same bit for bit. Pruned ones are exactly zero; tfmot lets
      them drift during training and zeroes them before the next use. The outputs therefore equal
      those of the tfmot model; they are compared on random inputs where the model accepts them.
    - *Steps*: after n batches both libraries count n and have evaluated the schedule at 1 to n.
      tfmot's counter is -1 before training, which becomes 0; tfprune evaluates the schedule there
      too. tfmot makes a mask before the update that it counts, tfprune after it.
    - *Schedules*: those of tfmot become their namesakes, which also prune at `end_step`. With
      `sparsity_m_by_n`, tfmot ignores the sparsity of its schedule, so a `ConstantSparsity`
      with the same steps takes its place.
    - *Layers*: wrapped layers get their own names back; a wrapped layer without prunable weights
      becomes a plain layer.

    A file is read in a separate process, because importing tfmot turns `tf.keras` into tf_keras
    for the whole process. This needs `pip install "tfprune[tfmot]"`; a live model needs no extra.

    Args:
        model_or_path: A Sequential or Functional tf_keras model with layers wrapped by tfmot, or
            the path of one: `.h5`, `.keras`, or the folder of a SavedModel.
        custom_objects: `{name: object}` for Keras 3: schedules, functions, and the classes of
            custom layers, which declare their prunable weights as `PrunableLayer` does.
        sparsity_m_by_n: `(zeros, group)` that the model of a file was wrapped with: tfmot does
            not save it. A live model knows it.
        legacy_code: For a file with your own classes: the path of the Python file that defines
            them for tf_keras and tfmot. It runs in the process that reads the model.
        safe_mode: `False` loads a file with Lambda layers, whose code then runs: only for files
            that you trust. The functions of a SavedModel are never run.

    Returns:
        A wrapped `keras.Model`, uncompiled. The tf_keras model is not changed.

    Raises:
        TypeError: If `model_or_path` is neither a path nor a tf_keras model, for instance a
            Keras 3 model.
        ValueError: If the file is missing or cannot be loaded, the model has no wrapped layer, a
            layer has no counterpart in Keras 3, or the outputs of the new model differ.
        ImportError: If a file is to be read and tfmot or tf_keras is not installed.

    Example:

    >>> try:  # A folder without such a file.
    ...     model = tfprune.interop.from_tfmot("pruned_with_tfmot.h5")
    ... except ValueError as error:
    ...     print(str(error).split(".")[0])
    Expected the path of a saved model
    """
    if sparsity_m_by_n is not None:
        pattern_of((1, 1), "AVG", sparsity_m_by_n, None)
    return _moved(model_or_path, custom_objects, sparsity_m_by_n, legacy_code, safe_mode)


def from_tf_keras(model_or_path, custom_objects=None, *, legacy_code=None, safe_mode=True):
    """Turns a tf_keras model, or its file, into a plain Keras 3 model.

    Use it for a SavedModel written by tf_keras, which Keras 3 cannot load as a model. Its folder
    contains the configs of the layers; a SavedModel exported by Keras 3 does not. Layers wrapped
    by tfmot are stripped as by `strip_pruning`. As in `from_tfmot`, a file is read in a separate
    process, and the outputs are compared.

    Args:
        model_or_path: A Sequential or Functional tf_keras model, or the path of one: `.h5`,
            `.keras`, or the folder of a SavedModel.
        custom_objects: `{name: object}` for Keras 3, as in `from_tfmot`.
        legacy_code: As in `from_tfmot`.
        safe_mode: As in `from_tfmot`.

    Returns:
        A `keras.Model`, uncompiled. The tf_keras model is not changed.

    Raises:
        TypeError: If `model_or_path` is neither a path nor a tf_keras model, for instance a
            Keras 3 model.
        ValueError: If the file is missing or cannot be loaded, a layer has no counterpart in Keras
            3, or the outputs of the new model differ.
        ImportError: If a file is to be read and tf_keras is not installed.

    Example:

    >>> try:  # A folder without such a file.
    ...     model = tfprune.interop.from_tf_keras("saved_by_tf_keras")
    ... except ValueError as error:
    ...     print(str(error).split(".")[0])
    Expected the path of a saved model
    """
    model = _moved(model_or_path, custom_objects, None, legacy_code, safe_mode, with_tfmot=False)
    return strip_pruning(model) if _owners(model) else model


def _moved(model_or_path, custom_objects, sparsity_m_by_n, legacy_code, safe_mode, with_tfmot=True):
    """Reads a model and builds its counterpart, with wrappers where tfmot had them."""
    objects = _check_objects(custom_objects)
    if isinstance(model_or_path, (str, os.PathLike)):
        source = f"the file {str(model_or_path)!r}"
        description, arrays = _read_file(Path(model_or_path), legacy_code, safe_mode, with_tfmot)
        live: dict = {}
    else:
        source = "the model"
        _check_live(model_or_path, sparsity_m_by_n, legacy_code)
        description, arrays, live = tfmot_reader.read(model_or_path)
    _check_description(description, source, with_tfmot)
    converted = ConvertedModel(description["class_name"], description["config"], objects)
    leaves = [
        MigratedLayer(leaf, position, arrays, converted.layers)
        for position, leaf in enumerate(description["leaves"])
        if leaf["weights"]
    ]
    wrapped = {}
    for leaf in leaves:
        leaf.take_weights()
        if leaf.masks:
            wrapped[id(leaf.layer)] = leaf
            leaf.choose_method(live.get(leaf.position), objects, sparsity_m_by_n)
    with keras.saving.custom_object_scope(objects):
        model = _keras.clone_graph(converted.model, lambda layer: _stand_in(layer, wrapped))
    for owner in _owners(model):
        wrapped_leaf = next(leaf for leaf in wrapped.values() if leaf.wrapper is owner)
        wrapped_leaf.take_masks()
    if not description["trainable"]:
        model.trainable = False
    _check_same(model, arrays)
    return model


def _owners(model):
    return [layer for layer in _keras.flatten(model) if isinstance(layer, PruneLowMagnitude)]


def _stand_in(layer, wrapped):
    clone = _keras.bare_clone(layer)
    leaf = wrapped.get(id(layer))
    return layer, clone, clone if leaf is None else leaf.wrap(clone)


# -- Arguments ------------------------------------------------------------------------------------


def _check_objects(custom_objects):
    if custom_objects is None:
        return {}
    if not isinstance(custom_objects, dict):
        raise TypeError(
            check.message(
                "`custom_objects` to be a dictionary from names to objects",
                f"custom_objects={custom_objects!r}",
                'Use for instance {"MyLayer": MyLayer}.',
            )
        )
    return custom_objects


def _check_live(model, sparsity_m_by_n, legacy_code):
    if isinstance(model, keras.layers.Layer):
        raise TypeError(
            check.message(
                "a tf_keras model or the path of one",
                f"a Keras 3 {type(model).__name__}",
                "It needs no conversion: pass it to tfprune.prune_low_magnitude.",
            )
        )
    homes = {base.__module__.split(".")[0] for base in type(model).__mro__}
    if "tf_keras" not in homes or "Model" not in tfmot_reader.ancestors(model):
        raise TypeError(
            check.message(
                "a tf_keras model or the path of one",
                f"model_or_path={type(model).__name__}",
                "Put a single layer into a tf_keras.Sequential first.",
            )
        )
    for name, value in (("sparsity_m_by_n", sparsity_m_by_n), ("legacy_code", legacy_code)):
        if value is not None:
            raise ValueError(
                check.message(
                    f"`{name}` only for a file",
                    f"{name}={value!r} with a live model, which provides it",
                    "Leave it out.",
                )
            )
    if not model.built:
        raise ValueError(
            check.message(
                "a built model",
                f"'{model.name}', which has no weights yet",
                "Call it on data once.",
            )
        )


def _check_description(description, source, with_tfmot):
    if not description["graph"]:
        raise ValueError(
            check.message(
                "a Sequential or Functional model",
                f"{source} of class {description['class_name']}",
                "Build the same layers with tf_keras.Model(inputs, outputs), and copy the weights.",
            )
        )
    if description["shared"]:
        raise ValueError(
            check.message(
                "each layer to belong to one model only",
                f"one that is shared by models, {' = '.join(description['shared'][0])}",
                "Give each nested model its own layers.",
            )
        )
    wrapped = any(leaf.get("pruning", {}).get("masks") for leaf in description["leaves"])
    if with_tfmot and not wrapped:
        raise ValueError(
            check.message(
                "a model with layers that tfmot wrapped",
                f"{source} without any",
                "Convert it before tfmot's strip_pruning. Or convert the plain model with "
                "tfprune.interop.from_tf_keras and call tfprune.prune_low_magnitude.",
            )
        )


def _read_file(path, legacy_code, safe_mode, with_tfmot):
    """Reads a file in a separate process; returns `(description, arrays)`."""
    if not path.exists():
        raise ValueError(
            check.message(
                "the path of a saved model",
                f"{str(path)!r}, which does not exist",
                "Pass the .h5 or .keras file, or the folder of the SavedModel.",
            )
        )
    if legacy_code is not None and not Path(legacy_code).is_file():
        raise ValueError(
            check.message(
                "`legacy_code` to be the path of a Python file",
                f"legacy_code={str(legacy_code)!r}",
                "Pass the file that defines the classes of the model.",
            )
        )
    _check_not_keras_3(path)
    packages = ("tensorflow_model_optimization", "tf_keras")[not with_tfmot :]
    check_installed(packages, "tfmot", f"to read {path.name!r}")
    with tempfile.TemporaryDirectory() as folder:
        done = _run_reader(path, folder, legacy_code, safe_mode)
        if done.returncode or not (Path(folder) / "description.json").is_file():
            said = Path(folder) / "error.txt"
            why = said.read_text() if said.is_file() else done.stderr.strip()[-500:]
            raise ValueError(
                check.message(
                    "a whole model that tf_keras can load",
                    f"{str(path)!r}: {why}",
                    "If it has custom classes, pass the Python file that defines them as "
                    "`legacy_code`; if you trust the code in it, pass `safe_mode=False`, or "
                    "--unsafe in the command; if it holds only weights, load them into the model "
                    "and pass the model.",
                )
            )
        description = json.loads((Path(folder) / "description.json").read_text())
        with np.load(Path(folder) / "arrays.npz") as arrays:
            return description, dict(arrays)


def _check_not_keras_3(path):
    """Raises for a file that Keras 3 saved, which needs no conversion."""
    try:
        version = tfmot_reader.keras_version(path)
    except Exception:
        # A damaged file raises errors of many kinds; the reader says what is wrong.
        return
    if version is not None and version.split(".")[0] == "3":
        raise ValueError(
            check.message(
                "a file that tf_keras saved",
                f"{str(path)!r}, a Keras 3 file (Keras {version}), which needs no conversion",
                f"Load it with keras.saving.load_model({str(path)!r}).",
            )
        )


def _run_reader(path, folder, legacy_code, safe_mode):
    environment = {key: value for key, value in os.environ.items() if key != "KERAS_BACKEND"}
    # The accelerator belongs to this process.
    environment.update(TF_USE_LEGACY_KERAS="1", CUDA_VISIBLE_DEVICES="-1")
    arguments = [tfmot_reader.__file__, str(path), folder, str(legacy_code or "")]
    arguments.append("safe" if safe_mode else "unsafe")
    # Not run by its path: the files next to it would hide packages of the same names.
    start = (
        "import runpy, sys; sys.argv = sys.argv[1:]; runpy.run_path(sys.argv[0], {}, '__main__')"
    )
    return subprocess.run(
        [sys.executable, "-c", start, *arguments],
        capture_output=True,
        text=True,
        env=environment,
        check=False,
    )


# -- Results ---------------------------------------------------------------------------------------


def _check_same(model, arrays):
    """Raises ValueError if the outputs of the new model differ from those of tf_keras."""
    inputs = [arrays[f"input_{i}"] for i in range(len(arrays)) if f"input_{i}" in arrays]
    wanted = [arrays[f"output_{i}"] for i in range(len(arrays)) if f"output_{i}" in arrays]
    if not wanted:
        return
    single = isinstance(model, keras.Sequential)
    # The inputs of a graph may have names.
    given = inputs[0] if single else keras.tree.pack_sequence_as(model.input, inputs)
    found = model(given, training=False)
    found = [np.asarray(_keras.on_host(array)) for array in keras.tree.flatten(found)]
    for ours, theirs in zip(found, wanted, strict=True):
        limit = _HALF_PRECISION if theirs.dtype.itemsize < 4 else _TOLERANCE
        off = relative_difference(theirs, ours)
        if not off <= limit:
            raise ValueError(
                check.message(
                    f"the outputs of the Keras 3 model to equal those of the tf_keras model, to "
                    f"{limit:g} of the largest output",
                    f"a difference of {off:.3g}",
                    "Look for a layer that computes differently in Keras 3, perhaps one in "
                    "`custom_objects`.",
                )
            )
