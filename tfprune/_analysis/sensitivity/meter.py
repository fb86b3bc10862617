"""Measures the metric of a sensitivity analysis."""

from typing import Any

import numpy as np

from tfprune._base import validation as check


class Meter:
    """Measures one metric of a model repeatedly.

    Args:
        model: The model.
        data: Data for `model.evaluate`, or `None` if `metric` is a function.
        metric: Name of a compiled metric, function from the model to a number, or `None` for the
            first compiled metric.
        batch_size: Batch size for arrays.
        data_is_used: Whether the data also serves another purpose.

    Attributes:
        asked: The requested name, or `None`.
        name: Name of the measured metric; `None` until it is known.

    Raises:
        TypeError, ValueError: If the metric cannot be measured.
    """

    def __init__(self, model, data, metric, batch_size, data_is_used=False):
        self._model = model
        self._data = data
        self._metric = metric
        self._batch_size = batch_size
        self.name: Any = None
        if callable(metric):
            self.asked = getattr(metric, "__name__", type(metric).__name__)
            if data is not None and not data_is_used:
                raise ValueError(
                    check.message(
                        "no `data` if the metric is a function, which uses its own data",
                        f"data of type {type(data).__name__}",
                        "Leave `data` out, or pass the name of a compiled metric.",
                    )
                )
        elif metric is None or isinstance(metric, str):
            self.asked = metric
            self._check_evaluates()
        else:
            raise TypeError(
                check.message(
                    "`metric` to be the name of a compiled metric or a function",
                    f"metric={metric!r}",
                    'Use for instance "accuracy", or a function that takes the model.',
                )
            )

    def _check_evaluates(self):
        if not getattr(self._model, "compiled", False):
            raise ValueError(
                check.message(
                    "a compiled model, or a metric that is a function",
                    f"'{self._model.name}', which is not compiled",
                    'Call for instance model.compile(loss=..., metrics=["accuracy"]).',
                )
            )
        if self._data is None or hasattr(self._data, "__next__"):
            received = "data=None" if self._data is None else "a generator, which is read only once"
            raise ValueError(
                check.message(
                    "`data` that model.evaluate can read many times",
                    received,
                    "Pass a data set, or a tuple of arrays (x, y).",
                )
            )

    def __call__(self):
        """Returns the present metric of the model as a `float`."""
        if callable(self._metric):
            name, value = self.asked, self._metric(self._model)
            if np.ndim(value) != 0 or not isinstance(
                np.asarray(value).item(), (int, float, np.number)
            ):
                raise TypeError(
                    check.message(
                        f"{name}(model) to return a number", f"{value!r}"[:200], "Return a float."
                    )
                )
        else:
            results = self._evaluate()
            name = self._metric or _first(self._model, results)
            if name not in results:
                raise ValueError(
                    check.message(
                        "`metric` to be one of " + ", ".join(repr(known) for known in results),
                        f"metric={name!r}",
                        "Compile the model with it, or choose one of these.",
                    )
                )
            value = results[name]
        if self.name not in (None, name):
            raise ValueError(
                check.message(
                    f"the metric {self.name!r}, which the file at `path` holds",
                    f"{name!r}, the first metric with which the model is compiled",
                    f"Pass metric={self.name!r}, or choose another file.",
                )
            )
        self.name = name
        return float(value)

    def _evaluate(self):
        parts = self._data if isinstance(self._data, tuple) else (self._data,)
        names = ("x", "y", "sample_weight")
        if not 0 < len(parts) <= len(names):
            raise ValueError(
                check.message(
                    "a tuple (x, y) or (x, y, sample_weight)",
                    f"one of {len(parts)} parts",
                    "Pass several inputs as one x, a list or a dictionary.",
                )
            )
        given = dict(zip(names, parts, strict=False))
        size = self._batch_size if isinstance(self._data, tuple) else None
        return self._model.evaluate(**given, batch_size=size, verbose=0, return_dict=True)


def _first(model, results):
    """Returns the first metric in the order of `compile`, because `evaluate` sorts them."""
    compiled = [inner for metric in model.metrics for inner in getattr(metric, "metrics", ())]
    for metric in compiled:
        for name in results:
            if name == metric.name or name.endswith(f"_{metric.name}"):
                return name
    others = [name for name in results if name != "loss" and not name.endswith("_loss")]
    return [*others, "loss"][0]
