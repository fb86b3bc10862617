"""Distributions: rules that divide an overall sparsity among the layers."""

from tfprune.distributions.apportioning import apportion
from tfprune.distributions.base import DISTRIBUTIONS, Distribution

# isort: split
# Written by .ci/generate, from here
from tfprune.distributions.even import FirstLayerDense, Uniform
from tfprune.distributions.layer_adaptive import LAMP
from tfprune.distributions.per_layer import PerLayer
from tfprune.distributions.random_graphs import ErdosRenyi, ErdosRenyiKernel

__all__ = [
    "DISTRIBUTIONS",
    "LAMP",
    "Distribution",
    "ErdosRenyi",
    "ErdosRenyiKernel",
    "FirstLayerDense",
    "PerLayer",
    "Uniform",
    "apportion",
    "built_in",
    "get",
]
# to here.


def built_in():
    """Returns the built-in distribution classes, by name."""
    return DISTRIBUTIONS.by_name()


def get(distribution):
    """Returns a distribution.

    Args:
        distribution: A `Distribution`, the name of one, its serialized form, or `None` for
            `Uniform`.

    Raises:
        ValueError: For an unknown name.
        TypeError: For anything else.
    """
    return DISTRIBUTIONS.get(distribution, Distribution)
