"""The record of a graph's channels: the layers that make, pass on and read each channel.

Every channel that a layer makes gets a label, a number. A `Flow` lists the labels along one axis of
a tensor. Rules (`rules/`) pass flows from layer to layer; on the way, they record in a `Ledger`
which labels must be removed together, which must be kept, and which weights and configs count them.
"""

import copy
import inspect
import itertools
from dataclasses import dataclass, field

import keras
import numpy as np

from tfprune import _keras
from tfprune._channels.records import Cut, Edit, Reading


@dataclass(frozen=True)
class Flow:
    """The channels of one tensor.

    Attributes:
        axis: The axis of the tensor that holds its channels; the batch is axis 0. `None` if the
            channels are unknown.
        labels: Integers, one for each position of that axis. Several positions may have the same
            label: after `Flatten`, a channel has many positions.
        values: float32, of the same length: the value of a channel that is constant over all
            places and inputs when the model predicts; NaN for a channel that is not.
    """

    axis: int | None = None
    labels: np.ndarray = field(default_factory=lambda: np.zeros(0, int))
    values: np.ndarray = field(default_factory=lambda: np.zeros(0, "float32"))

    def moved(self, axis):
        """Returns the same channels along another axis."""
        return Flow(axis, self.labels, self.values)

    def carrying(self, values):
        """Returns the same channels with other values."""
        return Flow(self.axis, self.labels, np.asarray(values, "float32"))


UNKNOWN = Flow()


def unknown_values(number):
    """Returns the values of channels that are not constant."""
    return np.full(number, np.nan, "float32")


