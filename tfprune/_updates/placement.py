"""Where the masks of an update are computed: on the host, or where the weights are."""

from tfprune import _keras, patterns, scopes
from tfprune._base import validation as check
from tfprune._channels.coupling import PrunedGroup

PLACES = ("auto", "host", "device")
# The host chooses among so many units of slices in less time than the device takes to begin.
FEW = 1 << 16
_FLOATS = ("float16", "bfloat16", "float32")
# Evidence that is no array of the weight's shape, or is not collected for tensors.
_HOST_EVIDENCE = {"axes", "position", "dual"}


def checked_place(masks_on):
    """Returns the argument `masks_on` of callbacks, or raises."""
    return check.choice("masks_on", masks_on, PLACES)


def place_of(scope, competitors, masks_on):
    """Returns where the masks of competitors are computed.

    Args:
        scope: The `Scope` under which they compete.
        competitors: List of `Competitor`s.
        masks_on: "auto", "host" or "device".

    Returns:
        "device": all of it happens where the weights are; "pooled": scores are pooled there, and
        the host chooses among the units; "host": the weights are read.
    """
    weights = [weight for item in competitors for weight in item.scored]
    if masks_on == "host" or not _scope_can(scope) or not all(map(_can, weights)):
        return "host"
    if masks_on == "auto" and not _away(weights):
        return "host"
    choosing = not any(
        isinstance(item, PrunedGroup) or _scaled(scope, item) for item in competitors
    )
    slices = any(isinstance(weight.method.pattern, patterns.SlicePattern) for weight in weights)
    if slices and (not choosing or sum(map(_units, competitors)) <= FEW):
        return "pooled"
    return "device" if choosing else "host"


def exchanges_on_device(weights, criteria, masks_on):
    """Whether weights drop and grow connections where they are, by a pair of criteria."""
    if masks_on == "host" or (masks_on == "auto" and not _away(weights)):
        return False
    return all(_can(weight, criterion) for weight in weights for criterion in criteria)


def _away(weights):
    """Whether all weights are on accelerators, or span processes."""
    return all(
        _keras.on_accelerator(weight.variable) or _keras.spans_processes(weight.variable.value)
        for weight in weights
    )


def _can(weight, criterion=None):
    """Whether the scores of a `PrunedWeight` can be computed where it is."""
    criterion = weight.method.criterion if criterion is None else criterion
    return (
        weight.method.pattern.on_tensors
        and criterion.elementwise
        and criterion.on_tensors
        and not _HOST_EVIDENCE.intersection(criterion.needs)
        and not weight.axes.experts
        and weight.variable.dtype in _FLOATS
        and 0 < weight.size < 2**31 - 1
        and weight.is_plain_tensor
    )


def _scope_can(scope):
    if type(scope) is scopes.Local:
        return scope.distribution is None or not scope.distribution.reads_weights
    return type(scope) is scopes.Global


def _scaled(scope, item):
    """Whether a scope makes the scores of a competitor comparable with others first."""
    how = getattr(scope, "normalize", None)
    return how is not None and (how != "auto" or isinstance(item.method.pattern, patterns.Filter))


def _units(item):
    if isinstance(item, PrunedGroup):
        return item.coupling.size
    return item.method.pattern.unit_count(tuple(item.variable.shape), item.axes)
