"""A weight of a layer that can be pruned, and the axes of the kinds of kernels there are."""

from collections.abc import Callable
from dataclasses import dataclass

from tfprune import _keras
from tfprune.patterns.axes import KernelAxes

DENSE = KernelAxes((-2,), (-1,))
TRANSPOSED = KernelAxes((-1,), (-2,))
DEPTHWISE = KernelAxes((-2,), (-2, -1))


@dataclass(frozen=True)
class PrunableWeight:
    """A weight of a layer that can be pruned.

    Args:
        name: What reports call it, "kernel" for instance.
        get: Function from the layer to the variable.
        axes: `KernelAxes`, or a function from the layer to them.
        makes_output: Whether the weight's output channels are those of the layer's output.
        since_lists: Whether the weight is known only where a config lists the masked weights:
            files of version 0.1 do not, and hold no mask for it.
    """

    name: str
    get: Callable
    axes: KernelAxes | Callable = DENSE
    makes_output: bool = True
    since_lists: bool = False

    def axes_of(self, layer):
        """Returns the `KernelAxes` of the weight in this layer."""
        return self.axes if isinstance(self.axes, KernelAxes) else self.axes(layer)


def attribute(name, axes=DENSE, makes_output=True):
    """Returns the `PrunableWeight` that a layer has under an attribute."""
    return PrunableWeight(name, lambda layer: _keras.stored_weight(layer, name), axes, makes_output)