class Ledger:
    """The record of the channels of one model.

    Args:
        paths: `{id: path}` of the model's layers.

    Attributes:
        cuts: `{(id of a weight, axis): Cut}`.
        edits: `{(id of a layer, key): Edit}`.
        scales: `{id of a weight: (labels, factor)}`, as given to `scale`.
        held: `{id of a layer: {key: inner layer}}`, as given to `hold`.
        inputs: `{(id of a nested model, number of its input): Flow}`.
        readings: List of `Reading`s.
        barriers: `{path: class name}` of layers without a rule.
        composites: `{id: layer}` of layers whose code was followed.
        in_code: Whether the code of a layer is being followed now.
    """

    def __init__(self, paths):
        self.paths = paths
        self.cuts = {}
        self.edits = {}
        self.scales = {}
        self.held = {}
        self.inputs = {}
        self.readings = []
        self.barriers = {}
        self.composites = {}
        self.in_code = False
        self._parents = np.zeros(0, int)
        self._count = 0
        self._fixed = []
        # `{(id of a layer, part): (layer, labels)}`.
        self._sources = {}

    def path(self, layer):
        """Returns the path of a layer in the model, or the name of an operation."""
        return self.paths.get(id(layer), layer.name)

    def is_in_code(self, layer):
        """Whether a layer is inside one whose code was followed."""
        path = self.path(layer)
        return any(path.startswith(f"{self.path(other)}/") for other in self.composites.values())

    # -- Labels ------------------------------------------------------------------------------------

    def new_labels(self, number):
        """Returns new, unused labels."""
        start, self._count = self._count, self._count + number
        if self._count > len(self._parents):
            more = np.arange(len(self._parents), 2 * self._count)
            self._parents = np.concatenate([self._parents, more])
        return np.arange(start, self._count)

    def tie(self, first, second):
        """Ties pairs of channels, so that they can only be removed together."""
        parents = self._parents
        for one, other in zip(first.tolist(), second.tolist(), strict=True):
            root, end = self._root(one), self._root(other)
            if root != end:
                parents[max(root, end)] = min(root, end)

    def _root(self, label):
        parents = self._parents
        while parents[label] != label:
            parents[label] = parents[parents[label]]
            label = parents[label]
        return label

    def roots(self):
        """Returns the representative of every label; tied labels share one."""
        roots = self._parents[: self._count]
        while True:
            shorter = roots[roots]
            if np.array_equal(shorter, roots):
                return roots
            roots = shorter

    def fix(self, labels, reason, first=False):
        """Keeps channels from being removed; `first` gives the reason priority over all others."""
        if len(labels):
            self._fixed.insert(0 if first else len(self._fixed), (labels, reason))

    def fixed(self):
        """Returns `{representative: reason}` of all channels that must be kept."""
        roots = self.roots()
        found: dict = {}
        for labels, reason in self._fixed:
            for root in np.unique(roots[labels]).tolist():
                found.setdefault(root, reason)
        return found

    # -- Records of layers -------------------------------------------------------------------------

    def source(self, layer, number, part=""):
        """Returns the labels of the channels that a layer makes, the same at each of its calls.

        Args:
            layer: The layer.
            number: How many there are.
            part: Their kind, if they are not the layer's outputs: "heads".
        """
        if (id(layer), part) not in self._sources:
            self._sources[id(layer), part] = (layer, self.new_labels(number))
        return self._sources[id(layer), part][1]

    def outputs_of(self, layer):
        """Returns the labels of the channels that a layer outputs; `None` if it makes none."""
        _, labels = self._sources.get((id(layer), ""), (layer, None))
        return labels

    def makers(self):
        """Returns `{name: labels}` of all channels that layers make.

        The name is the layer's path. For channels that are not the layer's outputs, it ends with
        their kind, for instance ":heads".
        """
        return {
            self.path(layer) + (f":{part}" if part else ""): labels
            for (_, part), (layer, labels) in self._sources.items()
        }

    def cut(self, layer, variable, axis, labels, reads=False):
        """Records the channels of the positions along one axis of a weight."""
        axis %= len(variable.shape)
        known = self.cuts.setdefault(
            (id(variable), axis), Cut(layer, variable, axis, labels, reads)
        )
        # A shared layer uses one weight in all its calls.
        self.tie(known.labels, labels)

    def edit(self, layer, key, labels, value, also=()):
        """Records how an entry of a layer's config depends on the kept channels: see `Edit`."""
        if self.in_code and not _can_be_set(layer, key, len(labels), value):
            self.fix(labels, f"code counts them, in '{self.path(layer)}'")
            return
        entry = Edit(layer, key, labels, value, np.asarray(also, int))
        self.tie(self.edits.setdefault((id(layer), key), entry).labels, labels)

    def scale(self, variable, labels, factor):
        """Records that a weight makes up for channels that are no longer counted.

        Args:
            variable: The weight.
            labels: The labels that the factor depends on.
            factor: Function from the number of kept positions in `labels` to the factor of the
                weight.
        """
        self.scales.setdefault(id(variable), (labels, factor))

    def hold(self, layer, key, inner):
        """Records that a layer's config holds the config of another layer, in the entry `key`."""
        self.held.setdefault(id(layer), {})[key] = inner

    def narrow(self, model, number, flow):
        """Records the channels that reach an input of a nested model."""
        self.inputs[id(model), number] = flow

    def read(self, layer, flow, fold=None, why="", part=""):
        """Records that a layer mixes these channels into others."""
        if self.in_code and getattr(layer, "bias", None) is None:
            # The config of the layer around it decides whether there is a bias.
            fold, why = None, why or "it has no bias"
        self.readings.append(Reading(layer, flow.labels, flow.values, fold, why, part))


def _can_be_set(layer, key, number, value):
    """Whether an entry of a layer inside another can be set; operations are part of the code."""
    known = isinstance(layer, keras.layers.Layer)
    return known and _keras.size_attributes(layer, key, value(number)) is not None


@dataclass(frozen=True)
class _Place:
    """Marks the place of one of the tensors that a layer is called on."""

    index: int


