"""Patterns: the units in which a weight is pruned.

A pattern pools the scores of a weight into one score per unit (`pool`), and expands a mask over
units to a mask over the weight (`expand`). Everything else, including the selection of units, is
the same for all patterns.
"""

from tfprune.patterns.axes import KernelAxes
from tfprune.patterns.base import PATTERNS, Pattern
from tfprune.patterns.slices import SlicePattern

# isort: split
# Written by .ci/generate, from here
from tfprune.patterns.blocks import Block
from tfprune.patterns.single_weights import NOfM, Unstructured
from tfprune.patterns.slices import Channel, Column, Filter, Kernel, Row, Slice

__all__ = [
    "PATTERNS",
    "Block",
    "Channel",
    "Column",
    "Filter",
    "Kernel",
    "KernelAxes",
    "NOfM",
    "Pattern",
    "Row",
    "Slice",
    "SlicePattern",
    "Unstructured",
    "built_in",
    "get",
]
# to here.


def built_in():
    """Returns the built-in pattern classes, by name."""
    return PATTERNS.by_name()


def get(pattern):
    """Returns a pattern.

    Args:
        pattern: A `Pattern`, the name of one, its serialized form, or `None` for `Unstructured`.

    Raises:
        ValueError: For an unknown name.
        TypeError: For anything else.
    """
    return PATTERNS.get(pattern, Pattern)
