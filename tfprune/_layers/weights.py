"""Prunable weights of layers, and the axes of each kind of kernel."""

from collections.abc import Callable
from dataclasses import dataclass

from tfprune import _keras
from tfprune.patterns.axes import KernelAxes

DENSE = KernelAxes((-2,), (-1,))
TRANSPOSED = KernelAxes((-1,), (-2,))
DEPTHWISE = KernelAxes((-2,), (-2, -1))


@dataclass(frozen=True)
class PrunableWeight:
    """Describes a prunable weight of a layer class.

    Args:
        name: Name of the weight in reports, for instance "kernel".
        get: Function from the layer to the variable.
        axes: `KernelAxes`, or a function from the layer to them.
        makes_output: Whether the weight's output channels are the channels of the layer's output.
        since_lists: Whether the weight is prunable only if the config lists the masked weights.
            Configs of version 0.1 have no such list, and their files hold no mask for it.
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
    """Returns the `PrunableWeight` for an attribute of a layer."""
    return PrunableWeight(name, lambda layer: _keras.stored_weight(layer, name), axes, makes_output)
