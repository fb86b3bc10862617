"""Packed bool arrays, against bool arrays."""

import numpy as np
import pytest

from tfprune.masks import Bits

random = np.random.default_rng(0)


@pytest.mark.parametrize("size", [0, 1, 7, 8, 9, 64, 1003, (1 << 21) + 5])
def test_reads_as_the_array_that_was_packed(size):
    values = random.random(size) < 0.3
    bits = Bits.of(values)
    np.testing.assert_array_equal(np.asarray(bits), values)
    assert np.asarray(bits).dtype == bool
    assert (bits.size, len(bits), bits.count()) == (size, size, values.sum())
    # One bit an element.
    assert bits._bytes.nbytes == -(-size // 8)


def test_pieces():
    values = random.random(1003) < 0.5
    bits = Bits(1003)
    for part in (slice(0, 400), slice(400, 800), slice(800, 1003)):
        bits.write(part, values[part])
        np.testing.assert_array_equal(bits.read(part), values[part])
    bits.write(slice(400, 800), ~values[400:800])
    values[400:800] ^= True
    np.testing.assert_array_equal(bits, values)
    other = random.random(1003) < 0.5
    bits.keep(other)
    np.testing.assert_array_equal(bits, values & other)
    assert bits.count() == np.count_nonzero(values & other)


def test_works_as_a_bool_array():
    values = np.array([True, False, True])
    bits = Bits.of(values)
    np.testing.assert_array_equal(~bits, ~values)
    np.testing.assert_array_equal(bits & ~values, [False] * 3)
    np.testing.assert_array_equal(np.where(bits, 1, 2), [1, 2, 1])
    np.testing.assert_array_equal(bits[1:], [False, True])
    assert bits.tolist() == [True, False, True] and bits.sum() == 2
    assert bits.reshape(3, 1).shape == (3, 1)
