"""The file from which an interrupted sensitivity analysis resumes."""

import json
import pathlib
from typing import Any

from tfprune._base import validation as check
from tfprune._base.damage import checksum_of_data, damaged
from tfprune._base.files import check_name, remove_leftovers, written_atomically


class Record:
    """Measured values, kept in memory and in an atomically written JSON file.

    Args:
        path: The file, or `None` to keep the values in memory only.
        settings: Plain data on which the values depend.
        layers: Paths of all layers that can be measured, in the order of the model. Keras numbers
            the names that it makes itself, so the same model may have other names in the file.

    Attributes:
        metric: Name of the metric, or `None`.
        baseline: The metric of the unchanged model, or `None`.

    Raises:
        ValueError: If the file has other settings or another format, or its folder is missing.
    """

    def __init__(self, path, settings, layers):
        self._path: Any = None if path is None else pathlib.Path(path)
        self._settings = json.loads(json.dumps(settings))
        self._layers = list(layers)
        self.metric: Any = None
        self.baseline: Any = None
        self._values: dict = {}
        if self._path is None:
            return
        check_name(self._path)
        if self._path.parent.is_dir():
            remove_leftovers(self._path)
        if self._path.exists():
            self._read()
        elif not self._path.parent.is_dir():
            raise ValueError(
                check.message(
                    "`path` to be a file in an existing folder",
                    f"path={str(path)!r}",
                    "Create the folder first.",
                )
            )

    def _read(self):
        try:
            found = json.loads(self._path.read_text())
            settings = {name: found["settings"][name] for name in self._settings}
            metric, baseline, values = found["metric"], found["baseline"], found["values"]
            _check_numbers(baseline, values)
            # Files of version 0.1 have neither.
            known = found.get("layers", self._layers)
            if not (isinstance(known, list) and all(isinstance(name, str) for name in known)):
                raise TypeError("names are strings")
            sum_then = found.pop("checksum", None)
            whole = sum_then is None or sum_then == checksum_of_data(found)
        except (OSError, ValueError, LookupError, TypeError, RecursionError) as error:
            raise ValueError(
                check.message(
                    "`path` to be a file that sensitivity() wrote, or a new one",
                    f"path={str(self._path)!r}, which is another kind of file",
                    "Choose another name; the file was not changed.",
                )
            ) from error
        if not whole:
            raise damaged(
                f"the file {str(self._path)!r} to hold what sensitivity() wrote",
                "other numbers",
                "Remove it and measure again, or choose another name.",
            )
        different = [name for name in settings if settings[name] != self._settings[name]]
        if different:
            name = different[0]
            wanted, there = (f"{value!r:.80}" for value in (self._settings[name], settings[name]))
            raise ValueError(
                check.message(
                    f"`path` to hold measurements with the same {name}, {wanted}",
                    f"path={str(self._path)!r} with {there}",
                    f"Choose another name, or use the same {name} as in the file.",
                )
            )
        # Another version may measure other layers; then names alone decide.
        fits = len(known) == len(self._layers)
        names = dict(zip(known, self._layers, strict=True)) if fits else {}
        self.metric, self.baseline = metric, baseline
        self._values = {names.get(layer, layer): found for layer, found in values.items()}

    def value(self, layer, sparsity):
        """Returns a measurement, or `None`."""
        return self._values.get(layer, {}).get(repr(sparsity))

    def keep_baseline(self, value, metric):
        """Stores the metric of the unchanged model, and its name."""
        self.baseline, self.metric = value, metric
        self._write()

    def keep(self, layer, sparsity, value):
        """Stores a measurement."""
        self._values.setdefault(layer, {})[repr(sparsity)] = value
        self._write()

    def _write(self):
        if self._path is None:
            return
        whole = {
            "settings": self._settings,
            "layers": self._layers,
            "metric": self.metric,
            "baseline": self.baseline,
            "values": self._values,
        }
        whole["checksum"] = checksum_of_data(json.loads(json.dumps(whole)))
        with written_atomically(self._path) as unfinished:
            unfinished.write_text(json.dumps(whole, indent=1))


def _check_numbers(baseline, values):
    """Raises TypeError unless all that was measured is a number."""
    numbers = [value for layer in dict(values).values() for value in dict(layer).values()]
    if baseline is not None:
        numbers.append(baseline)
    if not all(isinstance(value, (int, float)) for value in numbers):
        raise TypeError("a measurement that is no number")
