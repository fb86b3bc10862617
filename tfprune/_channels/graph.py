"""Finds the channels of a model that can only be removed together."""

from collections import Counter
from dataclasses import dataclass

import keras
import numpy as np

from tfprune import _keras
from tfprune._channels.ledger import UNKNOWN, Call, Ledger
from tfprune._channels.rules.table import is_changed, rule_of, takes_several
from tfprune._keras.checks import check_followable
from tfprune._wrapping.strip import strip_pruning
from tfprune._wrapping.wrapper import mask_owners, plain_path

# Reasons to keep channels.
OUTPUT = "they are the model's output"
LAST_CHANNEL = "a layer keeps its last channel"


@dataclass(frozen=True)
class Member:
    """One axis of a weight that holds channels of a group.

    Attributes:
        layer: Path of the layer in the model.
        weight: Name of the weight.
        axis: The axis, counted from the front.
        units: Integers, one for each position of the axis: the channel of the group at this
            position, or -1 if the position belongs to another group.
        reads: Whether the weight reads these channels; otherwise it makes or changes them.
    """

    layer: str
    weight: str
    axis: int
    units: np.ndarray
    reads: bool


@dataclass(frozen=True)
class ChannelGroup:
    """Channels that can only be removed together.

    Attributes:
        layers: Paths of the layers that make these channels; "attention:heads" for the heads of
            the attention layer "attention".
        size: Number of channels in the group.
        makers: `{path: units}`: the group's channel for each channel of a layer.
        members: List of `Member`s, one for each weight axis that is cut.
        fixed: `{channel: reason}` for channels that must be kept.
    """

    layers: tuple
    size: int
    makers: dict
    members: list
    fixed: dict

    @property
    def removable(self):
        """Number of channels that can be removed; one is always kept."""
        return min(self.size - len(self.fixed), self.size - 1)


def without_wrappers(model):
    """Returns the model without wrappers; the model itself if it has none."""
    return strip_pruning(model) if mask_owners(model) else model


def follow(model):
    """Follows all channels through a model; wrappers are transparent.

    Returns:
        A `Ledger`.
    """
    paths = dict(_paths(model))
    ledger = Ledger(paths)
    calls = Counter(_called(model))
    outputs = _run(model, [UNKNOWN] * len(model.inputs), ledger, calls)
    for flow in outputs:
        ledger.fix(flow.labels, OUTPUT, first=True)
    return ledger


def _paths(model):
    """Yields `(id, path)` of all layers; paths omit wrappers."""
    for chain in _keras.walk(model):
        yield id(chain[-1][1]), plain_path(chain)


def _called(model):
    for call in _keras.calls_in(model):
        layer = call.layer
        wrapped = [layer.layer] if isinstance(layer, keras.layers.TimeDistributed) else []
        for called in [layer, *wrapped]:
            yield id(called)
            if _keras.is_graph(called):
                yield from _called(called)


def _run(model, inputs, ledger, calls):
    """Follows flows through a model; `calls` counts the calls of each layer."""

    def visit(call, flows):
        return _apply(_call(call, flows, ledger, calls), calls)

    def enter(call, flows):
        return _entered(_call(call, flows, ledger, calls), calls)

    return _keras.follow_calls(model, inputs, visit, enter)


def _call(call, flows, ledger, calls):
    """Returns a rule's view of a call."""

    def follow(inside):
        if not (isinstance(inside.layer, keras.Model) and _keras.runs_as_graph(inside.layer)):
            return _apply(inside, calls, enters_code=False)
        return _run(inside.layer, _entered(inside, calls), ledger, calls)

    layer, arguments, shared = call.layer, (call.args, call.kwargs), calls[id(call.layer)] > 1
    return Call(ledger, layer, flows, call.shapes, call.output_shapes, arguments, shared, follow)


def _entered(call, calls):
    """Returns the flows at the inputs of a nested model."""
    model, given, shapes, ledger = call.layer, call.inputs, call.shapes, call.ledger
    inner = [tuple(tensor.shape) for tensor in model.inputs]
    path = ledger.path(model)
    reason = None
    if [len(shape) for shape in inner] != [len(shape) for shape in shapes]:
        reason = f"'{path}' is called in another way than it was built"
    elif calls[id(model)] > 1:
        reason = f"'{path}' is called several times"
    for number, flow in enumerate(given):
        if reason:
            ledger.fix(flow.labels, reason)
        elif flow.axis is not None:
            ledger.narrow(model, number, flow)
    return [UNKNOWN] * len(inner) if reason else given


def _apply(call, calls, enters_code=True):
    rule = rule_of(call.layer)
    if rule is None:
        # The config of a wrapper holds that of the layer inside, which cannot hold sizes.
        found = _follow_code(call, calls) if enters_code else None
        if found is not None:
            return found
        path = call.ledger.path(call.layer)
        kind = type(call.layer).__name__
        if not call.ledger.in_code or getattr(call.layer, "weights", None):
            call.ledger.barriers[path] = kind
        return call.stop(f"'{path}', a {kind}, has no rule for channels")
    if len(call.inputs) > 1 and not takes_several(rule):
        # Masks and other tensor arguments.
        return call.stop(f"'{call.ledger.path(call.layer)}' is called on several tensors")
    return rule(call)


