"""Which layers can be pruned further than others: one alone is pruned, and the model measured."""

from tfprune.sensitivity.analysis import LayerSensitivity, Sensitivity, sensitivity

__all__ = ["LayerSensitivity", "Sensitivity", "sensitivity"]
