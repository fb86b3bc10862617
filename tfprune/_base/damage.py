"""Checksums, and messages for files that no longer match theirs."""

import json
import zlib

import numpy as np

from tfprune._base import validation as check


class DamagedFileError(OSError, ValueError):
    """The error for a file that is damaged, or of another kind.

    It is an OSError too, because `keras.callbacks.BackupAndRestore(double_checkpoint=True)` then
    goes back to the copy before.
    """


def damaged(expected, received, mend="Load another copy: nothing can be read from this one."):
    """Returns the error for a file that is damaged."""
    return DamagedFileError(check.message(expected, received, mend))


def checksum(array):
    """Returns the CRC-32 of an array's values, shape and type, the same on every machine."""
    array = np.asarray(array)
    little = array.dtype.newbyteorder("<") if array.dtype.kind in "iufc" else array.dtype
    array = np.ascontiguousarray(array, dtype=little)
    head = f"{array.dtype.kind}{array.dtype.itemsize}{array.shape}"
    return zlib.crc32(array.reshape(-1).view(np.uint8).data, zlib.crc32(head.encode()))


def checksum_of_entries(entries):
    """Returns the CRC-32 of named arrays together, independent of their order."""
    total = 0
    for name in sorted(entries):
        total = zlib.crc32(f"{name}:{checksum(entries[name])};".encode(), total)
    return total


def checksum_of_data(data):
    """Returns the CRC-32 of plain data, as JSON writes it."""
    return zlib.crc32(json.dumps(data, sort_keys=True).encode())
