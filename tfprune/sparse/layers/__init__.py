"""Layers that store only the weights that are left, and compute with sparse kernels."""

from tfprune.sparse.layers.convolution import SparseConv
from tfprune.sparse.layers.dense import SparseDense
from tfprune.sparse.layers.einsum_dense import SparseEinsumDense
from tfprune.sparse.layers.inside import SparseInside

__all__ = ["SparseConv", "SparseDense", "SparseEinsumDense", "SparseInside"]
