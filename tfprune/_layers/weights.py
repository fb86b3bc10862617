"""Prunable weights of layers, and the axes of each kind of kernel."""

from collections.abc import Callable
from dataclasses import dataclass

from tfprune import _keras
from tfprune._base import validation as check
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
    """Returns the `PrunableWeight` that a layer has under an attribute."""

    def get(layer):
        found = _keras.stored_weight(layer, name) if hasattr(layer, name) else None
        if layer.built and not hasattr(found, "assign"):
            raise TypeError(
                check.message(
                    f"`{name}` of '{layer.name}' to be a weight, as register_prunable was told",
                    f"{found!r:.80}",
                    f"Name the attribute that holds the weight of a {type(layer).__name__}.",
                )
            )
        return found

    return PrunableWeight(name, get, axes, makes_output)
