"""tfprune: pruning for Keras 3.

Wrap a model with `prune_low_magnitude`, train it with the `UpdatePruningStep` callback, and take
the wrappers off with `strip_pruning`.
"""

from tfprune import criteria, masks, patterns, schedules, scopes
from tfprune.callbacks import PruningCheckpoint, PruningSummaries, UpdatePruningStep
from tfprune.criteria import Criterion, Magnitude
from tfprune.masks import compute_mask
from tfprune.methods import Rule
from tfprune.patterns import (
    Block,
    Channel,
    Column,
    Filter,
    Kernel,
    NOfM,
    Pattern,
    Row,
    Slice,
    Unstructured,
)
from tfprune.policies import PruneForLatencyOnXNNPack, PruningPolicy
from tfprune.prune import load_plain_weights, prune_low_magnitude, prune_scope, strip_pruning
from tfprune.registry import PrunableLayer, PrunableWeight, register_prunable
from tfprune.report import SparsityReport, sparsity_report
from tfprune.schedules import (
    ConstantSparsity,
    Cosine,
    DenseSparseDense,
    Exponential,
    Iterative,
    OneCycle,
    PolynomialDecay,
    PruningSchedule,
)
from tfprune.scopes import Global, Local
from tfprune.wrapper import PrunedModel, PruneLowMagnitude

__version__ = "0.1.0"

__all__ = [
    "Block",
    "Channel",
    "Column",
    "ConstantSparsity",
    "Cosine",
    "Criterion",
    "DenseSparseDense",
    "Exponential",
    "Filter",
    "Global",
    "Iterative",
    "Kernel",
    "Local",
    "Magnitude",
    "NOfM",
    "OneCycle",
    "Pattern",
    "PolynomialDecay",
    "PrunableLayer",
    "PrunableWeight",
    "PruneForLatencyOnXNNPack",
    "PruneLowMagnitude",
    "PrunedModel",
    "PruningCheckpoint",
    "PruningPolicy",
    "PruningSchedule",
    "PruningSummaries",
    "Row",
    "Rule",
    "Slice",
    "SparsityReport",
    "Unstructured",
    "UpdatePruningStep",
    "compute_mask",
    "criteria",
    "load_plain_weights",
    "masks",
    "patterns",
    "prune_low_magnitude",
    "prune_scope",
    "register_prunable",
    "schedules",
    "scopes",
    "sparsity_report",
    "strip_pruning",
]
