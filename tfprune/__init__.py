"""tfprune: pruning for Keras 3.

Wrap a model with `prune_low_magnitude`, train it with the `UpdatePruningStep` callback, and take
the wrappers off with `strip_pruning`.
"""

# First: `python -m tfprune --help` is answered here, before Keras is imported.
from tfprune.cli import as_module as _as_module  # noqa: F401

# isort: split
# Second: a missing backend is explained before a file imports Keras.
from tfprune._base import backend as _backend  # noqa: F401

# isort: split
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
    sparse,
    structural,
)
from tfprune._analysis.comparison import Comparison, compare
from tfprune._analysis.sensitivity.analysis import Sensitivity, sensitivity
from tfprune._base.version import __version__ as __version__
from tfprune._deployment.exporting import Exported, export
from tfprune._deployment.policies import PruneForLatencyOnXNNPack, PruningPolicy
from tfprune._layers.registry import (
    PrunableLayer,
    PrunableWeight,
    register_layer,
    register_prunable,
)
from tfprune._reports.cost import LayerCost, ModelCost, layer_costs, model_cost
from tfprune._reports.latency import Latency, compare_latency, measure_latency
from tfprune._reports.report import SparsityReport, sparsity_report
from tfprune._wrapping.methods import Rule
from tfprune._wrapping.presets import load_preset
from tfprune._wrapping.pruned_model import PrunedModel
from tfprune._wrapping.strip import load_plain_weights, strip_pruning
from tfprune._wrapping.wrapper import PruneLowMagnitude
from tfprune.callbacks import (
    SET,
    SNFS,
    DynamicSparseTraining,
    PruningBackup,
    PruningCheckpoint,
    PruningSummaries,
    RigL,
    UpdatePruningStep,
)
from tfprune.criteria import Criterion, Magnitude
from tfprune.distributions import Distribution
from tfprune.masks.computing import compute_mask
from tfprune.patterns.base import Pattern
from tfprune.prune import prune_low_magnitude, prune_scope
from tfprune.pruners import LotteryTicket, Tickets
from tfprune.regularizers import GroupLasso
from tfprune.schedules.base import PruningSchedule
from tfprune.sparse import SparsePlan, plan_sparse, to_sparse
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

# isort: split
# Written by .ci/generate, from here
from tfprune.distributions.even import FirstLayerDense, Uniform
from tfprune.distributions.layer_adaptive import LAMP
from tfprune.distributions.per_layer import PerLayer
from tfprune.distributions.random_graphs import ErdosRenyi, ErdosRenyiKernel
from tfprune.patterns.blocks import Block
from tfprune.patterns.single_weights import NOfM, Unstructured
from tfprune.patterns.slices import Channel, Column, Filter, Kernel, Row, Slice
from tfprune.plots.channels import plot_channels
from tfprune.plots.groups import plot_groups
from tfprune.plots.latency import plot_latency
from tfprune.plots.mask import plot_mask
from tfprune.plots.sparsity import plot_sparsity
from tfprune.plots.tradeoff import plot_tradeoff
from tfprune.plots.training import plot_training
from tfprune.plots.weights import plot_weights
from tfprune.schedules.constant import ConstantSparsity
from tfprune.schedules.ramps import (
    Cosine,
    DenseSparseDense,
    Exponential,
    Iterative,
    OneCycle,
    PolynomialDecay,
)
from tfprune.scopes import Global, Local

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
    "PruningBackup",
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
    "SparsePlan",
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
    "load_preset",
    "masks",
    "measure_latency",
    "model_cost",
    "patterns",
    "plan_shrink",
    "plan_sparse",
    "plot_channels",
    "plot_groups",
    "plot_latency",
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
    "register_layer",
    "register_prunable",
    "remove_channels",
    "schedules",
    "scopes",
    "sensitivity",
    "shrink",
    "sparse",
    "sparsity_report",
    "strip_pruning",
    "structural",
    "to_sparse",
]
# to here.
