"""Reads a tf_keras model, including tfmot's wrappers, into plain numbers and JSON.

It looks at a live model by names of classes and attributes alone. For a file it is run as a script,
in a process of its own: importing tfmot turns `tf.keras` into tf_keras for good. So this file
imports nothing of tfprune, and neither Keras.
"""

import contextlib
import json
import runpy
import sys
import traceback
from pathlib import Path

import numpy as np

# Sizes that replace unknown ones when the model runs on random numbers.
_BATCH, _UNKNOWN = 3, 8


def ancestors(thing):
    """Returns the names of the class of an object and of its base classes."""
    return [base.__name__ for base in type(thing).__mro__]


def read(model):
    """Describes a live model without changing it.

    Args:
        model: A tf_keras model, Sequential or Functional.

    Returns:
        `(description, arrays, schedules)`: a dictionary that JSON can hold, `{key: array}`, and
        the schedule objects of the wrapped layers by their position among all layers.
    """
    found, arrays, schedules = [], {}, {}
    for position, (path, layer) in enumerate(leaves(model)):
        leaf, own, schedule = _read_leaf(path, layer)
        found.append(leaf)
        arrays.update({f"{position}/{key}": array for key, array in own.items()})
        if schedule is not None:
            schedules[position] = schedule
    shared = _shared(model)
    description = {
        "class_name": type(model).__name__,
        "graph": "Sequential" in ancestors(model) or "Functional" in ancestors(model),
        "config": model.get_config() if not shared else {},
        "trainable": bool(model.trainable),
        "leaves": found,
        "shared": shared,
    }
    examples = _run(model) if description["graph"] else {}
    return _plain(description), {**arrays, **examples}, schedules


def leaves(model, path=()):
    """Yields `(path, layer)` of all layers that are not Sequential or Functional models."""
    for layer in model.layers:
        name = (*path, layer.name)
        if {"Sequential", "Functional"} & set(ancestors(layer)):
            yield from leaves(layer, name)
        else:
            yield name, layer


def _shared(model):
    """Returns the paths of layers that belong to several models at once."""
    seen: dict = {}
    for path, layer in leaves(model):
        seen.setdefault(id(layer), []).append("/".join(path))
    return [paths for paths in seen.values() if len(paths) > 1]


def _read_leaf(path, layer):
    wrapped = "PruneLowMagnitude" in ancestors(layer)
    inner = layer.layer if wrapped else layer
    weights = list(inner.weights)
    leaf = {
        "path": list(path),
        "trainable": bool(inner.trainable),
        "weights": [weight.name.partition(":")[0] for weight in weights],
    }
    arrays = {f"weight_{i}": np.array(weight.numpy()) for i, weight in enumerate(weights)}
    if not wrapped:
        return leaf, arrays, None
    masks = []
    for number, (weight, mask, _) in enumerate(layer.pruning_vars):
        masks.append(next(i for i, own in enumerate(weights) if own is weight))
        arrays[f"mask_{number}"] = np.array(mask.numpy())
    leaf["pruning"] = {
        "masks": masks,
        "step": int(layer.pruning_step.numpy()) if hasattr(layer, "pruning_step") else -1,
        "schedule": _schedule_config(layer.pruning_schedule),
        "block_size": list(layer.block_size),
        "block_pooling_type": layer.block_pooling_type,
        "sparsity_m_by_n": layer.sparsity_m_by_n and list(layer.sparsity_m_by_n),
    }
    return leaf, arrays, layer.pruning_schedule


def _schedule_config(schedule):
    config = schedule.get_config()
    if set(config) == {"class_name", "config"}:
        return config
    return {"class_name": type(schedule).__name__, "config": config}


def _run(model):
    """Runs the model on random numbers; returns inputs and outputs, or `{}` if it cannot run."""
    random = np.random.default_rng(0)
    wrappers = [layer for _, layer in leaves(model) if "PruneLowMagnitude" in ancestors(layer)]
    before = [(weight, weight.numpy()) for layer in wrappers for weight, _, _ in layer.pruning_vars]
    try:
        inputs = [_random(tensor, random) for tensor in model.inputs]
        outputs = model(inputs[0] if len(inputs) == 1 else inputs, training=False)
        found = [np.asarray(output) for output in _flat(outputs)]
    except Exception:
        # The model may not accept random numbers.
        return {}
    finally:
        # A tfmot wrapper zeroes pruned weights when it is called.
        for weight, value in before:
            weight.assign(value)
    return {
        **{f"input_{i}": array for i, array in enumerate(inputs)},
        **{f"output_{i}": array for i, array in enumerate(found)},
    }


def _random(tensor, random):
    batch, *shape = tensor.shape
    shape = (batch or _BATCH, *(size or _UNKNOWN for size in shape))
    if tensor.dtype.is_floating:
        return random.normal(size=shape).astype(tensor.dtype.as_numpy_dtype)
    return random.integers(0, 2, size=shape).astype(tensor.dtype.as_numpy_dtype)


def _flat(structure):
    if isinstance(structure, dict):
        return [leaf for key in sorted(structure) for leaf in _flat(structure[key])]
    if isinstance(structure, (list, tuple)):
        return [leaf for part in structure for leaf in _flat(part)]
    return [structure]


def _plain(description):
    """Converts a description to lists, dictionaries, numbers and strings."""
    return json.loads(json.dumps(description, default=_as_json))


def _as_json(value):
    if isinstance(value, (np.ndarray, np.generic)):
        return value.tolist()
    for name in ("as_list", "get_config"):
        if hasattr(value, name):
            return getattr(value, name)()
    if hasattr(value, "items"):
        return dict(value.items())
    if hasattr(value, "as_numpy_dtype") or callable(value):
        return getattr(value, "name", None) or value.__name__
    raise TypeError(f"a layer's get_config() holds {value!r}, which no file can hold")


# -- As a script -----------------------------------------------------------------------------------


def _load(path, code):
    import tf_keras

    try:
        import tensorflow_model_optimization as tfmot
    except ImportError:  # A plain model does without.
        wrappers = contextlib.nullcontext()
    else:
        wrappers = tfmot.sparsity.keras.prune_scope()

    objects = runpy.run_path(code) if code else {}
    objects = {name: thing for name, thing in objects.items() if callable(thing) and name[0] != "_"}
    with wrappers, tf_keras.utils.custom_object_scope(objects):
        return tf_keras.models.load_model(path, compile=False)


def _holds_code(path):
    """Whether a file has a Lambda layer, whose code would run on loading."""
    import h5py

    path = Path(path)
    if path.is_dir():
        metadata = path / "keras_metadata.pb"
        text = metadata.read_bytes() if metadata.is_file() else b""
    elif h5py.is_hdf5(path):
        with h5py.File(path) as file:
            text = file.attrs.get("model_config", "")
        text = text.encode() if isinstance(text, str) else bytes(text)
    else:
        # tf_keras checks .keras files itself.
        text = b""
    return b'"class_name": "Lambda"' in text or b'"class_name":"Lambda"' in text


def main(path, folder, code=""):
    """Writes `description.json` and `arrays.npz`, or `error.txt`, into a folder."""
    folder = Path(folder)
    try:
        if _holds_code(path):
            raise ValueError("it has a Lambda layer, whose code would run when it is loaded")
        description, arrays, _ = read(_load(path, code))
        (folder / "description.json").write_text(json.dumps(description))
        np.savez(folder / "arrays.npz", **arrays)
    except Exception as error:
        traceback.print_exc()
        (folder / "error.txt").write_text(f"{type(error).__name__}: {error}")


if __name__ == "__main__":
    main(*sys.argv[1:])
