"""Entries of the files in which Keras keeps weights."""

import contextlib
import pathlib

import numpy as np
from keras.src.backend.common import global_state

from tfprune._keras.devices import on_host


class Recorder(dict):
    """Collects the arrays that a layer writes into a file, under the same names."""

    def __setitem__(self, key, value):
        super().__setitem__(key, on_host(value))


def recorded(saveable):
    """Returns the numbers that a layer or an optimizer writes into a file, as a list of arrays."""
    entries = Recorder()
    saveable.save_own_variables(entries)
    return [array for array in map(np.asarray, entries.values()) if _is_numeric(array)]


def entry(store, key):
    """Returns an entry of a file without reading its values, or `None` if it is not there.

    It has `shape` and `dtype`; `np.asarray` reads it.
    """
    if key not in store:
        return None
    group = getattr(store, "_h5_entry_group", None)
    if group is not None and key in group:
        dataset = group.get(key)
        if hasattr(dataset, "shape") and not (dataset.external or dataset.is_virtual):
            return dataset
    return np.asarray(store[key])


def entries_below(store):
    """Lists the entries of a file for a layer and the layers inside it, without reading arrays.

    Returns:
        List of entries as `entry` gives them, or `None` if the file cannot be looked into.
    """
    group = getattr(store, "_h5_entry_group", None)
    parent = getattr(group, "parent", None)
    return None if parent is None else list(_datasets(parent))


def entries_of_file(store):
    """Yields all entries of a file, those of its other shards too, without reading them."""
    file = getattr(store, "h5_file", None)
    if file is None:
        return
    yield from _datasets(file)
    config = getattr(store, "sharding_config", None)
    if config is None:
        return
    here = pathlib.Path(file.filename)
    names: set = set()
    for shards in config["weight_map"].values():
        names.update([shards] if isinstance(shards, str) else shards)
    import h5py

    for name in sorted(names - {here.name}):
        with contextlib.suppress(OSError), h5py.File(here.with_name(pathlib.Path(name).name)) as f:
            yield from _datasets(f)


def _datasets(group):
    for key in group:
        if group.get(key, getlink=True).__class__.__name__ != "HardLink":
            continue
        item = group[key]
        if hasattr(item, "keys"):
            yield from _datasets(item)
        elif _is_numeric(item) and not (item.external or item.is_virtual):
            yield item


def _is_numeric(array):
    return array.dtype.kind in "biufcV"


def is_legacy_h5():
    """Whether a model is being saved to, or loaded from, a file in the legacy HDF5 format."""
    return bool(global_state.get_global_attribute("use_legacy_config", False))
