"""Lottery tickets: rounds of training, pruning and rewinding."""
