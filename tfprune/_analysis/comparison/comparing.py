"""Compares two models layer by layer and as a whole."""

import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path

import keras

from tfprune import _keras
from tfprune._analysis.comparison.files import (
    BY_DEFAULT,
    LIVE,
    MISSING,
    check_formats,
    given_file,
    with_latency,
    with_metrics,
    write_files,
)
from tfprune._analysis.comparison.html import page
from tfprune._analysis.comparison.tables import as_markdown, as_printed, comparison_tables
from tfprune._base import validation as check
from tfprune._base.progress import progress
from tfprune._formats.table import format_of
from tfprune._keras.checks import check_built, not_keras
from tfprune._reports.cost import known_sum, layer_costs
from tfprune._reports.machine import machine
from tfprune._wrapping.strip import strip_pruning

_ADDED_UP = ("parameters", "prunable", "zeros", "macs", "effective_macs")


@dataclass(frozen=True)
class LayerChange:
    """One layer before and after.

    Attributes:
        layer: Path of the layer.
        before: Its `LayerCost`, or `None` if it is new.
        after: Its `LayerCost`, or `None` if it was removed.
    """

    layer: str
    before: object
    after: object


class Comparison:
    """Two models side by side. `str(comparison)`, `html` and `markdown` show it as tables.

    Attributes:
        models: The two plain models or paths, as `(before, after)`.
        layers: List of `LayerChange`s; empty where a side is a file of another kind than `.keras`.
        files: `{format: (ShippedFile, ShippedFile)}`, each with `raw` and `gzipped` bytes, a `note`
            if it could not be written, `latency` by batch size, and `metrics`.
        latency: The two `Latency`s of Keras, as `(before, after)`, or `None`.
        metrics: `{name: (before, after)}` on the data; empty without data.
        threads: Number of threads of each runtime; `None` for as many as it takes.
        machine: `{property: text}` of the machine, the versions and the date.
    """

    def __init__(self, models, layers, files, latency, metrics, threads=1):
        self.models = models
        self.layers = layers
        self.files = files
        self.latency = latency
        self.metrics = metrics
        self.threads = threads
        self.machine = machine()

    @property
    def totals(self):
        """`{quantity: (before, after)}` over all layers; `None` for an unknown quantity."""
        return {
            name: tuple(
                known_sum(getattr(row, name) for row in rows if row is not None)
                for rows in (
                    [change.before for change in self.layers],
                    [change.after for change in self.layers],
                )
            )
            for name in _ADDED_UP
        }

    def to_dict(self):
        """Returns the comparison as plain data, for JSON."""
        return {
            "models": [model.name for model in self.models],
            "layers": [
                {
                    "layer": change.layer,
                    **{
                        side: None if cost is None else {**asdict(cost), "sparsity": cost.sparsity}
                        for side, cost in (("before", change.before), ("after", change.after))
                    },
                }
                for change in self.layers
            ],
            "totals": {name: list(pair) for name, pair in self.totals.items()},
            "files": {name: [asdict(size) for size in pair] for name, pair in self.files.items()},
            "latency": None if self.latency is None else [asdict(item) for item in self.latency],
            "metrics": {name: list(pair) for name, pair in self.metrics.items()},
            "threads": self.threads,
            "machine": dict(self.machine),
        }

    def markdown(self):
        """Returns the tables as Markdown."""
        return as_markdown(comparison_tables(self))

    def html(self, path):
        """Writes a self-contained HTML file with all tables and plots.

        Needs matplotlib: `pip install "tfprune[plots]"`.

        Args:
            path: Path of the file, which is written atomically.

        Returns:
            The path.

        Raises:
            ImportError: If matplotlib is not installed.
            ValueError: If the path cannot be written.
        """
        return page(self, Path(path))

    def __str__(self):
        return as_printed(comparison_tables(self))


