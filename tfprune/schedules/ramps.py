"""Curves from an initial to a final sparsity."""

import math
from dataclasses import dataclass

from keras import ops

from tfprune._base import validation as check
from tfprune.schedules.base import SCHEDULES
from tfprune.schedules.frozen import FrozenSchedule


@dataclass(frozen=True)
class Ramp(FrozenSchedule):
    """From `initial_sparsity` at `begin_step` to `final_sparsity` at `end_step`.

    A subclass is a frozen dataclass with a default for `frequency`, and implements `curve`.

    Args:
        initial_sparsity: Fraction of zeros at `begin_step`, in [0, 1).
        final_sparsity: Fraction of zeros at `end_step`, in [0, 1).
        begin_step: Step of the first mask update.
        end_step: Step of the last mask update; it is always made.

    Example:

    >>> @dataclasses.dataclass(frozen=True)
    ... class Root(tfprune.schedules.Ramp):
    ...     frequency: int = 100
    ...     def curve(self, progress):
    ...         return self.between(progress ** 0.5)
    >>> float(Root(0.0, 0.8, 0, 100)(25)[1])
    0.4000000059604645
    """

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
        """The highest sparsity that the schedule reaches, as a `float`."""
        return max(self.initial_sparsity, self.final_sparsity)

    def __call__(self, step):
        step = ops.convert_to_tensor(step)
        due = self._should_prune_in_step(step, self.begin_step, self.end_step, self.frequency)
        passed = ops.cast(step - self.begin_step, "float32")
        span = ops.convert_to_tensor(float(self.end_step - self.begin_step), dtype="float32")
        progress = ops.clip(ops.divide(passed, span), 0.0, 1.0)
        value = ops.cast(self.curve(progress), "float32")
        # The ends are the user's exact numbers, without rounding errors.
        return due, self._with_exact_ends(step, value)

    def curve(self, progress):
        """Returns the sparsity at a progress; at both ends, the exact sparsities replace it.

        Args:
            progress: Float32 tensor in [0, 1]: 0 at `begin_step`, 1 at `end_step`.
        """
        raise NotImplementedError(
            f"A ramp has to implement `curve(progress)`, and {type(self).__name__} does not."
        )

    def _with_exact_ends(self, step, value):
        value = ops.where(step <= self.begin_step, _float32(self.initial_sparsity), value)
        return ops.where(step >= self.end_step, _float32(self.final_sparsity), value)

    def between(self, fraction):
        """Returns the sparsity at this fraction of the way from initial to final."""
        rise = _float32(self.final_sparsity - self.initial_sparsity)
        return _float32(self.initial_sparsity) + rise * fraction


def _float32(value):
    return ops.convert_to_tensor(value, dtype="float32")


_ARGUMENTS = """
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


def _arguments(own=""):
    """The sections that all ramps' docstrings share, with an optional extra argument."""
    return _ARGUMENTS.format(extra=f"\n        {own}" if own else "")


