"""Plots, one file for each. None of them uses pyplot's global figures."""

# isort: split
# Written by .ci/generate, from here
from tfprune.plots.channels import plot_channels
from tfprune.plots.groups import plot_groups
from tfprune.plots.latency import plot_latency
from tfprune.plots.mask import plot_mask
from tfprune.plots.sparsity import plot_sparsity
from tfprune.plots.tradeoff import plot_tradeoff
from tfprune.plots.training import plot_training
from tfprune.plots.weights import plot_weights

__all__ = [
    "plot_channels",
    "plot_groups",
    "plot_latency",
    "plot_mask",
    "plot_sparsity",
    "plot_tradeoff",
    "plot_training",
    "plot_weights",
]
# to here.
