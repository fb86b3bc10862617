"""Sparse products on JAX.

Milliseconds of a 2048 x 2048 matrix of 95 % zeros, one thread of a processor with AVX-512, for 1, 8
and 64 examples: dense 0.47, 0.82, 3.3; this file 0.67, 0.67, 1.3. Coordinates that are sorted by
column took 0.26 for one example, and 49 for 64. The values lie row by row for all of them: to bring
them into the order of columns first takes about as long as it saves.
"""

import numpy as np


def index_specs(nonzeros, shape):
    """Returns the shapes and dtypes of the index arrays."""
    return {
        "columns": ((nonzeros,), "int32"),
        "starts": ((shape[0] + 1,), "int32"),
        "places": ((nonzeros, 2), "int32"),
    }


def indices(rows):
    """Returns the index arrays of a `CompressedRows`."""
    return {
        "columns": rows.columns.astype("int32"),
        "starts": rows.starts.astype("int32"),
        "places": np.stack([rows.columns, rows.rows], axis=1).astype("int32"),
    }


def columns_and_counts(indices, shape):
    """Returns the column of each weight, and the number of weights in each row."""
    return indices["columns"], np.diff(indices["starts"])


def product(values, indices, shape, inputs):
    """Returns `inputs @ matrix.T`."""
    from jax.experimental import sparse

    if inputs.shape[0] == 1:
        return inputs @ sparse.BCOO(
            (values, indices["places"]), shape=shape[::-1], unique_indices=True
        )
    matrix = sparse.BCSR(
        (values, indices["columns"], indices["starts"]),
        shape=shape,
        indices_sorted=True,
        unique_indices=True,
    )
    return (matrix @ inputs.T).T
