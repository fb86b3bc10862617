"""What a model costs before and after: layers, files, latency, accuracy, side by side."""

from tfprune.comparison.compare import Comparison, LayerChange, compare
from tfprune.comparison.files import FileSizes

__all__ = ["Comparison", "FileSizes", "LayerChange", "compare"]
