"""Which channels of which layers stand or fall together."""

from collections import Counter
from dataclasses import dataclass

import keras
import numpy as np

from tfprune import _keras
from tfprune._channels.ledger import UNKNOWN, Call, Ledger
from tfprune._channels.rules.table import rule_of, takes_several
from tfprune._keras.checks import check_followable
from tfprune._wrapping.strip import strip_pruning
from tfprune._wrapping.wrapper import mask_owners, plain_path

OUTPUT = "they are the model's output"


@dataclass(frozen=True)
class Member:
    """One axis of a weight that belongs to a group.

    Attributes:
        layer: Path of the layer in the model.
        weight: Name of the weight.
        axis: The axis, counted from the front.
        units: Integers, one for each position of the axis: which channel of the group the
            position belongs to, -1 where it belongs to another group.
        reads: Whether the weight reads these channels; otherwise it makes or changes them.
    """

    layer: str
    weight: str
    axis: int
    units: np.ndarray
    reads: bool


@dataclass(frozen=True)
class ChannelGroup:
    """Channels that stand or fall together.

    Attributes:
        layers: Paths of the layers that make these channels; "attention:heads" for the heads of
            the attention layer "attention".
        size: How many channels there are to choose from.
        makers: `{path: units}`: which channel of the group each channel of a layer is.
        members: List of `Member`s, all the weights that are cut.
        fixed: `{channel: reason}` for those that have to stay.
    """

    layers: tuple
    size: int
    makers: dict
    members: list
    fixed: dict

    @property
    def removable(self):
        """How many channels may go; one always stays."""
        return min(self.size - len(self.fixed), self.size - 1)


def plain(model):
    """Returns the model without wrappers; itself if it has none."""
    return strip_pruning(model) if mask_owners(model) else model


def follow(model):
    """Follows all channels through a model, through wrappers as if they were not there.

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
    """Yields `(id, path)` of all layers; wrappers are no part of a path."""
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
    """Follows flows through a model; `calls` says how often each layer is called."""

    def visit(call, flows):
        return _apply(_call(call, flows, ledger, calls))

    def enter(call, flows):
        return _entered(_call(call, flows, ledger, calls), calls)

    return _keras.follow_calls(model, inputs, visit, enter)


def _call(call, flows, ledger, calls):
    """What the rule of a layer gets to see of a call."""

    def follow(inside):
        if not (isinstance(inside.layer, keras.Model) and _keras.runs_as_graph(inside.layer)):
            return _apply(inside)
        return _run(inside.layer, _entered(inside, calls), ledger, calls)

    layer, arguments, shared = call.layer, (call.args, call.kwargs), calls[id(call.layer)] > 1
    return Call(ledger, layer, flows, call.shapes, call.output_shapes, arguments, shared, follow)


def _entered(call, calls):
    """The flows that come to the inputs of a model inside."""
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


def _apply(call):
    rule = rule_of(call.layer)
    if rule is None:
        path = call.ledger.path(call.layer)
        kind = type(call.layer).__name__
        call.ledger.barriers[path] = kind
        return call.stop(f"'{path}', a {kind}, has no rule for channels")
    if len(call.inputs) > 1 and not takes_several(rule):
        # A mask or another argument that is a tensor.
        return call.stop(f"'{call.ledger.path(call.layer)}' is called on several tensors")
    return rule(call)


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
    """Merges sets of labels that have one in common; in the order of the first of each."""
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
    """Finds out which channels of which layers can only be removed together.

    Follows the channels through the graph: what is added must have the same channels, a
    normalization has numbers for each, the next convolution reads them, and so on.

    Args:
        model: A built Sequential or Functional model, plain or wrapped; models inside are
            followed too. It is not changed.

    Returns:
        A list of `ChannelGroup`s. A layer whose channels are all independent of other layers'
        has a group of its own. Heads of an attention layer are a group beside its outputs, under
        the name "attention:heads" if the layer's path is "attention".

    Raises:
        TypeError: If `model` is no Keras 3 model.
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
        Fang et al., "DepGraph: Towards Any Structural Pruning", CVPR 2023, whose dependencies
        these are; here every channel is followed by itself.
    """
    check_followable(model)
    return channel_groups(follow(plain(model)))[0]
