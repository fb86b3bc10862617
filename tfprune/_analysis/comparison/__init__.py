"""Compares a model before and after pruning: layers, files, latency and accuracy."""

from tfprune._analysis.comparison.comparing import Comparison, LayerChange, compare
from tfprune._analysis.comparison.files import ShippedFile

__all__ = ["Comparison", "LayerChange", "ShippedFile", "compare"]
