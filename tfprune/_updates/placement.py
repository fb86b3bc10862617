"""Where the masks of an update are computed: on the host, or where the weights are."""

from tfprune import _keras, patterns, scopes
from tfprune._base import validation as check
from tfprune._wrapping.pruned_weight import PrunedWeight

PLACES = ("auto", "host", "device")
_FLOATS = ("float16", "bfloat16", "float32")


def checked_place(masks_on):
    """Returns the argument `masks_on` of callbacks, or raises."""
    return check.choice("masks_on", masks_on, PLACES)


def on_device(scope, competitors, masks_on):
    """Whether the masks of competitors can be, and are to be, computed where their weights are.

    Args:
        scope: The `Scope` under which they compete.
        competitors: List of `Competitor`s.
        masks_on: "auto", "host" or "device".
    """
    if masks_on == "host" or not _scope_can(scope):
        return False
    if not all(_weight_can(item) for item in competitors):
        return False
    return masks_on == "device" or all(
        _keras.on_accelerator(item.variable) or _keras.spans_processes(item.variable.value)
        for item in competitors
    )


def _scope_can(scope):
    if type(scope) is scopes.Local:
        return scope.distribution is None or not scope.distribution.reads_weights
    return type(scope) is scopes.Global and scope.normalize in (None, "auto")


def _weight_can(item):
    return (
        isinstance(item, PrunedWeight)
        and type(item.method.pattern) is patterns.Unstructured
        and item.method.criterion.on_tensors
        and not item.method.criterion.needs
        and not item.axes.experts
        and item.variable.dtype in _FLOATS
        and 0 < item.size < 2**31 - 1
        and item.is_plain_tensor
    )
