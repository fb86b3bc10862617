"""Records of a run, in memory or in a folder from which the run can resume."""

import json
import pathlib
import zipfile
from contextlib import contextmanager
from typing import Any

import numpy as np

from tfprune._base import validation as check
from tfprune._base.damage import checksum_of_entries, damaged
from tfprune._base.files import (
    check_name,
    is_leftover,
    read_arrays,
    remove_leftovers,
    written_atomically,
)

# What Python raises for content of another form.
_MISFITS = (LookupError, TypeError, ValueError, AttributeError, RecursionError)


class RecordStore:
    """Stores named records of arrays and plain data.

    In a folder, each record is one file, written atomically.

    Args:
        folder: Path of the folder, created if necessary; `None` to keep records in memory only.
        config: Plain data that identifies the run.
        what: Name of the records in messages, for instance "tickets".

    Raises:
        ValueError: If the folder holds records of another configuration, or files of another kind.
    """

    def __init__(self, folder, config, what):
        self._memory: dict = {}
        self._what = what
        self._folder: Any = None if folder is None else pathlib.Path(folder)
        if self._folder is None:
            return
        check_name(self._folder)
        config = json.loads(json.dumps(config))
        path = self._folder / "config.json"
        if path.exists():
            self._check_config(_read_config(path), config)
            for kept in (path, *self._folder.glob("*.npz")):
                remove_leftovers(kept)
        elif self._folder.exists() and (not self._folder.is_dir() or _others(self._folder)):
            raise ValueError(
                check.message(
                    f"`path` to be an empty folder, or to hold {self._what}",
                    f"path={str(folder)!r}, which has other contents",
                    "Choose another folder.",
                )
            )
        else:
            self._folder.mkdir(parents=True, exist_ok=True)
            with written_atomically(path) as unfinished:
                unfinished.write_text(json.dumps(config, indent=1))

    def _check_config(self, found, config):
        config = _without_modules(config)
        different = [key for key in config if found.get(key) != config[key]]
        if different:
            name = different[0]
            raise ValueError(
                check.message(
                    f"`path` to hold {self._what} of this configuration, "
                    f"{name}={config[name]!r:.200}",
                    f"path={str(self._folder)!r}, whose {self._what} have "
                    f"{name}={found.get(name)!r:.200}",
                    f"Choose another folder, or use the same {name} as in this one.",
                )
            )

    @property
    def path(self):
        """The folder, or `None`."""
        return self._folder

    def __contains__(self, name):
        return name in self._memory if self._folder is None else self._path(name).exists()

    def _path(self, name):
        return self._folder / f"{name}.npz"

    def save(self, name, arrays, data=None):
        """Stores a record.

        Args:
            name: Its name.
            arrays: `{group: list of arrays}`.
            data: Plain data.
        """
        if self._folder is None:
            self._memory[name] = (arrays, data)
            return
        flat: Any = {"data": np.array(json.dumps(data))}
        for group, items in arrays.items():
            flat[f"{group}_size"] = np.array(len(items))
            for position, item in enumerate(items):
                # NumPy's files do not support bfloat16, so store the bytes and the dtype.
                flat[f"{group}_{position}"] = np.frombuffer(item.tobytes(), dtype="uint8")
                flat[f"{group}_{position}_shape"] = np.array(item.shape, dtype="int64")
                flat[f"{group}_{position}_dtype"] = np.array(item.dtype.name)
        flat["record"] = np.array(name)
        flat["checksum"] = np.array(checksum_of_entries(flat), dtype="int64")
        with written_atomically(self._path(name)) as unfinished:
            np.savez(unfinished, **flat)

    def arrays(self, name):
        """Returns the arrays of a record."""
        if self._folder is None:
            return self._memory[name][0]
        file = self._read(name)
        groups = [key.removesuffix("_size") for key in file if key.endswith("_size")]
        with self.reading(name):
            return {
                group: [_array(file, f"{group}_{n}") for n in range(int(file[f"{group}_size"]))]
                for group in groups
            }

    def data(self, name):
        """Returns the plain data of a record."""
        if self._folder is None:
            return self._memory[name][1]
        with self.reading(name):
            return json.loads(str(self._read(name)["data"]))

    @contextmanager
    def reading(self, name):
        """Context for using a record; what does not fit raises an error that names the file."""
        try:
            yield
        except (*_MISFITS, OSError, zipfile.BadZipFile) as error:
            if self._folder is None or "Expected " in str(error):
                raise
            said = f"one with another content ({type(error).__name__}: {error})"
            raise _unreadable(self._path(name), said) from error

    def _read(self, name):
        """Returns the arrays of a record's file; raises if they are not those that were written."""
        path = self._path(name)
        try:
            found = read_arrays(path)
        except ValueError as error:
            raise _unreadable(path, f"one that cannot be read ({error})") from error
        with self.reading(name):
            # Records of version 0.1 have none.
            if "checksum" in found:
                sum_then = int(found.pop("checksum"))
                if checksum_of_entries(found) != sum_then:
                    raise _unreadable(path, "other numbers than were written into it")
                if str(found.pop("record")) != name:
                    raise _unreadable(path, "the record of another round")
            if "data" not in found:
                raise _unreadable(path, "a file without its data")
        return found


def _read_config(path):
    try:
        return _without_modules(dict(json.loads(path.read_text())))
    except (*_MISFITS, OSError) as error:
        raise _unreadable(path, f"one that cannot be read ({error})") from error


def _unreadable(path, received):
    return damaged(
        f"the file {str(path)!r} to be a whole record",
        f"{received}"[:200],
        "Remove it and all records of later rounds: run() makes them again.",
    )


def _without_modules(config):
    """Drops the modules of registered classes, which Keras finds by their registered names.

    A folder may come from an older version, in which a class was in another module.
    """
    if isinstance(config, list):
        return [_without_modules(item) for item in config]
    if not isinstance(config, dict):
        return config
    registered = config.get("registered_name") is not None
    return {
        key: _without_modules(value)
        for key, value in config.items()
        if not (registered and key == "module")
    }


def _others(folder):
    """Whether a folder contains anything other than leftovers of a killed run."""
    return any(not is_leftover(path) for path in folder.iterdir())


def _array(file, key):
    dtype = str(file[f"{key}_dtype"])
    # NumPy finds bfloat16 by name because every backend of Keras imports ml_dtypes.
    return np.frombuffer(file[key].tobytes(), np.dtype(dtype)).reshape(tuple(file[f"{key}_shape"]))
