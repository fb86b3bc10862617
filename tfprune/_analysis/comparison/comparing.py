"""Compares two models layer by layer and as a whole."""

from dataclasses import asdict, dataclass
from pathlib import Path

import keras

from tfprune import _keras
from tfprune._analysis.comparison.files import BY_DEFAULT, check_formats, measure_files
from tfprune._analysis.comparison.html import page
from tfprune._analysis.comparison.tables import as_markdown, as_printed, comparison_tables
from tfprune._base import validation as check
from tfprune._keras.checks import check_built, not_keras
from tfprune._reports.cost import known_sum, layer_costs
from tfprune._reports.latency import compare_latency
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
        models: The two plain models, as `(before, after)`.
        layers: List of `LayerChange`s.
        files: `{format: (FileSizes, FileSizes)}`.
        latency: The two `Latency`s, as `(before, after)`, or `None`.
        metrics: `{name: (before, after)}` on the data; empty without data.
    """

    def __init__(self, models, layers, files, latency, metrics):
        self.models = models
        self.layers = layers
        self.files = files
        self.latency = latency
        self.metrics = metrics

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


def compare(before, after, data=None, *, formats=BY_DEFAULT, latency=True, batch_size=1, runs=30):
    """Compares a model before and after pruning: layers, files, latency and accuracy.

    Strips the wrappers first and changes neither model. Files are written to a temporary folder,
    run in their runtimes, and deleted. The latency measurement alternates between the models, as
    in `tfprune.compare_latency`.

    Args:
        before: A built Sequential or Functional model, wrapped or plain.
        after: The same model pruned, shrunk or both. Layers are matched by their paths.
        data: Inputs and labels for the compiled metrics, in a form that `model.evaluate` takes:
            `(x, y)`, a data set or a `PyDataset`. If only one model is compiled, its metrics are
            used for both. Some of the inputs calibrate the int8 file. With `None`, neither
            metrics nor the int8 file are measured.
        formats: File formats to measure: "keras", "litert", "sparse litert", "dynamic litert",
            "float16 litert", "int8 litert", "onnx". If a file cannot be written, a note gives the
            reason.
        latency: Whether to measure the latency.
        batch_size: Examples in each timed batch.
        runs: Number of timed batches.

    Returns:
        A `Comparison`: `print` it, or read its `layers`, `totals`, `files`, `latency` and
        `metrics`.

    Raises:
        TypeError: If a model is not a Keras 3 model.
        ValueError: If a model is not built, its `call` is code, a format is unknown, or there is
            data but neither model is compiled.

    Example:

    >>> model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(4)])
    >>> pruned = tfprune.pruners.one_shot(model, 0.75)
    >>> comparison = tfprune.compare(model, pruned, formats=["keras"], latency=False)
    >>> comparison.totals["zeros"]
    (0, 24)
    """
    for name, model in (("before", before), ("after", after)):
        if not isinstance(model, keras.Model):
            raise TypeError(not_keras(model, name))
        check_built(model)
    formats = check_formats(formats)
    if data is not None and not (before.compiled or after.compiled):
        raise ValueError(
            check.message(
                "a compiled model, whose metrics to measure on `data`",
                f"'{before.name}' and '{after.name}', neither of which is compiled",
                'Call before.compile(loss=..., metrics=["accuracy"]) first, or leave `data` out.',
            )
        )
    data = _checked(data)
    plain = tuple(strip_pruning(model) for model in (before, after))
    costs = [{row.layer: row for row in layer_costs(model)} for model in plain]
    seconds = None
    if latency:
        measured = compare_latency(
            dict(zip(("before", "after"), plain, strict=True)), batch_size, runs
        )
        seconds = (measured["before"], measured["after"])
    metrics = _metrics((before, after), plain, data)
    inputs = None if data is None else _inputs(data)
    if inputs is None:
        formats = tuple(name for name in formats if name != "int8 litert")
    sizes = [measure_files(model, formats, inputs) for model in plain]
    files = {name: (sizes[0][name], sizes[1][name]) for name in formats}
    return Comparison(plain, _changes(*costs), files, seconds, metrics)


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


def _metrics(models, plain, data):
    if data is None:
        return {}
    compiled = next(model for model in models if model.compiled)
    found = []
    for model, copy in zip(models, plain, strict=True):
        if not model.compiled:
            # Compile the copy; the user's model is not changed.
            copy.compile_from_config(compiled.get_compile_config())
            model = copy
        parts = data if isinstance(data, tuple) else (data,)
        evaluated = model.evaluate(*parts, verbose=0, return_dict=True)
        found.append({name: float(value) for name, value in evaluated.items()})
    return {name: (value, found[1][name]) for name, value in found[0].items() if name in found[1]}


def _inputs(data):
    batch = next(_keras.numpy_batches(data, 64))
    return batch[0] if isinstance(batch, tuple) else batch
