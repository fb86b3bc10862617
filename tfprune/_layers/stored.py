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


def number_of_weights(layers, variables):
    """Returns how many weights variables hold, zeros that are not stored included.

    Args:
        layers: The layers to which the variables belong, and those inside them. The kernels of
            those that store no zeros are counted at full size in place of their variables.
        variables: Iterable of variables, each once.
    """
    sparse = {id(layer): layer for layer in layers if stores_nonzeros(layer)}.values()
    compressed = {id(variable) for layer in sparse for variable in layer.compressed}
    others = (math.prod(v.shape) for v in variables if id(v) not in compressed)
    return sum(layer.stored.size for layer in sparse) + sum(others)
