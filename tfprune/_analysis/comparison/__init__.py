"""What a model costs before and after: layers, files, latency, accuracy, side by side."""

from tfprune._analysis.comparison.comparing import Comparison, LayerChange, compare
from tfprune._analysis.comparison.files import FileSizes

__all__ = ["Comparison", "FileSizes", "LayerChange", "compare"]