def compare(
    before,
    after,
    data=None,
    *,
    formats=BY_DEFAULT,
    latency=True,
    batch_size=1,
    runs=30,
    threads=1,
    verbose=1,
):
    """Compares a model before and after pruning: layers, files, latency and accuracy.

    Strips the wrappers first and changes neither model. Files are written to a temporary folder,
    run in their runtimes, and deleted. The latency measurement alternates between all files of
    both sides, as in `tfprune.compare_latency`.

    Args:
        before: A built Sequential or Functional model, wrapped or plain, or the path of a
            `.keras`, `.tflite`, `.onnx` or `.pt2` file or of the folder of a SavedModel. Of a file
            other than `.keras`, only size, latency and metrics are compared.
        after: The same model pruned, shrunk or both, or such a file. Layers are matched by their
            paths.
        data: Inputs and labels for the compiled metrics, in a form that `model.evaluate` takes:
            `(x, y)`, a data set or a `PyDataset`. If only one model is compiled, its metrics are
            used for both. The metrics of each file are computed from the outputs of that file.
            Some of the inputs calibrate the int8 file. With `None`, neither metrics nor the int8
            file are measured.
        formats: File formats to measure: "keras", "litert", "sparse litert", "dynamic litert",
            "float16 litert", "int8 litert", "onnx", "dynamic onnx", "int8 onnx", "saved_model" or
            "torch" (on the PyTorch backend). If a file cannot be written, a note gives the reason.
        latency: Whether to measure the latency.
        batch_size: Examples in each timed batch, or a list of such numbers.
        runs: Number of timed runs.
        threads: Number of threads of each runtime, or `None` for as many as it takes.
        verbose: 1 shows a progress bar on a terminal, 0 does not.

    Returns:
        A `Comparison`: `print` it, or read its `layers`, `totals`, `files`, `latency` and
        `metrics`.

    Raises:
        TypeError: If a model is neither a Keras 3 model nor a path.
        ValueError: If a model is not built, its `call` is code, a format is unknown, a file does
            not exist, or there is data but neither model is compiled.
        ImportError: If the runtime of a file is not installed. The message names the extra to
            install.

    Example:

    >>> model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(4)])
    >>> pruned = tfprune.pruners.one_shot(model, 0.75)
    >>> comparison = tfprune.compare(model, pruned, formats=["keras"], latency=False)
    >>> comparison.totals["zeros"]
    (0, 24)
    """
    given = tuple(_model_or_file(m, name) for name, m in (("before", before), ("after", after)))
    formats = check_formats(formats)
    compiled = next((m for m in given if isinstance(m, keras.Model) and m.compiled), None)
    if data is not None and compiled is None:
        names = " and ".join(f"'{m.name}'" for m in given)
        raise ValueError(
            check.message(
                "a compiled model, whose metrics to measure on `data`",
                f"{names}, neither of which is compiled",
                'Call before.compile(loss=..., metrics=["accuracy"]) first, or leave `data` out.',
            )
        )
    data = _checked(data)
    compile_config = None if compiled is None else compiled.get_compile_config()
    plain = tuple(strip_pruning(m) if isinstance(m, keras.Model) else m for m in given)
    costs = None
    if not any(isinstance(model, Path) for model in plain):
        costs = [{row.layer: row for row in layer_costs(model)} for model in plain]
    inputs = None if data is None else _inputs(data)
    if inputs is None:
        formats = tuple(name for name in formats if not name.startswith("int8 "))
    how = {"runs": runs, "threads": threads, "verbose": verbose}
    with tempfile.TemporaryDirectory() as folder:
        number = len(formats) * sum(not isinstance(model, Path) for model in plain)
        with progress(number, "files written", verbose) as done:
            sides = tuple(
                given_file(model)
                if isinstance(model, Path)
                else {
                    **write_files(model, formats, inputs, Path(folder) / side, done),
                    LIVE: (model, MISSING),
                }
                for side, model in zip(("before", "after"), plain, strict=True)
            )
        if latency:
            sides = with_latency(sides, batch_size, how)
        if data is not None:
            # Each side has its own penalties in the loss, since they depend on its weights.
            judges = [strip_pruning(compiled if isinstance(m, Path) else m) for m in plain]
            for judge in judges:
                judge.compile_from_config(compile_config)
            with progress(sum(map(len, sides)), "metrics measured", verbose) as done:
                judged = zip(sides, judges, strict=True)
                sides = tuple(with_metrics(side, judge, data, done) for side, judge in judged)
    metrics = {}
    if data is not None:
        pairs = zip(given, plain, sides, strict=True)
        metrics = _of_both(*(_metrics(*pair, compile_config, data) for pair in pairs))
    layers = _changes(*costs) if costs else []
    return Comparison(plain, layers, _files(sides, formats), _seconds(sides), metrics, threads)


def _model_or_file(model, name):
    """Returns a built model, or the `pathlib.Path` of a file of another kind than `.keras`."""
    if isinstance(model, (str, Path)):
        path = Path(model)
        format = format_of(path)
        return keras.saving.load_model(path) if format.name == "keras" else path
    if not isinstance(model, keras.Model):
        raise TypeError(not_keras(model, name))
    check_built(model)
    return model


def _files(sides, formats):
    """Returns `{format: (ShippedFile, ShippedFile)}`."""
    names = dict.fromkeys([*formats, *(name for side in sides for name in side)])
    return {
        name: tuple(side.get(name, (None, MISSING))[1] for side in sides)
        for name in names
        if name != LIVE
    }


def _seconds(sides):
    """Returns the latencies of both live models for the first batch size, or `None`."""
    lives = [side[LIVE][1] for side in sides if LIVE in side]
    if len(lives) < 2 or not all(live.latency for live in lives):
        return None
    return tuple(next(iter(live.latency.values())) for live in lives)


def _checked(data):
    if hasattr(data, "__next__"):
        raise ValueError(
            check.message(
                "`data` that can be read again for the second model",
                f"a {type(data).__name__}, which can be read only once",
                "Pass arrays, a tf.data.Dataset or a keras.utils.PyDataset.",
            )
        )
    data = tuple(data) if isinstance(data, list) else data
    if isinstance(data, tuple) and len(data) not in (2, 3):
        raise ValueError(
            check.message(
                "`data` as (x, y) or (x, y, sample_weight)",
                f"{len(data)} parts",
                "Pass inputs and labels.",
            )
        )
    return data


def _changes(before, after):
    """Lists layers in the order of `before`, with new layers at their positions in `after`."""
    paths = list(before)
    for place, path in enumerate(after):
        if path not in before:
            earlier = [paths.index(name) for name in list(after)[:place]]
            paths.insert(max(earlier, default=-1) + 1, path)
    return [LayerChange(path, before.get(path), after.get(path)) for path in paths]


def _metrics(model, copy, side, compile_config, data):
    """Returns `{name: value}` of a model, or of the one file of a side."""
    if isinstance(model, Path):
        ((_, file),) = side.values()
        return file.metrics
    if not model.compiled:
        # Compile the copy; the user's model is not changed.
        copy.compile_from_config(compile_config)
        model = copy
    parts = data if isinstance(data, tuple) else (data,)
    evaluated = model.evaluate(*parts, verbose=0, return_dict=True)
    return {name: float(value) for name, value in evaluated.items()}


def _of_both(before, after):
    return {name: (value, after[name]) for name, value in before.items() if name in after}


def _inputs(data):
    batch = next(_keras.numpy_batches(data, 64), None)
    if batch is None:
        raise ValueError(
            check.message("`data` with at least one batch", "none", "Pass inputs and labels.")
        )
    return batch[0] if isinstance(batch, tuple) else batch
