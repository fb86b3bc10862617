"""The projection in NumPy, against numpy.where, bit by bit."""

import ml_dtypes
import numpy as np
import pytest

from tfprune.masks import is_masked, write_masked

DTYPES = ("float16", "float32", "float64", ml_dtypes.bfloat16)


def bits(array):
    return array.view(f"u{array.dtype.itemsize}")


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_keeps_every_bit_and_writes_plus_zero(dtype):
    special = [np.nan, np.inf, -np.inf, -0.0, 0.0, 1.5, -1.5, 1e-40, -1e-310]
    value = np.array([special, special], "float64").astype(dtype)
    mask = np.array([[True] * len(special), [False] * len(special)])
    found = np.full_like(value, 7)
    write_masked(value, mask, found)
    np.testing.assert_array_equal(bits(found)[0], bits(value)[0])
    assert not bits(found)[1].any()
    assert is_masked(found, mask) and not is_masked(value, mask)


@pytest.mark.parametrize("shape", [(), (0, 4), (3, 5, 7), (1 << 18,), ((1 << 18) + 3, 2)])
def test_all_sizes(shape):
    random = np.random.default_rng(0)
    value = random.standard_normal(shape).astype("float32").reshape(shape)
    mask = np.asarray(random.random(shape) < 0.4)
    found = np.full_like(value, 7)
    write_masked(value, mask, found)
    np.testing.assert_array_equal(found, np.where(mask, value, np.float32(0)))
    assert is_masked(found, mask)
    assert is_masked(value, mask) == bool(mask.all())


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("there", [np.nan, -0.0, np.inf, 1.0])
@pytest.mark.parametrize("place", [0, 5, (1 << 18) + 5])
def test_one_value_that_is_not_plus_zero_is_seen(dtype, there, place):
    mask = np.ones((1 << 18) + 6, bool)
    mask[[0, 5, -1]] = False
    value = np.where(mask, 2.0, 0.0).astype(dtype)
    assert is_masked(value, mask)
    value[place] = there
    assert not is_masked(value, mask)
