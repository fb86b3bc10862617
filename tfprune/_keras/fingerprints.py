"""Short texts that identify weights and data."""

import hashlib

import keras
import numpy as np

from tfprune._keras.devices import on_host
from tfprune._keras.layers import host_array


def fingerprint(thing):
    """Returns a short text that differs for different weights or arrays.

    For data sets, which may be long, it is the name of the class.
    """
    digest = hashlib.sha256()
    for part in keras.tree.flatten(thing):
        if isinstance(part, keras.Variable):
            array = host_array(part)
        elif isinstance(part, np.ndarray) or keras.ops.is_tensor(part):
            array = on_host(part)
        else:
            digest.update(type(part).__name__.encode())
            continue
        digest.update(f"{array.dtype}{array.shape}".encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()[:16]
