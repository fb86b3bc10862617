"""Layers that store only nonzero weights, and compute with sparse kernels."""

from tfprune.sparse.layers.convolution import SparseConv
from tfprune.sparse.layers.dense import SparseDense
from tfprune.sparse.layers.einsum_dense import SparseEinsumDense
from tfprune.sparse.layers.inside import SparseInside
from tfprune.sparse.layers.semi_structured import SemiStructuredDense

__all__ = [
    "SemiStructuredDense",
    "SparseConv",
    "SparseDense",
    "SparseEinsumDense",
    "SparseInside",
]
