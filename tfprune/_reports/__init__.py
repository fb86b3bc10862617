"""Reports on the weights, the sparsity and the cost of a model."""
