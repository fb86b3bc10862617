"""Schedules: step -> (should_prune, sparsity).

A schedule is a pure function of the number of optimizer steps completed since pruning began. It
is asked for step 0 before the first batch, and then for every step. All of them take one step or
a vector of steps, so `schedule(np.arange(1000))` is the whole curve.
"""

import math
from dataclasses import dataclass, field, fields
from functools import cached_property
from typing import Any

import keras
import numpy as np
from keras import ops

from tfprune import _validation as check
from tfprune._frozen import Frozen

_NESTED = {"class_name", "config"}


class PruningSchedule:
    """Base class of all schedules.

    A subclass implements `__call__(step)`, which returns two tensors of the active backend: a
    bool that says whether the masks are updated at this step, and the sparsity as float32. A
    subclass written for `tensorflow_model_optimization` works with only its base class changed.

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
        """Says whether to prune at `step`, and how much.

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
        """The highest sparsity that the schedule asks for, as a `float`."""
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
            `steps`. A schedule that takes only single steps is called once for each.
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
        """One call for all steps, or None where the schedule turns out not to take vectors."""
        try:
            due, value = _on_host(self(_as_step(steps)))
        except Exception:
            # A user's own schedule may branch on its argument; single steps are its contract.
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
        value of the schedule is always applied. `end_step=-1` means that there is no end.
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
        """Raises unless the steps make sense; `end_step=-1` only where `allow_negative_1`."""
        check.integer("begin_step", begin_step, 0, "Steps are counted from 0.")
        check.integer("frequency", frequency, 1, "Give the steps between two mask updates.")
        open_end = "Use -1 for a schedule without an end." if allow_negative_1 else ""
        check.integer("end_step", end_step, -1 if allow_negative_1 else 0, open_end)
        if end_step != -1 and begin_step > end_step:
            raise ValueError(
                check.message(
                    "`begin_step` not to come after `end_step`",
                    f"begin_step={begin_step}, end_step={end_step}",
                    "Exchange the two, or raise `end_step`.",
                )
            )
        if not _wide_integers() and max(begin_step, end_step, frequency) >= 2**31:
            raise ValueError(
                check.message(
                    "steps below 2**31 on the JAX backend, whose integers have 32 bits",
                    f"begin_step={begin_step}, end_step={end_step}, frequency={frequency}",
                    "Lower them, or train on another backend.",
                )
            )

    def _validate_sparsity(self, sparsity, variable_name):
        """Raises unless `sparsity` is in [0, 1)."""
        check.sparsity(variable_name, sparsity)

    def plot(self, steps=None, ax=None):
        """Draws the sparsity over the steps, with a dot at every mask update.

        Needs matplotlib: `pip install "tfprune[plots]"`.

        Args:
            steps: Last step to draw; by default a tenth beyond the end of the schedule.
            ax: matplotlib axes to draw on; a new figure if `None`.

        Returns:
            The matplotlib axes.
        """
        import matplotlib.pyplot as plt
        from matplotlib.ticker import PercentFormatter

        if ax is None:
            ax = plt.figure(figsize=(7, 3.5), layout="constrained").add_subplot()
        end = int(getattr(self, "end_step", -1))
        begin = int(getattr(self, "begin_step", 0))
        if steps is None:
            last = end if end > begin else begin + 10 * int(getattr(self, "frequency", 100))
            steps = last + max(1, (last - begin) // 10)
        axis = np.arange(int(steps) + 1)
        due, value = self.evaluate(axis)
        # The masks hold the value of the latest update, so the curve is a staircase.
        held = np.where(due, value, np.nan)
        known = np.maximum.accumulate(np.where(due, axis, -1))
        held = np.where(known >= 0, held[np.maximum(known, 0)], 0.0)
        (line,) = ax.step(axis, held, where="post", label=type(self).__name__)
        ax.plot(axis[due], value[due], "o", markersize=3, color=line.get_color())
        ax.set_xlabel("optimizer step")
        ax.set_ylabel("sparsity")
        ax.set_ylim(-0.02, 1.02)
        ax.yaxis.set_major_formatter(PercentFormatter(1.0))
        ax.spines[["top", "right"]].set_visible(False)
        ax.grid(alpha=0.3)
        ax.legend(loc="lower right", frameon=False)
        return ax


def flat_config(config):
    """Returns the arguments in `config`, also where tfmot nested them under 'config'."""
    return dict(config["config"]) if set(config) == _NESTED else dict(config)


def shortest(value):
    """The shortest decimal that reads back as the float32 `value`: 0.9, not 0.89999998."""
    return float(str(np.float32(value)))


def _as_step(step):
    return ops.convert_to_tensor(step, dtype="int64" if _wide_integers() else "int32")


def _epoch(name, value, steps_per_epoch):
    """Returns the step at which an epoch, which may be a fraction, begins."""
    number = isinstance(value, (int, float, np.number)) and not isinstance(value, bool)
    if not (number and 0 <= value < math.inf):
        raise ValueError(
            check.message(
                f"`{name}` to be a number of epochs, 0 or more",
                f"{name}={value!r}",
                "Epochs are counted from 0; 1.5 is the middle of the second one.",
            )
        )
    return round(value * steps_per_epoch)


def _wide_integers():
    return keras.backend.backend() != "jax"


def _on_host(pair):
    due, value = pair
    return ops.convert_to_numpy(due), ops.convert_to_numpy(value)


class _FrozenSchedule(Frozen, PruningSchedule):
    """What the built-in schedules share: frozen fields that are also the config."""

    begin_step: int
    end_step: int
    frequency: int

    @classmethod
    def from_config(cls, config):
        return cls(**flat_config(config))

    def _freeze(self, name, value):
        object.__setattr__(self, name, value)

    def _check_steps(self):
        mend = "Give the number of an optimizer step; `from_epochs` counts in epochs."
        self._freeze("begin_step", check.integer("begin_step", self.begin_step, 0, mend))
        self._freeze("end_step", check.integer("end_step", self.end_step, -1, mend))
        mend = "Give the steps between two mask updates."
        self._freeze("frequency", check.integer("frequency", self.frequency, 1, mend))

    @classmethod
    def from_epochs(cls, *args, steps_per_epoch, begin_epoch=0, end_epoch=None, **kwargs):
        """Makes the schedule from epochs instead of steps.

        Args:
            *args: The sparsities, in the order of the constructor.
            steps_per_epoch: Optimizer steps in one epoch: batches, divided by the gradient
                accumulation steps if there are any.
            begin_epoch: Epoch in which pruning begins; may be a fraction.
            end_epoch: Epoch at whose start the final sparsity is reached; may be a fraction.
                `None` only for a schedule that needs no end.
            **kwargs: Further arguments of the constructor. Without `frequency` the masks are
                updated every 100 steps, or ten times where that would be less often.

        Returns:
            A schedule that counts in steps.

        Example:

        >>> schedule = tfprune.PolynomialDecay.from_epochs(
        ...     0.0, 0.9, steps_per_epoch=469, begin_epoch=1, end_epoch=5)
        >>> schedule.begin_step, schedule.end_step
        (469, 2345)
        """
        mend = "Give len(dataset), or ceil(samples / batch_size)."
        steps_per_epoch = check.integer("steps_per_epoch", steps_per_epoch, 1, mend)
        own: Any = cls
        open_end = any(f.name == "end_step" and f.default == -1 for f in fields(own))
        if end_epoch is None and not open_end:
            raise ValueError(
                check.message(
                    "`end_epoch` to be given",
                    "end_epoch=None",
                    f"{cls.__name__} ends at a step: say in which epoch.",
                )
            )
        begin_step = _epoch("begin_epoch", begin_epoch, steps_per_epoch)
        end_step = -1 if end_epoch is None else _epoch("end_epoch", end_epoch, steps_per_epoch)
        span = end_step - begin_step if end_step >= 0 else 10 * steps_per_epoch
        kwargs.setdefault("frequency", min(100, max(1, span // 10)))
        return own(*args, begin_step=begin_step, end_step=end_step, **kwargs)


@keras.saving.register_keras_serializable(package="tfprune")
@dataclass(frozen=True)
class ConstantSparsity(_FrozenSchedule):
    """The same sparsity from `begin_step` on.

    Args:
        target_sparsity: Fraction of zeros, in [0, 1).
        begin_step: First step at which masks are made.
        end_step: Last step at which masks are updated; -1 for no end.
        frequency: Steps between two updates.

    Raises:
        ValueError, TypeError: For a value out of its range.

    Example:

    >>> due, sparsity = tfprune.ConstantSparsity(0.5, begin_step=0)(0)
    >>> bool(due), float(sparsity)
    (True, 0.5)
    """

    # `field()` keeps the base class's property of this name from becoming the default.
    target_sparsity: float = field()
    begin_step: int = field()
    end_step: int = -1
    frequency: int = 100

    def __post_init__(self):
        self._freeze("target_sparsity", check.sparsity("target_sparsity", self.target_sparsity))
        self._check_steps()
        self._validate_step(self.begin_step, self.end_step, self.frequency, True)

    @classmethod
    def one_shot(cls, target_sparsity, step=0):
        """Prunes once, at `step`, and keeps the masks from then on."""
        return cls(target_sparsity, begin_step=step, end_step=step, frequency=1)

    def __call__(self, step):
        step = ops.convert_to_tensor(step)
        due = self._should_prune_in_step(step, self.begin_step, self.end_step, self.frequency)
        target = ops.convert_to_tensor(self.target_sparsity, dtype="float32")
        return due, ops.broadcast_to(target, ops.shape(step))


@dataclass(frozen=True)
class _Ramp(_FrozenSchedule):
    """From `initial_sparsity` at `begin_step` to `final_sparsity` at `end_step`."""

    initial_sparsity: float
    final_sparsity: float
    begin_step: int
    end_step: int

    def __post_init__(self):
        for name in ("initial_sparsity", "final_sparsity"):
            self._freeze(name, check.sparsity(name, getattr(self, name)))
        self._check_steps()
        self._validate_step(self.begin_step, self.end_step, self.frequency, False)
        if self.begin_step == self.end_step:
            raise ValueError(
                check.message(
                    "`begin_step` to come before `end_step`",
                    f"begin_step={self.begin_step}, end_step={self.end_step}",
                    "To prune at one step only, use ConstantSparsity.one_shot(sparsity, step).",
                )
            )

    @property
    def target_sparsity(self):
        """The highest sparsity that the schedule asks for, as a `float`."""
        return max(self.initial_sparsity, self.final_sparsity)

    def __call__(self, step):
        step = ops.convert_to_tensor(step)
        due = self._should_prune_in_step(step, self.begin_step, self.end_step, self.frequency)
        passed = ops.cast(step - self.begin_step, "float32")
        span = ops.convert_to_tensor(float(self.end_step - self.begin_step), dtype="float32")
        progress = ops.clip(ops.divide(passed, span), 0.0, 1.0)
        value = ops.cast(self._curve(progress), "float32")
        # The ends are the user's own numbers, not what rounding makes of them.
        return due, self._with_exact_ends(step, value)

    def _curve(self, progress):
        raise NotImplementedError

    def _with_exact_ends(self, step, value):
        value = ops.where(step <= self.begin_step, _float32(self.initial_sparsity), value)
        return ops.where(step >= self.end_step, _float32(self.final_sparsity), value)

    def _between(self, fraction):
        rise = _float32(self.final_sparsity - self.initial_sparsity)
        return _float32(self.initial_sparsity) + rise * fraction


def _float32(value):
    return ops.convert_to_tensor(value, dtype="float32")


_RAMP_ARGS = """
    Args:
        initial_sparsity: Fraction of zeros at `begin_step`, in [0, 1).
        final_sparsity: Fraction of zeros at `end_step`, in [0, 1).
        begin_step: Step of the first mask update.
        end_step: Step of the last mask update; it is always made.{extra}
        frequency: Steps between two mask updates.

    Raises:
        ValueError, TypeError: For a value out of its range, or if `begin_step` does not come
            before `end_step`.
"""


def _ramp(extra=""):
    """Registers a ramp and completes its docstring with the arguments that all ramps share."""

    def decorate(cls):
        cls.__doc__ = cls.__doc__.replace("\n    {ramp_args}\n", _RAMP_ARGS.format(extra=extra))
        return keras.saving.register_keras_serializable(package="tfprune")(cls)

    return decorate


@_ramp(extra="\n        power: Exponent, above 0: 3 is the usual cubic curve, 1 is linear.")
@dataclass(frozen=True)
class PolynomialDecay(_Ramp):
    """Fast at first, then ever more slowly: the automated gradual pruning curve.

    The sparsity is `final + (initial - final) * (1 - progress) ** power`.

    {ramp_args}

    Example:

    >>> schedule = tfprune.PolynomialDecay(0.0, 0.8, begin_step=0, end_step=1000)
    >>> float(schedule(500)[1]).__round__(4)
    0.7

    Reference:

    - [Zhu & Gupta, 2017: To prune, or not to prune](https://arxiv.org/abs/1710.01878)
    """

    power: float = 3
    frequency: int = 100

    def __post_init__(self):
        super().__post_init__()
        check.positive("power", self.power, "Use 3 for the usual curve, 1 for a straight line.")

    @classmethod
    def linear(cls, initial_sparsity, final_sparsity, begin_step, end_step, frequency=100):
        """A straight line: `power=1`."""
        return cls(initial_sparsity, final_sparsity, begin_step, end_step, 1, frequency)

    def _curve(self, progress):
        rest = ops.power(1.0 - progress, _float32(float(self.power)))
        fall = _float32(self.initial_sparsity - self.final_sparsity)
        return fall * rest + _float32(self.final_sparsity)


@_ramp()
@dataclass(frozen=True)
class Exponential(_Ramp):
    """The density falls by the same factor in every step.

    The sparsity is `1 - (1 - initial) ** (1 - progress) * (1 - final) ** progress`: the curve on
    which the rounds of a lottery ticket lie.

    {ramp_args}

    Example:

    >>> schedule = tfprune.Exponential(0.0, 0.75, begin_step=0, end_step=100)
    >>> float(schedule(50)[1])
    0.5

    Reference:

    - [Frankle & Carbin, 2019: The Lottery Ticket Hypothesis](https://arxiv.org/abs/1803.03635)
    """

    frequency: int = 100

    def _curve(self, progress):
        dense = ops.power(_float32(1.0 - self.initial_sparsity), 1.0 - progress)
        return 1.0 - dense * ops.power(_float32(1.0 - self.final_sparsity), progress)


@_ramp(extra="\n        n_steps: Number of stairs, at least 1.")
@dataclass(frozen=True)
class Iterative(_Ramp):
    """A staircase of `n_steps` equal stairs.

    The sparsity is `initial + (final - initial) * ceil(n_steps * progress) / n_steps`.

    {ramp_args}

    Example:

    >>> schedule = tfprune.Iterative(0.0, 0.9, begin_step=0, end_step=90)
    >>> [round(float(schedule(step)[1]), 2) for step in (1, 31, 61)]
    [0.3, 0.6, 0.9]
    """

    n_steps: int = 3
    frequency: int = 100

    def __post_init__(self):
        super().__post_init__()
        mend = "Give the number of stairs."
        self._freeze("n_steps", check.integer("n_steps", self.n_steps, 1, mend))

    def __call__(self, step):
        step = ops.convert_to_tensor(step)
        due = self._should_prune_in_step(step, self.begin_step, self.end_step, self.frequency)
        # Whole numbers throughout: a stair begins at its step, not one ulp beside it.
        span = self.end_step - self.begin_step
        passed = ops.clip(step - self.begin_step, 0, span)
        stair = ops.floor_divide(passed * self.n_steps + (span - 1), span)
        value = self._between(ops.cast(stair, "float32") / float(self.n_steps))
        value = ops.where(stair >= self.n_steps, _float32(self.final_sparsity), value)
        return due, self._with_exact_ends(step, value)


@_ramp()
@dataclass(frozen=True)
class Cosine(_Ramp):
    """Half a cosine: slow, fast, slow.

    The sparsity is `initial + (final - initial) * (1 - cos(pi * progress)) / 2`.

    {ramp_args}

    Example:

    >>> schedule = tfprune.Cosine(0.0, 0.8, begin_step=0, end_step=100)
    >>> round(float(schedule(50)[1]), 4)
    0.4
    """

    frequency: int = 100

    def _curve(self, progress):
        return self._between((1.0 - ops.cos(math.pi * progress)) / 2.0)


@_ramp()
@dataclass(frozen=True)
class OneCycle(_Ramp):
    """A logistic curve: dense for long, then most of the pruning at once, then long fine-tuning.

    With `g(p) = 1 / (1 + exp(6 - 14 p))`, the sparsity is
    `initial + (final - initial) * (g(progress) - g(0)) / (g(1) - g(0))`.

    {ramp_args}

    Example:

    >>> schedule = tfprune.OneCycle(0.0, 0.9, begin_step=0, end_step=100)
    >>> float(schedule(0)[1])
    0.0

    Reference:

    - [Hubens et al., 2021: One-Cycle Pruning](https://arxiv.org/abs/2107.02086)
    """

    frequency: int = 100

    def _curve(self, progress):
        first, last = 1 / (1 + math.exp(6)), 1 / (1 + math.exp(-8))
        logistic = 1.0 / (1.0 + ops.exp(6.0 - 14.0 * progress))
        return self._between((logistic - first) / (last - first))


@_ramp()
@dataclass(frozen=True)
class DenseSparseDense(_Ramp):
    """Up to `final_sparsity` by half-time, then back to `initial_sparsity`.

    The sparsity is `initial + (final - initial) * (1 - cos(2 pi progress)) / 2`. Weights that
    come back start at zero. The peak falls on a mask update of its own, half-way.

    {ramp_args}

    Example:

    >>> schedule = tfprune.DenseSparseDense(0.0, 0.6, begin_step=0, end_step=100)
    >>> [round(float(schedule(step)[1]), 4) for step in (0, 50, 100)]
    [0.0, 0.6, 0.0]

    Reference:

    - [Han et al., 2017: DSD](https://arxiv.org/abs/1607.04381)
    """

    frequency: int = 100

    @property
    def peak_step(self):
        """The step of the highest sparsity."""
        return self.begin_step + (self.end_step - self.begin_step) // 2

    def __call__(self, step):
        due, value = super().__call__(step)
        at_peak = ops.equal(ops.convert_to_tensor(step), self.peak_step)
        return ops.logical_or(due, at_peak), ops.where(
            at_peak, _float32(self.final_sparsity), value
        )

    def _curve(self, progress):
        return self._between((1.0 - ops.cos(2.0 * math.pi * progress)) / 2.0)

    def _with_exact_ends(self, step, value):
        outside = ops.logical_or(step <= self.begin_step, step >= self.end_step)
        return ops.where(outside, _float32(self.initial_sparsity), value)


@keras.saving.register_keras_serializable(package="tfprune")
class AdoptedSchedule(PruningSchedule):
    """A user's own subclass of tfmot's `PruningSchedule`, used as it is.

    `prune_low_magnitude` wraps such a schedule in this by itself.

    Args:
        schedule: The schedule.

    Example:

    >>> tfprune.schedules.get(tfprune.Cosine(0.0, 0.5, 0, 10)).frequency
    100
    """

    def __init__(self, schedule):
        self.schedule = schedule
        for name in ("begin_step", "end_step", "frequency"):
            if hasattr(schedule, name):
                setattr(self, name, getattr(schedule, name))

    def __call__(self, step):
        return self.schedule(step)

    def get_config(self):
        return {"schedule": serialize(self.schedule)}

    @classmethod
    def from_config(cls, config):
        return cls(keras.saving.deserialize_keras_object(config["schedule"]))


_BUILT_IN = (
    ConstantSparsity,
    PolynomialDecay,
    Exponential,
    Iterative,
    Cosine,
    OneCycle,
    DenseSparseDense,
)


def built_in():
    """Returns the schedule classes that come with tfprune."""
    return _BUILT_IN


def get(schedule):
    """Returns a schedule that tfprune can use.

    Args:
        schedule: A `PruningSchedule`, a schedule of tensorflow_model_optimization (its two
            built-in ones become their namesakes here, a user's own subclass is taken as it is),
            or the config that `serialize` gives.

    Raises:
        TypeError: If it is none of these.
    """
    if isinstance(schedule, dict):
        return deserialize(schedule)
    if isinstance(schedule, PruningSchedule):
        return schedule
    if _is_tfmot_schedule(schedule):
        names = {cls.__name__: cls for cls in _BUILT_IN}
        if type(schedule).__module__.startswith("tensorflow_model_optimization"):
            return names[type(schedule).__name__](**flat_config(schedule.get_config()))
        return AdoptedSchedule(schedule)
    raise TypeError(
        check.message(
            "`pruning_schedule` to be a tfprune.PruningSchedule",
            f"pruning_schedule={schedule!r}",
            "Use for instance tfprune.PolynomialDecay(0.0, 0.9, begin_step=0, end_step=1000).",
        )
    )


def _is_tfmot_schedule(schedule):
    """Told by the class's ancestors: importing tfmot would switch `tf.keras` for the process."""
    return any(
        base.__name__ == "PruningSchedule"
        and base.__module__.startswith("tensorflow_model_optimization")
        for base in type(schedule).__mro__
    )


def serialize(schedule):
    """Returns a schedule as a dictionary that JSON can hold."""
    config = keras.saving.serialize_keras_object(schedule)
    return {**config, "config": flat_config(config["config"])}


def deserialize(config):
    """Makes a schedule from what `serialize` gives."""
    return keras.saving.deserialize_keras_object(config)
