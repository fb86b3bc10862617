"""What reports read of layers that store a kernel without its zeros."""

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class StoredKernel:
    """A kernel of which only the nonzero weights exist.

    Attributes:
        shape: Shape of the kernel with its zeros.
        nonzeros: Number of weights that are stored.
    """

    shape: tuple
    nonzeros: int

    @property
    def size(self):
        """Number of weights, those included that are not stored."""
        return math.prod(self.shape)

    @property
    def zeros(self):
        """Number of weights that are not stored, because they are zero."""
        return self.size - self.nonzeros


class StoresNonzeros:
    """Interface of a layer that stores its kernel without zeros, as values and their places."""

    @property
    def stored(self):
        """The `StoredKernel`; known once the layer is built."""
        raise NotImplementedError

    @property
    def compressed(self):
        """List of the variables that hold the kernel."""
        raise NotImplementedError


def stores_nonzeros(layer):
    """Whether a layer is built, and stores its kernel without zeros."""
    return isinstance(layer, StoresNonzeros) and layer.built  # type: ignore[attr-defined]
