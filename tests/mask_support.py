"""What the tests of masks and of the kernel share."""

from decimal import ROUND_HALF_EVEN, Decimal

import ml_dtypes
import numpy as np
from hypothesis import strategies as st

from tfprune._updates import mask_update, placement

DTYPES = ["float16", ml_dtypes.bfloat16, "float32", "float64"]


T, F = True, False


def by_sorting(scores, kept):
    """The `kept` highest scores, of equal ones the earlier: NumPy's own stable sort."""
    flat = np.asarray(scores).astype("float64").reshape(-1)
    mask = np.zeros(flat.size, dtype=bool)
    mask[np.argsort(-flat, kind="stable")[:kept]] = True
    return mask.reshape(np.shape(scores))


def exact_count(units, sparsity):
    """`sparsity` is a decimal in a string."""
    kept = units * (1 - Decimal(sparsity))
    return max(1, int(kept.quantize(Decimal(1), ROUND_HALF_EVEN)))


finite = st.floats(-8, 8, width=16).map(lambda x: round(x * 2) / 2) | st.floats(-1e3, 1e3, width=32)


# For the kernel on the device: dtypes of four weights, and values with ties.
TENSOR_DTYPES = ("float32", "float16", "float32", "bfloat16")
SPECIAL = [0.0, -0.0, 1.0, -1.0, 1e-40, -1e-40, 2.0**-24, 65504.0, -2.5, 0.5]


def watched_places(monkeypatch):
    """Returns a list that gets the place of each choice that `masks_on="device"` asks for."""
    places = []
    original = placement.place_of

    def watched(scope, competitors, masks_on):
        found = original(scope, competitors, masks_on)
        # The check of a wrapped model asks for the host.
        places.extend([found] if masks_on == "device" else [])
        return found

    monkeypatch.setattr(mask_update, "place_of", watched)
    return places
