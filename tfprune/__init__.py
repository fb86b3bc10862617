"""tfprune: pruning for Keras 3.

Wrap a model with `prune_low_magnitude`, train it with the `UpdatePruningStep` callback, and take
the wrappers off with `strip_pruning`.
"""

from tfprune import (
    criteria,
    distributions,
    drop_fractions,
    interop,
    masks,
    patterns,
    pruners,
    schedules,
    scopes,
    structural,
)
from tfprune.callbacks import (
    SET,
    SNFS,
    DynamicSparseTraining,
    PruningCheckpoint,
    PruningSummaries,
    RigL,
    UpdatePruningStep,
)
from tfprune.cost import ModelCost, model_cost
from tfprune.criteria import Criterion, Magnitude
from tfprune.distributions import (
    LAMP,
    Distribution,
    ErdosRenyi,
    ErdosRenyiKernel,
    FirstLayerDense,
    PerLayer,
    Uniform,
)
from tfprune.export import Exported, export
from tfprune.latency import Latency, compare_latency, measure_latency
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
from tfprune.plots import plot_groups
from tfprune.policies import PruneForLatencyOnXNNPack, PruningPolicy
from tfprune.prune import prune_low_magnitude, prune_scope
from tfprune.pruners import LotteryTicket, Tickets
from tfprune.registry import PrunableLayer, PrunableWeight, register_prunable
from tfprune.regularizers import GroupLasso
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
from tfprune.strip import load_plain_weights, strip_pruning
from tfprune.structural import (
    ChannelGroup,
    ShrinkPlan,
    dependency_groups,
    fold_batch_norm,
    plan_shrink,
    recalibrate,
    register_channel_rule,
    remove_channels,
    shrink,
)
from tfprune.wrapper import PrunedModel, PruneLowMagnitude

__version__ = "0.1.0"

__all__ = [
    "LAMP",
    "SET",
    "SNFS",
    "Block",
    "Channel",
    "ChannelGroup",
    "Column",
    "ConstantSparsity",
    "Cosine",
    "Criterion",
    "DenseSparseDense",
    "Distribution",
    "DynamicSparseTraining",
    "ErdosRenyi",
    "ErdosRenyiKernel",
    "Exponential",
    "Exported",
    "Filter",
    "FirstLayerDense",
    "Global",
    "GroupLasso",
    "Iterative",
    "Kernel",
    "Latency",
    "Local",
    "LotteryTicket",
    "Magnitude",
    "ModelCost",
    "NOfM",
    "OneCycle",
    "Pattern",
    "PerLayer",
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
    "RigL",
    "Row",
    "Rule",
    "ShrinkPlan",
    "Slice",
    "SparsityReport",
    "Tickets",
    "Uniform",
    "Unstructured",
    "UpdatePruningStep",
    "compare_latency",
    "compute_mask",
    "criteria",
    "dependency_groups",
    "distributions",
    "drop_fractions",
    "export",
    "fold_batch_norm",
    "interop",
    "load_plain_weights",
    "masks",
    "measure_latency",
    "model_cost",
    "patterns",
    "plan_shrink",
    "plot_groups",
    "prune_low_magnitude",
    "prune_scope",
    "pruners",
    "recalibrate",
    "register_channel_rule",
    "register_prunable",
    "remove_channels",
    "schedules",
    "scopes",
    "shrink",
    "sparsity_report",
    "strip_pruning",
    "structural",
]
