"""Callbacks, one per file."""

from tfprune.callbacks.dynamic_sparse_training import SET, SNFS, DynamicSparseTraining, RigL
from tfprune.callbacks.pruning_backup import PruningBackup
from tfprune.callbacks.pruning_checkpoint import PruningCheckpoint
from tfprune.callbacks.pruning_summaries import PruningSummaries
from tfprune.callbacks.update_pruning_step import UpdatePruningStep

__all__ = [
    "SET",
    "SNFS",
    "DynamicSparseTraining",
    "PruningBackup",
    "PruningCheckpoint",
    "PruningSummaries",
    "RigL",
    "UpdatePruningStep",
]
