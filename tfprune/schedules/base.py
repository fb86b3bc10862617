"""The base class of all schedules, and their serialization."""

from functools import cached_property

import keras
import numpy as np
from keras import ops

from tfprune._base import validation as check
from tfprune._base.registration import PartRegistry
from tfprune._base.renamed import warn

_NESTED = {"class_name", "config"}


SCHEDULES = PartRegistry("schedule")


class PruningSchedule:
    """Base class of all schedules.

    A subclass implements `__call__(step)`, which returns two tensors of the active backend: a
    bool that is true if the masks are updated at this step, and the sparsity as float32. To use a
    subclass written for `tensorflow_model_optimization`, change only its base class.

    Example:

    >>> class Halves(tfprune.PruningSchedule):
    ...     def __call__(self, step):
    ...         due = self._should_prune_in_step(step, 0, -1, 10)
    ...         return due, keras.ops.cast(0.5, "float32")
    ...     def get_config(self):
    ...         return {}
    >>> Halves().target_sparsity
    0.5
    """

    def __call__(self, step):
        """Returns whether to prune at `step`, and to which sparsity.

        Args:
            step: Integer scalar or vector: optimizer steps completed since pruning began.

        Returns:
            `(should_prune, sparsity)`: a bool and a float32 tensor of the shape of `step`.
        """
        raise NotImplementedError(
            f"A schedule has to implement `__call__(step)`, and {type(self).__name__} does not."
        )

    def get_config(self):
        """Returns the constructor's own arguments as a dictionary."""
        raise NotImplementedError(
            f"A schedule has to implement `get_config()`, and {type(self).__name__} does not."
        )

    @classmethod
    def from_config(cls, config):
        """Makes a schedule from `get_config()`, flat or in the nested form of tfmot."""
        return cls(**flat_config(config))

    @cached_property
    def target_sparsity(self):
        """The highest sparsity that the schedule reaches, as a `float`."""
        end = getattr(self, "end_step", -1)
        begin = int(getattr(self, "begin_step", 0))
        if isinstance(end, (int, np.integer)) and end >= begin:
            steps = np.unique(np.linspace(begin, end, 512).astype("int64"))
        else:
            steps = begin + np.unique(np.geomspace(1, 2**30, 512).astype("int64")) - 1
        return float(shortest(self.evaluate(steps)[1].max()))

    def evaluate(self, steps):
        """Evaluates the schedule for many steps at once, on the host.

        Args:
            steps: One-dimensional integer array.

        Returns:
            `(should_prune, sparsity)`: a bool and a float32 NumPy array, each of the length of
            `steps`. A schedule that takes only single steps is called once for each step.
        """
        steps = np.asarray(steps, dtype="int64")
        if steps.size > 1:
            whole = self._evaluate_whole(steps)
            if whole is not None:
                return whole
        pairs = [_on_host(self(_as_step(step))) for step in steps]
        return (
            np.array([bool(due) for due, _ in pairs], dtype=bool),
            np.array([float(value) for _, value in pairs], dtype="float32"),
        )

    def _evaluate_whole(self, steps):
        """Calls the schedule once for all steps; returns None if it does not take vectors."""
        try:
            due, value = _on_host(self(_as_step(steps)))
        except Exception:
            # A custom schedule may branch on its argument; it only has to take single steps.
            return None
        if due.shape != steps.shape or value.shape != steps.shape:
            return None
        for index in (0, steps.size // 2, steps.size - 1):
            one_due, one_value = _on_host(self(_as_step(steps[index])))
            if bool(one_due) != bool(due[index]) or float(one_value) != float(value[index]):
                return None
        return due.astype(bool), value.astype("float32")

    def _should_prune_in_step(self, step, begin_step, end_step, frequency):
        """Whether masks are updated at `step`.

        True every `frequency` steps from `begin_step` on, and at `end_step`, so that the last
        value of the schedule is always applied. `end_step=-1` means no end.
        """
        step = ops.convert_to_tensor(step)
        due = ops.logical_and(
            ops.greater_equal(step, begin_step),
            ops.equal(ops.mod(step - begin_step, frequency), 0),
        )
        if end_step < 0:
            return due
        due = ops.logical_and(due, ops.less_equal(step, end_step))
        return ops.logical_or(due, ops.equal(step, end_step))

    def _validate_step(self, begin_step, end_step, frequency, allow_negative_1):
        """Raises unless the steps are valid; `end_step=-1` needs `allow_negative_1`."""
        check.step("begin_step", begin_step, 0, "Steps are counted from 0.")
        check.step("frequency", frequency, 1, "Give the steps between two mask updates.")
        open_end = "Use -1 for a schedule without an end." if allow_negative_1 else ""
        check.step("end_step", end_step, -1 if allow_negative_1 else 0, open_end)
        if end_step != -1 and begin_step > end_step:
            raise ValueError(
                check.message(
                    "`begin_step` not to come after `end_step`",
                    f"begin_step={begin_step}, end_step={end_step}",
                    "Swap the two, or raise `end_step`.",
                )
            )

    def _validate_sparsity(self, sparsity, variable_name):
        """Raises unless `sparsity` is in [0, 1)."""
        check.sparsity(variable_name, sparsity)

    def plot(self, path=None, *, steps=None, ax=None):
        """Draws the sparsity over the steps, with a dot at every mask update.

        Needs matplotlib: `pip install "tfprune[plots]"`.

        Args:
            path: File to save the picture to, as PNG, PDF or SVG by its ending; `None` saves
                nothing.
            steps: Last step to draw; by default 10 % beyond the end of the schedule.
            ax: matplotlib axes to draw on; `None` makes a new figure.

        Returns:
            The `matplotlib.figure.Figure`.

        Raises:
            ImportError: If matplotlib is not installed.
        """
        if isinstance(path, (int, np.integer)):
            warn("`schedule.plot(1000)` is deprecated: use `schedule.plot(steps=1000)`.")
            path, steps = None, path
        # Imported here, because the plots package imports files that import schedules.
        from tfprune.plots import curves

        return curves.draw(self, path, steps, ax)


def flat_config(config):
    """Returns the arguments in `config`, which tfmot nests under 'config'."""
    return dict(config["config"]) if set(config) == _NESTED else dict(config)


def shortest(value):
    """The shortest decimal that reads back as the float32 `value`: 0.9, not 0.89999998."""
    return float(str(np.float32(value)))


def _as_step(step):
    return ops.convert_to_tensor(step, dtype="int64" if _wide_integers() else "int32")


def _wide_integers():
    return keras.backend.backend() != "jax"


def _on_host(pair):
    due, value = pair
    return ops.convert_to_numpy(due), ops.convert_to_numpy(value)


def serialize(schedule):
    """Returns a schedule as a dictionary that can be stored as JSON."""
    config = keras.saving.serialize_keras_object(schedule)
    return {**config, "config": flat_config(config["config"])}


def deserialize(config):
    """Makes a schedule from what `serialize` gives.

    Raises:
        TypeError: If it is something else.
        ValueError: If its class is not known, or its arguments do not fit.
    """
    mend = "Pass a tfprune.PruningSchedule, or what tfprune.schedules.serialize gave."
    schedule = check.deserialized("schedule", config, mend)
    # Asked of the class: the object would compute its target.
    if not hasattr(type(schedule), "target_sparsity") or not callable(schedule):
        raise TypeError(
            check.message("the config of a schedule", f"that of {type(schedule).__name__}", mend)
        )
    return schedule
