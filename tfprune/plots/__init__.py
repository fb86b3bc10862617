"""Plots, one file for each. None of them uses pyplot's global figures."""

from tfprune.plots.channels import plot_channels as plot_channels
from tfprune.plots.groups import plot_groups as plot_groups
from tfprune.plots.latency import plot_latency as plot_latency
from tfprune.plots.mask import plot_mask as plot_mask
from tfprune.plots.sparsity import plot_sparsity as plot_sparsity
from tfprune.plots.tradeoff import plot_tradeoff as plot_tradeoff
from tfprune.plots.training import plot_training as plot_training
from tfprune.plots.weights import plot_weights as plot_weights
