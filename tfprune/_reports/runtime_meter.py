"""Measures models as the files of one runtime."""

import tempfile
from contextlib import ExitStack
from pathlib import Path

from tfprune._base import validation as check
from tfprune._base.progress import progress
from tfprune._formats.base import WriteOptions
from tfprune._formats.examples import random_inputs
from tfprune._formats.keras_file import KerasSession
from tfprune._formats.quiet import without_log
from tfprune._formats.table import FORMATS, check_packages
from tfprune._reports.latency import compare_latency


class RuntimeMeter:
    """Models as files of one runtime, for measurements in turn. Use it as a context manager.

    Args:
        runtime: "keras", which runs models without a file, or the name of another file format.
        threads: As in `tfprune.compare_latency`, likewise `batch_size`, `input_shape` and
            `verbose`.

    Raises:
        ValueError: If the runtime is unknown.
        ImportError: If it is not installed.
    """

    def __init__(self, runtime="keras", threads=1, batch_size=1, input_shape=None, verbose=0):
        self._format = FORMATS[check.choice("runtime", runtime, tuple(FORMATS))]
        check_packages(self._format)
        self._how = {"threads": threads, "batch_size": batch_size, "input_shape": input_shape}
        self._verbose = verbose
        self._files: dict = {}
        self._stack = ExitStack()

    def __enter__(self):
        self._folder = Path(self._stack.enter_context(tempfile.TemporaryDirectory()))
        return self

    def __exit__(self, *error):
        self._files = {}
        self._stack.close()

    def measure(self, models, runs):
        """Measures models in turn.

        Args:
            models: `{name: plain model}`. A name means the same model in every call.
            runs: Number of timed runs.

        Returns:
            `{name: Latency}`.
        """
        files = {}
        with progress(len(models), "candidates written", self._verbose) as done:
            for name, model in models.items():
                files[name] = self._file(name, model)
                done()
        return compare_latency(files, runs=runs, verbose=self._verbose, **self._how)

    def _file(self, name, model):
        if self._format.name == "keras":
            return model
        if name not in self._files:
            path = self._folder / f"{len(self._files)}{self._format.suffix}"
            session = KerasSession(model)
            shape = self._how["input_shape"]
            examples = session.packed(random_inputs(session, self._how["batch_size"], shape))
            with without_log():
                self._format.write(model, path, WriteOptions(), examples)
            self._files[name] = path
        return self._files[name]
