"""Bool arrays that take one bit an element."""

import numpy as np

_ONES = np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1).sum(axis=1, dtype=np.uint8)
_PIECE = 1 << 18


def _ones(values):
    """The number of bits that are 1 in each byte."""
    # NumPy 1.26 has no function for it.
    return np.bitwise_count(values) if hasattr(np, "bitwise_count") else _ONES[values]


class Bits(np.lib.mixins.NDArrayOperatorsMixin):
    """A flat bool array, of which eight elements share a byte.

    It can be used as a bool array: NumPy's functions, operators and methods get an unpacked copy.

    Args:
        size: Number of elements; their values are undefined.
    """

    def __init__(self, size):
        self.size = size
        self._bytes = np.empty(-(-size // 8), np.uint8)

    @classmethod
    def of(cls, values):
        """Packs a bool array."""
        bits = cls(values.size)
        bits._bytes = np.packbits(values)
        return bits

    def read(self, part):
        """Returns the elements of a slice that begins at a multiple of eight, as a bool array."""
        start, stop, _ = part.indices(self.size)
        packed = self._bytes[start // 8 : -(-stop // 8)]
        return np.unpackbits(packed, count=stop - start).view(bool)

    def write(self, part, values):
        """Sets the elements of a slice that begins at a multiple of eight, to values or to one.

        It ends at another multiple of eight, or with the array.
        """
        start, stop, _ = part.indices(self.size)
        if np.ndim(values) == 0:
            values = np.full(stop - start, values)
        self._bytes[start // 8 : -(-stop // 8)] = np.packbits(values)

    def clear(self, part, positions):
        """Clears elements of a slice that begins at a multiple of eight.

        Args:
            part: The slice.
            positions: Where elements are True in it, each once, as unsigned integers.
        """
        start = part.indices(self.size)[0] // 8
        bits = np.uint8(128) >> (positions & 7).astype(np.uint8)
        # A difference takes the bits off, and has a faster loop than `np.bitwise_and.at`.
        np.subtract.at(self._bytes, start + (positions >> 3), bits)

    def keep(self, values):
        """Clears the elements for which a bool array is False."""
        self._bytes &= np.packbits(values)

    def count(self):
        """Returns the number of elements that are True."""
        pieces = (self._bytes[i : i + _PIECE] for i in range(0, self._bytes.size, _PIECE))
        return sum(int(_ones(piece).sum(dtype="int64")) for piece in pieces)

    def __getitem__(self, index):
        return np.asarray(self)[index]

    def __len__(self):
        return self.size

    def __getattr__(self, name):
        if name.startswith("_"):
            raise AttributeError(name)
        return getattr(np.asarray(self), name)

    def __array_ufunc__(self, ufunc, method, *inputs, **kwargs):
        arrays = [np.asarray(item) if isinstance(item, Bits) else item for item in inputs]
        return getattr(ufunc, method)(*arrays, **kwargs)

    def __array__(self, dtype=None, copy=None):
        values = self.read(slice(None))
        return values if dtype is None else values.astype(dtype)