@SCHEDULES.part(
    arguments=_arguments("power: Exponent, above 0: 3 is the usual cubic curve, 1 is linear.")
)
@dataclass(frozen=True)
class PolynomialDecay(Ramp):
    """Prunes fast at first, then ever more slowly: the automated gradual pruning curve.

    The sparsity is `final + (initial - final) * (1 - progress) ** power`.

    {arguments}

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
        """Makes a linear schedule: `power=1`."""
        return cls(initial_sparsity, final_sparsity, begin_step, end_step, 1, frequency)

    def curve(self, progress):
        rest = ops.power(1.0 - progress, _float32(float(self.power)))
        fall = _float32(self.initial_sparsity - self.final_sparsity)
        return fall * rest + _float32(self.final_sparsity)


@SCHEDULES.part(arguments=_arguments())
@dataclass(frozen=True)
class Exponential(Ramp):
    """Reduces the density by the same factor in every step.

    The sparsity is `1 - (1 - initial) ** (1 - progress) * (1 - final) ** progress`. The rounds of
    a lottery ticket follow this curve.

    {arguments}

    Example:

    >>> schedule = tfprune.Exponential(0.0, 0.75, begin_step=0, end_step=100)
    >>> float(schedule(50)[1])
    0.5

    Reference:

    - [Frankle & Carbin, 2019: The Lottery Ticket Hypothesis](https://arxiv.org/abs/1803.03635)
    """

    frequency: int = 100

    def curve(self, progress):
        dense = ops.power(_float32(1.0 - self.initial_sparsity), 1.0 - progress)
        return 1.0 - dense * ops.power(_float32(1.0 - self.final_sparsity), progress)


@SCHEDULES.part(arguments=_arguments("n_steps: Number of stairs, at least 1."))
@dataclass(frozen=True)
class Iterative(Ramp):
    """Prunes in `n_steps` equal stairs.

    The sparsity is `initial + (final - initial) * ceil(n_steps * progress) / n_steps`.

    {arguments}

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
        # Integers throughout, so that rounding errors cannot move a stair to another step.
        span = self.end_step - self.begin_step
        passed = ops.clip(step - self.begin_step, 0, span)
        stair = ops.floor_divide(passed * self.n_steps + (span - 1), span)
        value = self.between(ops.cast(stair, "float32") / float(self.n_steps))
        value = ops.where(stair >= self.n_steps, _float32(self.final_sparsity), value)
        return due, self._with_exact_ends(step, value)


@SCHEDULES.part(arguments=_arguments())
@dataclass(frozen=True)
class Cosine(Ramp):
    """Follows half a cosine: slow, fast, slow.

    The sparsity is `initial + (final - initial) * (1 - cos(pi * progress)) / 2`.

    {arguments}

    Example:

    >>> schedule = tfprune.Cosine(0.0, 0.8, begin_step=0, end_step=100)
    >>> round(float(schedule(50)[1]), 4)
    0.4
    """

    frequency: int = 100

    def curve(self, progress):
        return self.between((1.0 - ops.cos(math.pi * progress)) / 2.0)


@SCHEDULES.part(arguments=_arguments())
@dataclass(frozen=True)
class OneCycle(Ramp):
    """Follows a logistic curve: stays dense long, prunes fast, then leaves time to fine-tune.

    With `g(p) = 1 / (1 + exp(6 - 14 p))`, the sparsity is
    `initial + (final - initial) * (g(progress) - g(0)) / (g(1) - g(0))`.

    {arguments}

    Example:

    >>> schedule = tfprune.OneCycle(0.0, 0.9, begin_step=0, end_step=100)
    >>> float(schedule(0)[1])
    0.0

    Reference:

    - [Hubens et al., 2021: One-Cycle Pruning](https://arxiv.org/abs/2107.02086)
    """

    frequency: int = 100

    def curve(self, progress):
        first, last = 1 / (1 + math.exp(6)), 1 / (1 + math.exp(-8))
        logistic = 1.0 / (1.0 + ops.exp(6.0 - 14.0 * progress))
        return self.between((logistic - first) / (last - first))


@SCHEDULES.part(arguments=_arguments())
@dataclass(frozen=True)
class DenseSparseDense(Ramp):
    """Rises to `final_sparsity` at half-time, then falls back to `initial_sparsity`.

    The sparsity is `initial + (final - initial) * (1 - cos(2 pi progress)) / 2`. Weights that
    come back start at zero. An extra mask update half-way makes sure that the peak is reached.

    {arguments}

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

    def curve(self, progress):
        return self.between((1.0 - ops.cos(2.0 * math.pi * progress)) / 2.0)

    def _with_exact_ends(self, step, value):
        outside = ops.logical_or(step <= self.begin_step, step >= self.end_step)
        return ops.where(outside, _float32(self.initial_sparsity), value)
