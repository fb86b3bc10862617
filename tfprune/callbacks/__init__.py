"""Callbacks, one a file."""

from tfprune.callbacks.pruning_checkpoint import PruningCheckpoint
from tfprune.callbacks.pruning_summaries import PruningSummaries
from tfprune.callbacks.update_pruning_step import UpdatePruningStep

__all__ = ["PruningCheckpoint", "PruningSummaries", "UpdatePruningStep"]
