"""Reads a tf_keras model, including tfmot's wrappers, into plain numbers and JSON.

It looks at a live model by names of classes and attributes alone. For a file it is run as a script,
in its own process: importing tfmot turns `tf.keras` into tf_keras for good. So this file
imports nothing of tfprune, and neither Keras.
"""

import contextlib
import json
import runpy
import sys
import traceback
import zipfile
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
        if not Path(path).is_dir():
            return tf_keras.models.load_model(path, compile=False)
        # Not by load_model, which also loads the functions of a SavedModel, and these can run
        # arbitrary code. Configs and arrays are enough.
        description = config_of_file(path)
        model = tf_keras.models.model_from_json(json.dumps(description))
        if not model.built:
            shape = _root_metadata(path).get("build_input_shape")
            model.build(_as_shape(shape))
        status = model.load_weights(str(Path(path) / "variables" / "variables"))
        status.expect_partial().assert_existing_objects_matched()
        return model


def _as_shape(shape):
    """A shape as configs hold it."""
    if isinstance(shape, dict):
        shape = shape.get("items", shape.get("shape"))
    return tuple(shape)


def _root_metadata(path):
    """Returns the metadata of the whole model in a SavedModel of tf_keras."""
    from tf_keras.protobuf import saved_metadata_pb2

    found = saved_metadata_pb2.SavedMetadata()
    found.ParseFromString((Path(path) / "keras_metadata.pb").read_bytes())
    for node in found.nodes:
        if node.node_path == "root":
            return json.loads(node.metadata)
    raise ValueError("its keras_metadata.pb does not describe the model")


def config_of_file(path):
    """The config of a saved model, parsed; `None` where the file has none."""
    path = Path(path)
    if path.is_dir():
        root = _root_metadata(path)
        if root.get("config") is None:
            raise ValueError(f"{root.get('class_name')} is a class without a config")
        return {"class_name": root["class_name"], "config": root["config"]}
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            if "config.json" not in archive.namelist():
                return None
            return json.loads(archive.read("config.json"))
    import h5py

    if not h5py.is_hdf5(path):
        return None
    with h5py.File(path) as file:
        text = file.attrs.get("model_config")
    if text is None:
        return None
    return json.loads(text if isinstance(text, str) else bytes(text))


def keras_version(path):
    """The version of Keras that saved a `.keras` or `.h5` file; `None` where it does not say."""
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            return json.loads(archive.read("metadata.json"))["keras_version"]
    import h5py

    if not h5py.is_hdf5(path):
        return None
    with h5py.File(path) as file:
        text = file.attrs.get("keras_version")
    return text if text is None or isinstance(text, str) else bytes(text).decode()


def code_in(config):
    """Returns what in a config, parsed, is code that runs when a model is made of it, or `None`."""
    stack = [config]
    while stack:
        item = stack.pop()
        if isinstance(item, dict):
            name = item.get("class_name")
            if isinstance(name, str) and name.split(">")[-1] in ("Lambda", "__lambda__"):
                return "a Lambda layer" if "__" not in name else "a lambda function"
            if "lambda" in (item.get("function_type"), item.get("output_shape_type")):
                return "a lambda function"
            stack.extend(item.values())
        elif isinstance(item, (list, tuple)):
            stack.extend(item)
    return None


def main(path, folder, code="", safe="safe"):
    """Writes `description.json` and `arrays.npz`, or `error.txt`, into a folder.

    Args:
        path: The file.
        folder: The folder.
        code: Path of a Python file with the classes of the model, or "".
        safe: "safe" rejects a file that contains code, "unsafe" runs it.
    """
    folder = Path(folder)
    try:
        found = code_in(config_of_file(path)) if safe == "safe" else None
        if found:
            raise ValueError(f"it has {found}, whose code would run when it is loaded")
        if safe != "safe":
            import tf_keras

            tf_keras.__internal__.enable_unsafe_deserialization()
        description, arrays, _ = read(_load(path, code))
        (folder / "description.json").write_text(json.dumps(description))
        np.savez(folder / "arrays.npz", **arrays)
    except Exception as error:
        traceback.print_exc()
        (folder / "error.txt").write_text(f"{type(error).__name__}: {error}")


if __name__ == "__main__":
    main(*sys.argv[1:])