def _follow_code(call, calls):
    """Follows channels through the code of a layer that runs layers inside; `None` if it cannot."""
    layer, ledger = call.layer, call.ledger
    if not _is_composite(layer):
        return None
    try:
        trace = _keras.trace_code(layer, *call.arguments)
    except Exception:
        # Code that needs more than placeholders: the layer is a barrier.
        return None
    if len(trace.inputs) != len(call.inputs) or len(trace.outputs) != len(call.output_shapes):
        return None
    inside = Counter(id(each.layer) for each in trace.calls)
    counts = Counter({key: number + calls[key] for key, number in inside.items()})
    if call.shared:
        counts.update(inside)
    around, ledger.in_code = ledger.in_code, True
    ledger.composites[id(layer)] = layer
    flows = dict(zip(map(id, trace.inputs), call.inputs, strict=True))
    try:
        for each in trace.calls:
            given = [flows.get(id(tensor), UNKNOWN) for tensor in each.tensors]
            made = _apply(_call(each, given, ledger, counts), counts)
            flows.update(zip(map(id, each.outputs), made, strict=True))
    finally:
        ledger.in_code = around
    return [flows.get(id(tensor), UNKNOWN) for tensor in trace.outputs]


def _is_composite(layer):
    """Whether a layer of a foreign class runs inner layers, none of them quantized."""
    if not isinstance(layer, keras.layers.Layer) or isinstance(layer, keras.Model):
        return False
    known = _keras.plain_class(layer).__module__.split(".")[0] == "keras"
    inside = _keras.flatten(layer)
    recurrent = any(isinstance(inner, keras.layers.RNN) for inner in inside)
    return not (known or recurrent or is_changed(layer)) and layer.built and len(inside) > 1


def channel_groups(ledger):
    """Returns the list of `ChannelGroup`s of a ledger, and the representative labels of each."""
    roots = ledger.roots()
    fixed = ledger.fixed()
    cuts = list(ledger.cuts.values())
    made = ledger.makers()
    grouped = _united([np.unique(roots[labels]) for labels in made.values()])
    where: dict = {}
    for cut in cuts:
        for root in np.unique(roots[cut.labels]).tolist():
            where.setdefault(root, []).append(cut)
    groups, representatives = [], []
    for units in grouped:
        place = np.full(len(roots), -1)
        place[units] = np.arange(len(units))
        makers = {
            name: place[roots[labels]]
            for name, labels in made.items()
            if place[roots[labels]].max() >= 0
        }
        own = {id(cut): cut for unit in units.tolist() for cut in where.get(unit, [])}
        members = [
            Member(
                ledger.path(cut.layer),
                cut.variable.name,
                cut.axis,
                place[roots[cut.labels]],
                cut.reads,
            )
            for cut in own.values()
        ]
        stay = {i: fixed[root] for i, root in enumerate(units.tolist()) if root in fixed}
        groups.append(ChannelGroup(tuple(makers), len(units), makers, members, stay))
        representatives.append(units)
    return groups, representatives


def _united(sets):
    """Merges sets of labels that share one, in the order of each set's first label."""
    owner: dict = {}
    merged: list = []
    for number, labels in enumerate(sets):
        met = sorted({owner[label] for label in labels.tolist() if label in owner})
        target = met[0] if met else number
        merged.append([])
        for other in [*met[1:], number]:
            if other != target:
                for label in merged[other]:
                    owner[label] = target
                merged[target] += merged[other]
                merged[other] = []
        new = [label for label in labels.tolist() if owner.get(label) != target]
        merged[target] += new
        owner.update(dict.fromkeys(new, target))
    return [np.array(labels) for labels in merged if labels]


def dependency_groups(model):
    """Finds the channels of a model that can only be removed together.

    Follows the channels through the graph: tensors that are added must keep the same channels, a
    normalization has weights for each channel, the next convolution reads each channel, and so on.

    Args:
        model: A built Sequential or Functional model, plain or wrapped, and with nested models. It
            is not changed.

    Returns:
        A list of `ChannelGroup`s. A layer whose channels do not depend on other layers' channels
        has a separate group. The heads of an attention layer and its outputs are two groups; if
        the layer's path is "attention", the group of heads is named "attention:heads".

    Raises:
        TypeError: If `model` is not a Keras 3 model.
        ValueError: If it is not built, or its `call` is code, which cannot be followed.

    Example:

    >>> inputs = keras.Input((8, 8, 3))
    >>> x = keras.layers.Conv2D(4, 3, padding="same", name="one")(inputs)
    >>> y = keras.layers.Conv2D(4, 3, padding="same", name="two")(x)
    >>> outputs = keras.layers.Conv2D(2, 1, name="last")(keras.layers.add([x, y]))
    >>> groups = tfprune.dependency_groups(keras.Model(inputs, outputs))
    >>> [(group.layers, group.size, group.removable) for group in groups]
    [(('one', 'two'), 4, 3), (('last',), 2, 0)]

    Reference:
        Fang et al., "DepGraph: Towards Any Structural Pruning", CVPR 2023, which defines these
        dependencies; tfprune follows every channel separately.
    """
    check_followable(model)
    return channel_groups(follow(without_wrappers(model)))[0]
