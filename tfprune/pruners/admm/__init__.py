"""ADMM: weights are pulled towards a pattern while they train, then pruned to it."""
