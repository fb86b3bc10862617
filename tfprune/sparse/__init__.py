"""Sparse layers: models that store and multiply only nonzero weights."""

from tfprune.sparse.conversion import plan_sparse, to_sparse
from tfprune.sparse.layers import (
    SemiStructuredDense,
    SparseConv,
    SparseDense,
    SparseEinsumDense,
    SparseInside,
)
from tfprune.sparse.plan import LayerChoice, SparsePlan

__all__ = [
    "LayerChoice",
    "SemiStructuredDense",
    "SparseConv",
    "SparseDense",
    "SparseEinsumDense",
    "SparseInside",
    "SparsePlan",
    "plan_sparse",
    "to_sparse",
]
