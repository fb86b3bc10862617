"""Matrices as compressed sparse rows: nonzero weights and their positions."""

from dataclasses import dataclass

import numpy as np

from tfprune._base import validation as check


@dataclass(frozen=True, eq=False)
class CompressedRows:
    """A matrix without its zeros.

    Attributes:
        values: The weights that are not zero, row by row.
        columns: The column of each of them; ascending within a row.
        counts: How many there are in each row.
        shape: `(rows, columns)` of the matrix.
    """

    values: np.ndarray
    columns: np.ndarray
    counts: np.ndarray
    shape: tuple

    @classmethod
    def of(cls, matrix):
        """Compresses a matrix.

        Args:
            matrix: Array of shape `(rows, columns)`.
        """
        matrix = np.asarray(matrix)
        kept = matrix != 0
        return cls(matrix[kept], np.nonzero(kept)[1], kept.sum(axis=1), matrix.shape)

    @classmethod
    def empty(cls, nonzeros, shape):
        """Returns a placeholder with as many entries as a matrix that will be loaded."""
        counts = np.zeros(shape[0], "int64")
        counts[0] = nonzeros
        columns = np.arange(nonzeros) % max(1, shape[1])
        return cls(np.zeros(nonzeros, "float32"), columns, counts, tuple(shape))

    @property
    def starts(self):
        """The place of each row's first entry, and after the last row the number of entries."""
        return np.concatenate([[0], np.cumsum(self.counts)])

    @property
    def rows(self):
        """The row of each entry."""
        return np.repeat(np.arange(self.shape[0]), self.counts)

    def dense(self):
        """Returns the matrix with its zeros."""
        matrix = np.zeros(self.shape, self.values.dtype)
        matrix[self.rows, self.columns] = self.values
        return matrix

    def packed(self):
        """Returns the arrays of a file, with integers as short as their values allow."""
        return {
            "values": self.values,
            "columns": _short(self.columns, self.shape[1] - 1),
            "counts": _short(self.counts, self.shape[1]),
        }

    @classmethod
    def unpacked(cls, arrays, nonzeros, shape, name):
        """Makes a matrix of the arrays of a file.

        Args:
            arrays: What `packed` returned.
            nonzeros: How many entries are expected.
            shape: The expected shape.
            name: Name of the layer, for errors.

        Raises:
            ValueError: If the arrays do not fit each other or the expected shape.
        """
        values, columns, counts = (
            np.asarray(arrays[key]) if key in arrays else np.zeros(0)
            for key in ("values", "columns", "counts")
        )
        fits = (
            values.shape == columns.shape == (nonzeros,)
            and counts.shape == (shape[0],)
            and int(counts.sum()) == nonzeros
            and (not nonzeros or int(columns.max()) < shape[1])
        )
        if not fits:
            raise ValueError(
                check.message(
                    f"a file with {nonzeros:,} weights and the places of each, for sparse layer "
                    f"'{name}' of {shape[0]:,} x {shape[1]:,} weights",
                    f"{values.size:,} values, {columns.size:,} columns, {counts.size:,} rows",
                    "The file belongs to another model, or is damaged: save the model again.",
                )
            )
        return cls(values, columns.astype("int64"), counts.astype("int64"), tuple(shape))


def _short(numbers, largest):
    for dtype in ("uint8", "uint16"):
        if largest <= np.iinfo(dtype).max:
            return numbers.astype(dtype)
    return numbers.astype("uint32")
