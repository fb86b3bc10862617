"""tfprune: pruning for Keras 3.

Wrap a model with `prune_low_magnitude`, train it with the `UpdatePruningStep` callback, and take
the wrappers off with `strip_pruning`.
"""

from tfprune import (
    _quiet,  # noqa: F401  First: TensorFlow reads its log level when it is imported.
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
from tfprune.comparison import Comparison, compare
from tfprune.cost import LayerCost, ModelCost, layer_costs, model_cost
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
from tfprune.plots import (
    plot_groups,
    plot_mask,
    plot_sparsity,
    plot_tradeoff,
    plot_training,
    plot_weights,
)
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
from tfprune.sensitivity import Sensitivity, sensitivity
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
    "Comparison",
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
    "LayerCost",
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
    "Sensitivity",
    "ShrinkPlan",
    "Slice",
    "SparsityReport",
    "Tickets",
    "Uniform",
    "Unstructured",
    "UpdatePruningStep",
    "compare",
    "compare_latency",
    "compute_mask",
    "criteria",
    "dependency_groups",
    "distributions",
    "drop_fractions",
    "export",
    "fold_batch_norm",
    "interop",
    "layer_costs",
    "load_plain_weights",
    "masks",
    "measure_latency",
    "model_cost",
    "patterns",
    "plan_shrink",
    "plot_groups",
    "plot_mask",
    "plot_sparsity",
    "plot_tradeoff",
    "plot_training",
    "plot_weights",
    "prune_low_magnitude",
    "prune_scope",
    "pruners",
    "recalibrate",
    "register_channel_rule",
    "register_prunable",
    "remove_channels",
    "schedules",
    "scopes",
    "sensitivity",
    "shrink",
    "sparsity_report",
    "strip_pruning",
    "structural",
]
