"""What a run leaves behind: records in memory, or in a folder from which it is resumed."""

import json
import pathlib
from typing import Any

import numpy as np

from tfprune._base import validation as check
from tfprune._base.files import finished_at_once, is_leftover


class RecordStore:
    """Keeps numbered records of arrays and plain data.

    In a folder, each record is one file, which appears whole or not at all.

    Args:
        folder: Path of the folder, made if need be; `None` for memory alone.
        config: Plain data that says what the records are about.
        what: What messages call the records: "tickets" for instance.

    Raises:
        ValueError: If the folder holds records of another configuration, or files of another kind.
    """

    def __init__(self, folder, config, what):
        self._memory: dict = {}
        self._what = what
        self._folder: Any = None if folder is None else pathlib.Path(folder)
        if self._folder is None:
            return
        config = json.loads(json.dumps(config))
        path = self._folder / "config.json"
        if path.exists():
            self._check_config(json.loads(path.read_text()), config)
        elif self._folder.exists() and (not self._folder.is_dir() or _others(self._folder)):
            raise ValueError(
                check.message(
                    f"`path` to be an empty folder, or to hold {self._what}",
                    f"path={str(folder)!r}, which is or holds something else",
                    "Choose another folder.",
                )
            )
        else:
            self._folder.mkdir(parents=True, exist_ok=True)
            with finished_at_once(path) as unfinished:
                unfinished.write_text(json.dumps(config, indent=1))

    def _check_config(self, found, config):
        found, config = _without_modules(found), _without_modules(config)
        different = [key for key in config if found.get(key) != config[key]]
        if different:
            name = different[0]
            raise ValueError(
                check.message(
                    f"`path` to hold {self._what} of this configuration, "
                    f"{name}={config[name]!r:.200}",
                    f"path={str(self._folder)!r}, whose {self._what} have "
                    f"{name}={found.get(name)!r:.200}",
                    "Choose another folder, or go on with the configuration that it was made with.",
                )
            )

    def __contains__(self, name):
        return name in self._memory if self._folder is None else self._path(name).exists()

    def _path(self, name):
        return self._folder / f"{name}.npz"

    def save(self, name, arrays, data=None):
        """Keeps a record.

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
                # NumPy's files know no bfloat16: the bytes go in, and the dtype beside them.
                flat[f"{group}_{position}"] = np.frombuffer(item.tobytes(), dtype="uint8")
                flat[f"{group}_{position}_shape"] = np.array(item.shape, dtype="int64")
                flat[f"{group}_{position}_dtype"] = np.array(item.dtype.name)
        with finished_at_once(self._path(name)) as unfinished:
            np.savez(unfinished, **flat)

    def arrays(self, name):
        """Returns the arrays of a record."""
        if self._folder is None:
            return self._memory[name][0]
        with np.load(self._path(name)) as file:
            groups = [key.removesuffix("_size") for key in file.files if key.endswith("_size")]
            return {
                group: [_array(file, f"{group}_{n}") for n in range(int(file[f"{group}_size"]))]
                for group in groups
            }

    def data(self, name):
        """Returns the plain data of a record."""
        if self._folder is None:
            return self._memory[name][1]
        with np.load(self._path(name)) as file:
            return json.loads(str(file["data"]))


def _without_modules(config):
    """Leaves out in which file a class is: Keras finds it by its registered name, wherever it is.

    Files move from version to version, and a folder can be older.
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
    """Whether a folder holds more than what a killed program left there."""
    return any(not is_leftover(path) for path in folder.iterdir())


def _array(file, key):
    dtype = str(file[f"{key}_dtype"])
    # NumPy knows it by name once ml_dtypes is imported, which every backend of Keras does.
    return np.frombuffer(file[key].tobytes(), np.dtype(dtype)).reshape(tuple(file[f"{key}_shape"]))