class Call:
    """One call of a layer: a rule's view of it, and the actions that a rule can take.

    Attributes:
        layer: The layer, or the operation.
        inputs: List of `Flow`s, one for each input tensor.
        shapes: The shapes of the inputs, the batch included.
        output_shapes: The shapes of the outputs.
        arguments: `(args, kwargs)` of the call, with KerasTensors in them.
        shared: Whether the layer is called more than once in the model.
        ledger: The `Ledger`.
    """

    def __init__(
        self, ledger, layer, inputs, shapes, output_shapes, arguments, shared=False, follow=None
    ):
        self.ledger = ledger
        self.shared = shared
        self.layer = layer
        self.inputs = inputs
        self.shapes = shapes
        self.output_shapes = output_shapes
        self.arguments = arguments
        self._follow = follow

    def tensors(self, name):
        """Returns the indices of the inputs in an argument of the layer's `call`.

        Args:
            name: The argument's name.

        Returns:
            List of integers, with `None` for each item that is not a tensor of the model; an empty
            list if the argument is not given.
        """
        items = self.given(name)
        return [item.index if isinstance(item, _Place) else None for item in items]

    def given(self, name):
        """Returns the contents of an argument as a list, with a mark for each tensor."""
        flat = keras.tree.flatten(self.arguments)
        numbers = itertools.count()
        flat = [_Place(next(numbers)) if _keras.is_symbolic(item) else item for item in flat]
        args, kwargs = keras.tree.pack_sequence_as(self.arguments, flat)
        bound = inspect.signature(self.layer.call).bind(*args, **kwargs).arguments
        return [] if bound.get(name) is None else keras.tree.flatten(bound[name])

    def of(self, part):
        """Returns the same call from the view of a layer that this layer created inside itself."""
        inner = copy.copy(self)
        inner.layer = part
        return inner

    def inside(self, key, inner, inputs, shapes, output_shapes, arguments):
        """Follows channels through a layer, or a model, that this layer wraps.

        Args:
            key: The entry of this layer's config that holds the inner layer's config.
            inner: The inner layer.
            inputs: The `Flow`s of its inputs.
            shapes: The shapes of its inputs.
            output_shapes: The shapes of its outputs.
            arguments: `(args, kwargs)` of its call.

        Returns:
            List of the `Flow`s of its outputs.
        """
        self.ledger.hold(self.layer, key, inner)
        call = Call(
            self.ledger, inner, inputs, shapes, output_shapes, arguments, self.shared, self._follow
        )
        return self._follow(call)

    def take(self, axis, index=0):
        """Returns the flow of an input along an axis; fixes channels along any other axis."""
        flow, size = self.inputs[index], self.shapes[index][axis]
        axis %= len(self.shapes[index])
        if flow.axis == axis:
            return flow
        name = self.ledger.path(self.layer)
        self.fix(f"'{name}' works along another axis", index)
        labels = self.ledger.new_labels(size or 0)
        self.ledger.fix(labels, f"they come to '{name}' from inputs, or from layers without a rule")
        return Flow(axis, labels, unknown_values(len(labels)))

    def make(self, number, axis, values, part=""):
        """Returns the flow of channels that the layer makes."""
        labels = self.ledger.source(self.layer, number, part)
        return Flow(axis, labels, np.asarray(values, "float32"))

    def cut(self, variable, axis, labels, reads=False):
        """See `Ledger.cut`; does nothing if the layer has no such weight."""
        if variable is not None:
            self.ledger.cut(self.layer, variable, axis, labels, reads)

    def edit(self, key, labels, value=int, also=()):
        """See `Ledger.edit`."""
        self.ledger.edit(self.layer, key, labels, value, also)

    def read(self, flow, fold=None, why="", part=""):
        """See `Ledger.read`."""
        self.ledger.read(self.layer, flow, fold, why, part)

    def fix(self, reason, index=None):
        """Keeps the channels of one input, or of all inputs, from being removed."""
        flows = self.inputs if index is None else [self.inputs[index]]
        for flow in flows:
            self.ledger.fix(flow.labels, reason)

    def stop(self, reason):
        """Keeps the channels of all inputs, and returns unknown channels for the outputs."""
        self.fix(reason)
        return [UNKNOWN] * len(self.output_shapes)


def array(variable):
    """Returns a weight as float32, or `None` if the layer has no such weight."""
    return None if variable is None else np.asarray(_keras.host_array(variable), "float32")


def evaluated(function, number, axis, ndim, *columns):
    """Runs an elementwise function on channels that are constant.

    Args:
        function: A function of tensors.
        number: Number of channels.
        axis: Axis of the tensor that holds the channels.
        ndim: Number of axes of the tensor.
        *columns: Values of the channels, one array for each input.

    Returns:
        The function's values for channels that are constant in all inputs; NaN for others.
    """
    known = ~np.any([np.isnan(column) for column in columns], axis=0)
    if not known.any():
        return unknown_values(number)
    shape = [1] * ndim
    shape[axis] = number
    filled = [np.where(known, column, 0).reshape(shape).astype("float32") for column in columns]
    result = _keras.on_host(function(*filled)).astype("float32").reshape(-1)
    return np.where(known & np.isfinite(result), result, np.float32(np.nan))
