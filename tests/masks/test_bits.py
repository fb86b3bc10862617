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


def test_single_elements_are_cleared_and_parts_get_one_value():
    bits = Bits(1003)
    for part in (slice(0, 400), slice(400, 1003)):
        bits.write(part, np.True_)
    assert bits.count() == 1003 and np.asarray(bits).all()
    expected = np.ones(1003, bool)
    for part in (slice(0, 400), slice(400, 1003)):
        size = part.stop - part.start
        # Neighbors in one byte too, the first and the last.
        positions = np.flatnonzero(random.random(size) < 0.6).astype(np.uint32)
        positions = np.union1d(positions, [0, size - 1]).astype(np.uint32)
        bits.clear(part, positions)
        expected[part.start + positions] = False
    np.testing.assert_array_equal(bits, expected)
    assert bits.count() == expected.sum()
    bits.clear(slice(0, 400), np.empty(0, np.uint32))
    np.testing.assert_array_equal(bits, expected)
