"""The base classes of all patterns."""

from dataclasses import dataclass

from tfprune._base import validation as check
from tfprune._base.frozen import Frozen
from tfprune._base.registration import PartRegistry

POOLING = ("AVG", "MAX", "SUM")
_ON_ARRAYS = ("pool", "expand", "collapse", "eligible")

PATTERNS = PartRegistry("pattern", default="unstructured")


class Pattern(Frozen):
    """Base class of all patterns: immutable, and equal if their fields are equal.

    Attributes:
        on_tensors: Whether `pool`, `expand`, `collapse` and `eligible` take tensors of the backend
            too. A subclass that replaces one of them says so itself.
        round_to: The number of kept units in a weight is a multiple of this, if the weight has
            that many; see `step`.
    """

    on_tensors = False
    round_to: int | None = 1

    def __init_subclass__(cls, **kwargs):
        super().__init_subclass__(**kwargs)
        if "on_tensors" not in vars(cls) and any(name in vars(cls) for name in _ON_ARRAYS):
            cls.on_tensors = False

    def step(self, units):
        """Returns the number that the kept units of a weight with so many are a multiple of."""
        return self.round_to

    def check(self, shape, axes, name="the weight"):
        """Raises ValueError, naming the weight, unless the pattern fits it."""

    def pool(self, scores, axes):
        """Pools the scores of a weight into one float score per unit."""
        raise NotImplementedError(f"{type(self).__name__} has to implement `pool`.")

    def expand(self, units, shape, axes):
        """Expands an array over units to a weight of this shape."""
        raise NotImplementedError(f"{type(self).__name__} has to implement `expand`.")

    def collapse(self, mask, axes):
        """Returns for each unit whether `mask` keeps any of its weights."""
        raise NotImplementedError(f"{type(self).__name__} has to implement `collapse`.")

    def eligible(self, scores, pruned, axes):
        """Returns which units may be pruned, or `None` if all of them may.

        Args:
            scores: Scores of the weight, or whole numbers in the same order.
            pruned: bool array of the weights that are pruned now; of tensors, `None` for none.
            axes: `KernelAxes` of the weight.
        """
        return None

    def most_zeros(self, shape, axes):
        """Returns the largest number of units that may be pruned in a weight of this shape."""
        return self.unit_count(shape, axes) - 1

    def unit_count(self, shape, axes):
        """Returns the number of units in a weight of this shape."""
        raise NotImplementedError(f"{type(self).__name__} has to implement `unit_count`.")

    def check_target(self, sparsity, name):
        """Raises ValueError, naming the weight, if the pattern cannot reach this sparsity."""


@dataclass(frozen=True)
class Pooled(Pattern):
    """Patterns that pool several weights into one score."""

    pooling: str = "AVG"

    def __post_init__(self):
        check.choice("pooling", self.pooling, POOLING)
