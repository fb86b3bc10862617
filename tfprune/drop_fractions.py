"""Drop fractions: training progress -> share of connections that dynamic training drops."""

from dataclasses import dataclass
from math import cos, pi

from tfprune._base import validation as check
from tfprune._base.frozen import Frozen
from tfprune._base.registration import PartRegistry

DROP_FRACTIONS = PartRegistry("drop_fraction", "tfprune.drop_fractions", default="cosine")


@dataclass(frozen=True)
class DropFraction(Frozen):
    """Base class of all drop fractions.

    Args:
        initial: Share of the active connections that the first update drops, in [0, 1).

    Raises:
        ValueError, TypeError: If the share is out of range.
    """

    initial: float = 0.3

    def __post_init__(self):
        object.__setattr__(self, "initial", check.sparsity("initial", self.initial))

    def __call__(self, progress):
        """Returns the share at `progress`, from 0 (start) to 1 (last update)."""
        raise NotImplementedError(f"{type(self).__name__} has to implement `__call__(progress)`.")


@DROP_FRACTIONS.part("constant")
@dataclass(frozen=True)
class ConstantDrop(DropFraction):
    """Drops the same share at every update, as in SET.

    Args:
        initial: The share, in [0, 1).

    Example:

    >>> tfprune.drop_fractions.ConstantDrop(0.2)(0.7)
    0.2
    """

    def __call__(self, progress):
        return self.initial


@DROP_FRACTIONS.part("cosine")
@dataclass(frozen=True)
class CosineDrop(DropFraction):
    """`initial / 2 * (1 + cos(pi * progress))`, as in RigL.

    Args:
        initial: Share of the active connections that the first update drops, in [0, 1).

    Example:

    >>> tfprune.drop_fractions.CosineDrop(0.2)(0.5)
    0.1

    Reference:

    - [Evci et al., 2020: Rigging the Lottery](https://arxiv.org/abs/1911.11134)
    """

    def __call__(self, progress):
        return self.initial / 2 * (1 + cos(pi * progress))


@DROP_FRACTIONS.part("power")
@dataclass(frozen=True)
class PowerDrop(DropFraction):
    """`initial * (1 - progress) ** power`.

    Args:
        initial: Share of the active connections that the first update drops, in [0, 1).
        power: Above 0; 1 is a straight line.

    Raises:
        ValueError, TypeError: If a number is out of range.

    Example:

    >>> tfprune.drop_fractions.PowerDrop(0.4, power=2)(0.5)
    0.1
    """

    power: float = 1

    def __post_init__(self):
        super().__post_init__()
        check.positive("power", self.power, "Use 1 for a straight line.")

    def __call__(self, progress):
        return self.initial * (1 - progress) ** self.power


def built_in():
    """Returns the built-in drop fraction classes, by name."""
    return DROP_FRACTIONS.by_name()


def get(drop_fraction):
    """Returns a drop fraction.

    Args:
        drop_fraction: A `DropFraction`, the name of one, its serialized form, a number for
            `CosineDrop`, or `None` for its default.

    Raises:
        ValueError: For an unknown name or a number out of range.
        TypeError: For anything else.
    """
    if isinstance(drop_fraction, (int, float)) and not isinstance(drop_fraction, bool):
        return CosineDrop(check.sparsity("drop_fraction", drop_fraction))
    return DROP_FRACTIONS.get(drop_fraction, DropFraction)
