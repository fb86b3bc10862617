"""Compressed rows: what they hold, and the way back."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tfprune.sparse.storage import CompressedRows


def test_rows_a_person_can_check():
    rows = CompressedRows.of(np.array([[0, 5, 0], [0, 0, 0], [7, 0, 9]], "float32"))
    assert rows.values.tolist() == [5, 7, 9]
    assert rows.columns.tolist() == [1, 0, 2]
    assert rows.counts.tolist() == [1, 0, 2]
    assert rows.starts.tolist() == [0, 1, 1, 3]
    assert rows.rows.tolist() == [0, 2, 2]


@given(st.integers(1, 7), st.integers(1, 9), st.floats(0, 1), st.integers(0, 99))
def test_the_way_back_is_exact(height, width, share, seed):
    random = np.random.default_rng(seed)
    size = height, width
    matrix = np.where(random.random(size) < share, 0, random.normal(size=size))
    rows = CompressedRows.of(matrix)
    packed = rows.packed()
    again = CompressedRows.unpacked(packed, len(rows.values), matrix.shape, "layer")
    assert np.array_equal(again.dense(), matrix)
    assert packed["values"].size == np.count_nonzero(matrix)


@pytest.mark.parametrize(
    ("width", "dtype"),
    [(255, "uint8"), (256, "uint8"), (257, "uint16"), (65536, "uint16"), (65537, "uint32")],
)
def test_columns_are_as_short_as_the_matrix_allows(width, dtype):
    matrix = np.zeros((1, width), "float32")
    matrix[0, -1] = 1
    packed = CompressedRows.of(matrix).packed()
    assert packed["columns"].dtype == dtype and packed["columns"].tolist() == [width - 1]


@pytest.mark.parametrize(
    "change",
    [
        {"values": np.ones(2)},
        {"columns": np.array([0, 3, 2])},
        {"counts": np.array([1, 1, 0])},
        {"counts": np.array([3])},
        {"columns": None},
    ],
)
def test_arrays_that_do_not_fit_are_refused(change):
    packed = CompressedRows.of(np.eye(3)).packed()
    changed = {k: v for k, v in {**packed, **change}.items() if v is not None}
    with pytest.raises(ValueError, match=r"Expected a file with 3 weights .* 'wide' of 3 x 3"):
        CompressedRows.unpacked(changed, 3, (3, 3), "wide")
