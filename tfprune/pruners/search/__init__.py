"""Searches: which layers give how much, found by evaluating candidates."""

# isort: split
# Written by .ci/generate, from here
from tfprune.pruners.search.annealing import SimulatedAnnealing
from tfprune.pruners.search.netadapt import NetAdapt
from tfprune.pruners.search.sensitivity import SensitivitySearch

__all__ = [
    "NetAdapt",
    "SensitivitySearch",
    "SimulatedAnnealing",
]
# to here.
