"""How far arrays are apart, against numbers worked out by hand."""

import numpy as np
import pytest

from tfprune._base.differences import relative_difference


@pytest.mark.parametrize(
    ("truth", "found", "expected"),
    [
        ([4.0, -8.0], [4.0, -6.0], 0.25),
        ([[1.0]], [[1.0]], 0.0),
        # Zeros, and what rounding leaves of them, have no fraction.
        ([0.0, 0.0], [0.0, 1e-7], 1e-7),
        ([1e-9], [2e-9], 1e-9),
        ([], [], 0.0),
        ([1.0, 1.0], [[1.0, 1.0]], np.inf),
        ([1.0], [np.nan], np.nan),
        ([np.nan], [1.0], np.nan),
        ([1.0], [np.inf], np.inf),
    ],
)
def test_relative_difference(truth, found, expected):
    assert relative_difference(truth, found) == pytest.approx(expected, rel=1e-9, nan_ok=True)


def test_whole_and_small_numbers_do_not_wrap_around():
    assert relative_difference(np.uint8([200]), np.uint8([250])) == 0.25
    assert relative_difference(np.float16([6e4]), np.float16([-6e4])) == pytest.approx(2.0)
