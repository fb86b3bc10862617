"""Pruning of trained models without training, block by block, by what goes into each layer."""
