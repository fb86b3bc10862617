"""The sparse products of each backend, one file a backend.

Each file has four functions:

- `index_specs(nonzeros, shape)`: `{name: (shape, dtype)}` of the arrays of indices that it reads;
- `indices(rows)`: these arrays for a `CompressedRows`;
- `columns_and_counts(indices, shape)`: the way back, from these arrays on the host;
- `product(values, indices, shape, inputs)`: the inputs, `(examples, columns)`, times the transposed
  matrix; the result has the shape `(examples, rows)`.
"""

import importlib

from tfprune import _keras


def active():
    """Returns the kernels of the active backend."""
    return importlib.import_module(f"tfprune.sparse.kernels.{_keras.backend()}_kernels")
