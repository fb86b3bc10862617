"""Lists the prunable weights of a model, wrapped or not, by the paths that reports use."""

from dataclasses import dataclass
from typing import Any

import keras

from tfprune import _keras
from tfprune._base import globs
from tfprune._base import validation as check
from tfprune._keras.checks import check_built, not_keras, nothing_to_prune
from tfprune._layers import registry
from tfprune._wrapping.wrapper import MaskWrapper, plain_path, pruned_weights
from tfprune.patterns.axes import KernelAxes


@dataclass(frozen=True)
class FoundWeight:
    """A weight that can be pruned.

    Attributes:
        path: Path of its layer in the plain model.
        name: The path, followed by the weight's own name if the layer has several.
        variable: The weight.
        axes: `KernelAxes` of the weight.
        mask: The variable of its mask, or `None`.
    """

    path: str
    name: str
    variable: Any
    axes: KernelAxes
    mask: Any

    @property
    def kept(self):
        """bool array of the weight's shape: the mask, or the nonzero positions without a mask."""
        if self.mask is not None:
            return _keras.host_array(self.mask)
        return _keras.host_array(self.variable) != 0


def find(model):
    """Lists the prunable weights of a model, each once.

    Args:
        model: A built layer or model: wrapped, stripped or plain.

    Returns:
        List of `FoundWeight`, in the order of the layers.

    Raises:
        TypeError: If `model` is not a Keras 3 layer or model.
        ValueError: If `model` is not built, or has no prunable weights.
    """
    if not isinstance(model, keras.layers.Layer):
        raise TypeError(not_keras(model, "model"))
    check_built(model)
    masks = {id(weight.variable): weight.mask for weight in pruned_weights(model)}
    found, seen = [], set()
    paths: set = set()
    for path, layer in layers_by_path(unwrapped(model)):
        known = layer.built and not _keras.is_quantized(layer)
        entries = (registry.own_prunable_weights(layer) or ()) if known else ()
        path = _another(path, paths) if entries else path
        paths.add(path)
        for entry in entries:
            variable = entry.get(layer)
            if id(variable) in seen:
                continue
            seen.add(id(variable))
            name = path if len(entries) == 1 else f"{path}/{entry.name}"
            axes = entry.axes_of(layer)
            found.append(FoundWeight(path, name, variable, axes, masks.get(id(variable))))
    if not found:
        raise ValueError(nothing_to_prune(model))
    return found


def _another(path, taken):
    """Returns a path, numbered if another layer of a subclassed model already has it."""
    number = 2
    new = path
    while new in taken:
        new, number = f"{path} ({number})", number + 1
    return new


def unwrapped(model):
    """Returns the model or layer inside a wrapper; without a wrapper, the model itself."""
    while isinstance(model, MaskWrapper):
        model = model.inner
    return model


def layers_by_path(model):
    """Yields `(path, layer)`, with wrappers left out of the paths."""
    if not isinstance(model, keras.Model):
        yield model.name, model
    for chain in _keras.walk(model):
        if not isinstance(chain[-1][1], MaskWrapper):
            yield plain_path(chain), chain[-1][1]


def chosen(found, names, argument="layers"):
    """Selects weights by their layers.

    Args:
        found: List of `FoundWeight`.
        names: `None` for all, or one layer or a list of layers, each given by its path, its name,
            a pattern of these as in `tfprune.Rule`, or the `name` of one weight.
        argument: Name of the argument in messages.

    Returns:
        List of `FoundWeight`, in the order of `found`.

    Raises:
        TypeError: If a name is not a string.
        ValueError: If the list is empty, or no weight matches a name.
    """
    if names is None:
        return list(found)
    names = [names] if isinstance(names, str) else names
    if not isinstance(names, (list, tuple)) or not all(isinstance(n, str) for n in names):
        raise TypeError(
            check.message(
                f"`{argument}` to be names of layers",
                f"{argument}={names!r}",
                "Pass names as shown by sparsity_report(model).",
            )
        )
    for name in names or [""]:
        if not any(_is_meant(weight, name) for weight in found):
            known = list(dict.fromkeys(weight.path for weight in found))
            listed = ", ".join(known[:8]) + (", ..." if len(known) > 8 else "")
            raise ValueError(
                check.message(
                    f"`{argument}` to name layers with weights that can be pruned",
                    f"{argument}={name!r}" if names else f"{argument}=[]",
                    f"The model has: {listed}.",
                )
            )
    return [weight for weight in found if any(_is_meant(weight, name) for name in names)]


def _is_meant(weight, name):
    # Names may hold brackets, which are a pattern too.
    exact = {weight.path, weight.name, weight.path.rpartition("/")[2]}
    return name in exact or globs.matches_weight(name, weight.name)
