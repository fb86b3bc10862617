"""Makes, enforces, saves and loads the masks of one wrapper."""

import json
from dataclasses import dataclass, replace
from typing import Any

import keras
import numpy as np
from keras import ops

from tfprune import _keras, scopes
from tfprune._base import validation as check
from tfprune._keras.checks import nothing_to_prune
from tfprune._layers import registry
from tfprune._layers.registry import PrunableWeight
from tfprune._wrapping import saved_masks
from tfprune._wrapping.consensus import Consensus
from tfprune.masks import Competitor, MaskRequest
from tfprune.patterns import KernelAxes

# Configs of version 0.1 do not list the masked weights; they mean all weights prunable then.
BEFORE_LISTS = "all weights that version 0.1 knew"


def refusal(call, name):
    """Returns a function that raises, for calls that are impossible while weights are masked."""

    def refused(*args, **kwargs):
        raise ValueError(
            check.message(
                "a layer without masks",
                f"{call} on '{name}', whose weights are masked",
                f"Call tfprune.strip_pruning(model) first, then {call}.",
            )
        )

    return refused


class MaskConstraint(keras.constraints.Constraint):
    """Zeroes the masked values of a weight after each optimizer update, in the compiled step.

    Args:
        mask: bool Keras variable, True = keep.
        user: The weight's existing constraint, or `None`.
    """

    def __init__(self, mask, user=None):
        self.mask = mask
        self.user = user
        self.average = None

    def __call__(self, weight):
        value = weight if self.user is None else self.user(weight)
        if _keras.is_tracing_without_state() and _keras.backend() == "jax":
            # The mask is an argument of the train step, so its value is unknown here.
            # UpdatePruningStep makes the train step itself project the weights.
            return ops.convert_to_tensor(value)
        if self.average is not None:
            self.average.assign(masked(self.average, self.mask))
        return masked(value, self.mask)

    def get_config(self):
        return {} if self.user is None else {"user": self.user}


def masked(value, mask):
    """Returns `value` where `mask` is True, and +0 elsewhere, even in place of NaN."""
    value = ops.convert_to_tensor(value)
    return ops.where(ops.convert_to_tensor(mask), value, ops.zeros((), dtype=value.dtype))


class PrunedWeight(Competitor):
    """One weight with its mask.

    Attributes:
        path: Layer path inside the wrapper and name of the weight: "lstm_cell/kernel".
        name: The same with the wrapper's name: "lstm/lstm_cell/kernel".
        layer: The layer that owns the weight.
        axes: `KernelAxes` of the weight.
        method: The `Method` by which it is pruned.
        variable: The weight.
        mask: The mask, a bool variable of the same shape.
        threshold: Highest score that the latest mask update removed, or `None`.
        initial: Variable with the values at the time of wrapping; `None` unless the criterion
            needs them.
        makes_output: Whether its output channels are those of the layer's output.
        follows: Whether its mask follows from other masks, as that of a bias from its filters.
        coupled: Whether its filters are pruned together with filters of other layers.
        key: Place of the layer inside the wrapper and name of the weight, as configs list them.
        consensus: What ADMM keeps of it, a `Consensus`; `None` unless the criterion needs "dual".
    """

    def __init__(self, owner, path, layer, entry, axes, method, mask, initial=None, follows=False):
        self.path = path
        self.name = self._own_name = owner.name_of(path)
        self.layer = layer
        self.axes = axes
        self.method = self._method = method
        self.variable = entry.get(layer)
        self.mask = mask
        self.threshold = None
        self.initial = initial
        self.makes_output = entry.makes_output
        self.follows = follows
        self.coupled = owner.coupled and getattr(method.pattern, "coupled", False) and not follows
        self.key = ""
        self.consensus: Any = None
        self._entry = entry
        self._zeros = None
        self.attach()
        self.remember_initial()

    def name_below(self, around):
        """Puts the path of what the wrapper is in before the name: "encoder" for "dense/kernel"."""
        self.name = f"{around}/{self._own_name}" if around else self._own_name

    @property
    def scored(self):
        return [self]

    def request(self, found, position=0, criterion=None):
        return MaskRequest(
            self.array,
            self.method.pattern,
            self.method.criterion if criterion is None else criterion,
            self.axes.resolve(len(self.variable.shape)),
            _keras.host_array(self.mask) if self.zeros else None,
            self.name,
            found.get(id(self)) or {},
            position,
        )

    def resolve(self, steps_per_epoch):
        """Converts an epoch-based schedule to steps."""
        self.method = self._method.resolved(steps_per_epoch)

    @property
    def awaits_epochs(self):
        """Whether its schedule still needs the length of an epoch."""
        return self.method.counts_in_epochs

    def attach(self):
        """Sets the mask's constraint on the weight, around any existing constraint."""
        self.constraint = MaskConstraint(self.mask, self.variable.constraint)
        self.variable.constraint = self.constraint
        if not self.follows:
            _keras.mask_lora(self.layer, self._entry.name, self._masked)
            _keras.refuse(self.layer, "quantize", refusal("quantize()", self.layer.name))

    def detach(self):
        """Restores the weight's own constraint.

        LoRA weights are merged into the weight under the mask, so that it stays sparse.
        """
        if not self.follows:
            _keras.merge_lora(self.layer, self._entry.name, self.variable)
            _keras.allow(self.layer, "quantize")
        self.variable.constraint = self.constraint.user
        if self.consensus is not None:
            self.consensus.detach()

    def _masked(self, value):
        return masked(value, self.mask)

    @property
    def array(self):
        """The weight's values as a read-only NumPy array, including LoRA weights."""
        added = _keras.with_lora(self.layer, self._entry.name)
        return _keras.host_array(self.variable) if added is None else _keras.on_host(added)

    @property
    def own_variables(self):
        """The variables that pruning added: the mask, and what else is kept of the weight."""
        initial = [] if self.initial is None else [self.initial]
        return [self.mask, *initial, *(self.consensus.variables if self.consensus else [])]

    def remember_initial(self):
        """Stores the weight's values as initial values if the criterion needs them."""
        if self.initial is not None:
            self.initial.assign(_keras.host_array(self.variable))

    def check_in_place(self):
        """Raises ValueError if the layer no longer computes with the masked weight."""
        if self._entry.get(self.layer) is not self.variable:
            raise ValueError(
                check.message(
                    f"layer '{self.layer.name}' to compute with the weight that its mask was "
                    "made for",
                    "a layer that was quantized, or whose weight was replaced, while wrapped",
                    "Call tfprune.strip_pruning(model) first, then quantize().",
                )
            )

    @property
    def zeros(self):
        """Number of pruned weights."""
        if self._zeros is None:
            mask = _keras.host_array(self.mask)
            self._zeros = int(mask.size - np.count_nonzero(mask))
        return self._zeros

    @property
    def size(self):
        """Number of weights."""
        return int(np.prod(self.variable.shape))

    def set_mask(self, mask):
        """Assigns a mask and zeroes the masked values of the weight."""
        self._zeros = int(mask.size - np.count_nonzero(mask))
        self.mask.assign(mask)
        self.project()

    def forget_count(self):
        """Drops the cached count after another object wrote the mask variable."""
        self._zeros = None

    def project_average(self, average):
        """Makes the constraint also project the weight's moving average; `None` for none."""
        self.constraint.average = average

    def project(self):
        """Zeroes the masked values of the weight and of its moving average."""
        self.variable.assign(masked(self.variable, self.mask))
        if self.constraint.average is not None:
            self.constraint.average.assign(masked(self.constraint.average, self.mask))


def _check_unmasked(variable, path):
    if isinstance(variable.constraint, MaskConstraint):
        raise ValueError(
            check.message(
                f"one pruning wrapper around {path}",
                "a layer whose weight has the mask of another wrapper",
                "Use the existing wrapper, or wrap a copy of the layer, made with "
                "tfprune.strip_pruning(wrapper).",
            )
        )


class MaskSet:
    """The masks of all prunable weights inside one layer, and the count of pruning steps.

    It is a plain object, so that Keras tracks the masks only once, in the wrapper.

    Args:
        owner: The wrapper, which creates the mask variables.
        inner: The wrapped layer, built.
        default: The `Method` of weights that `overrides` does not cover.
        overrides: `{place: Method or None}`, by place inside `inner` as named by `_keras.places`.
            An entry also applies to the layers inside its layer.
        followers: List of `(place, index)` for weights whose masks follow from other masks: the
            place of the layer inside `inner`, and the weight's index in the layer's weights.
        chosen: The masked weights, by place and name as in `find_prunable`; `None` for all
            prunable weights, `BEFORE_LISTS` for all weights that version 0.1 could prune.

    Raises:
        ValueError: If a method does not fit, a weight is already masked, or one of `chosen` is
            missing. Nothing is changed then.
    """

    def __init__(self, owner, inner, default, overrides, followers=(), chosen=None):
        self.weights: list = []
        found: list = []
        for item in find_prunable(inner, default, overrides, chosen):
            if item.method is None or not item.layer.built:
                continue
            if any(item.variable is known.variable for known in found):
                continue
            check_fits(item.method, item.layer, item.entry, item.path)
            _check_unmasked(item.variable, item.path)
            found.append(item)
        following = [
            (path, layer, entry)
            for path, layer, entry in _find_followers(inner, followers)
            if not any(entry.get(layer) is known.variable for known in found)
        ]
        if not found and not following:
            raise ValueError(nothing_to_prune(inner))
        for item in found:
            name = item.path.replace("/", "_")
            kept = {"shape": tuple(item.variable.shape), "trainable": False, "autocast": False}
            mask = owner.add_weight(name=f"{name}_mask", dtype="bool", initializer="ones", **kept)
            initial = None
            if "initial" in item.method.criterion.needs:
                dtype = keras.backend.standardize_dtype(item.variable.dtype)
                initial = owner.add_weight(
                    name=f"{name}_initial", dtype=dtype, initializer="zeros", **kept
                )
            weight = PrunedWeight(
                owner, item.path, item.layer, item.entry, item.axes, item.method, mask, initial
            )
            weight.key = item.key
            if "dual" in item.method.criterion.needs:
                weight.consensus = Consensus(owner, name, item.variable)
            self.weights.append(weight)
        for path, layer, entry in following:
            mask = owner.add_weight(
                name=f"{path.replace('/', '_')}_mask",
                shape=tuple(entry.get(layer).shape),
                dtype="bool",
                initializer="ones",
                trainable=False,
                autocast=False,
            )
            axes = entry.axes_of(layer)
            self.weights.append(
                PrunedWeight(owner, path, layer, entry, axes, default, mask, None, True)
            )
        self.step = 0
        # Optimizer steps per epoch, once a `fit` with an epoch-based schedule has begun.
        self.steps_per_epoch = None
        self.clock = None
        self.seeds = None
        # `(epoch, step at its start, its steps or 0)` of the latest epoch that began.
        self.epoch = None
        # Whether the state is from a file, and no training went on from it yet.
        self.was_loaded = False
        self._inner = inner

    def chosen(self):
        """Returns the keys of the masked weights for a config."""
        return [weight.key for weight in self.weights if not weight.follows]

    def stores(self, key):
        """Whether an entry of a file's group for the layer is one that `save` wrote."""
        return saved_masks.is_own(key)

    def current_step(self):
        """Returns the number of optimizer steps completed since pruning began."""
        return self.step + (self.clock.elapsed() if self.clock is not None else 0)

    def hand_over(self, clock):
        """Makes another clock count the steps; the present clock is reset."""
        if self.clock is clock:
            return
        self.step = self.current_step()
        if self.clock is not None:
            self.clock.reset()
        self.clock = clock

    def advance(self, steps):
        """Adds optimizer steps to the count."""
        self.step += steps

    def set_epoch(self, steps_per_epoch):
        """Sets the number of optimizer steps per epoch; later calls have no effect."""
        if self.steps_per_epoch is None and any(w.awaits_epochs for w in self.weights):
            self._resolve(steps_per_epoch)

    def _resolve(self, steps_per_epoch):
        self.steps_per_epoch = steps_per_epoch
        for weight in self.weights:
            weight.resolve(steps_per_epoch)

    def take_seeds(self):
        """Returns random states loaded from a file, only once; `None` if there are none."""
        seeds, self.seeds = self.seeds, None
        return seeds

    def state(self):
        """Returns the step, the length of an epoch and the random states as plain numbers."""
        seeds = self.seeds
        if seeds is None and self.clock is not None:
            seeds = self.clock.seeds()
        state = {"step": self.current_step(), "seeds": seeds}
        if self.steps_per_epoch is not None:
            state["steps_per_epoch"] = self.steps_per_epoch
        if self.epoch is not None:
            state["epoch"] = self.epoch
        return state

    def set_state(self, state):
        """Takes over what `state()` gave."""
        self.step = saved_masks.checked_step(state["step"], self.weights[0].name)
        self.seeds = state["seeds"]
        self.epoch, self.was_loaded = state.get("epoch"), True
        if state.get("steps_per_epoch") is not None:
            self._resolve(state["steps_per_epoch"])
        if self.clock is not None:
            self.clock.reset()

    def save(self, store):
        """Writes masks (one bit a weight), step and random states into a Keras store."""
        saved_masks.save(self, self._layers(), self._others(), store)

    def read(self, store, name):
        """Reads the entries of `save` without changing anything; raises if they do not fit.

        Returns:
            Masks, initial values, and the state for `set_state`.
        """
        return saved_masks.read(self, self._layers(), store, name)

    def load(self, store, name):
        """Loads the entries of `save`; raises before changing these masks if they do not fit.

        Keras reads a file layer by layer, so earlier layers have been loaded by then.
        """
        masks, initials, state = self.read(store, name)
        for weight, mask in zip(self.weights, masks, strict=True):
            weight.mask.assign(mask)
            weight.forget_count()
        for variable, values in initials:
            variable.assign(values)
        self.set_state(state)

    def _layers(self):
        """The layers whose weights Keras writes into the same file."""
        inside = _keras.flatten(self._inner)
        return [layer for layer in inside if not getattr(layer, "saves_masks", False)]

    def _others(self):
        """What else is in a file of the model that is trained: plain layers, the optimizer.

        The first wrapper looks after it, as no other code of tfprune's is asked.
        """
        model = None if self.clock is None else self.clock.model
        layers = [] if model is None else _keras.flatten(model)
        owners = [layer for layer in layers if getattr(layer, "saves_masks", False)]
        if not owners or owners[0].mask_set is not self:
            return []
        covered = {id(layer) for o in owners for layer in _keras.flatten(o)}
        others = [layer for layer in layers if id(layer) not in covered]
        optimizer = getattr(model, "optimizer", None)
        return others if optimizer is None else [*others, optimizer]


@dataclass(frozen=True)
class Prunable:
    """A weight that can be pruned, with its method.

    Attributes:
        key: Place of its layer and name of the weight; identical in a copy.
        path: Path of its layer and name of the weight, for messages.
        layer: The layer that owns the weight.
        entry: Its `PrunableWeight`.
        method: Its `Method`, or `None` if a rule or a policy exempts it.
        axes: Its `KernelAxes`.
    """

    key: str
    path: str
    layer: Any
    entry: PrunableWeight
    method: Any
    axes: KernelAxes

    @property
    def variable(self):
        """The weight. Its layer must be built."""
        return self.entry.get(self.layer)


def find_prunable(inner, default, overrides, chosen=None):
    """Lists the prunable weights inside a layer.

    Args:
        inner: The layer.
        default: The `Method` of weights that `overrides` does not cover.
        overrides: `{place: Method or None}`.
        chosen: As in `MaskSet`.

    Returns:
        List of `Prunable`, in the order of the layers or of `chosen`.

    Raises:
        ValueError: If one of `chosen` is missing.
    """
    paths = {id(chain[-1][1]): chain[-1][0] for chain in _keras.walk(inner)}
    places = _keras.places(inner)
    before = chosen == BEFORE_LISTS
    found: list = []
    known: set = set()
    for layer in _keras.flatten(inner):
        place = places[id(layer)]
        method = method_at(place, default, overrides)
        for entry in registry.own_prunable_weights(layer, before) or ():
            path = "/".join(filter(None, (paths.get(id(layer)), entry.name)))
            key = "/".join(filter(None, (place, entry.name)))
            # A layer with its own list of prunable weights may use a name twice.
            while key in known:
                key += "+"
            known.add(key)
            axes = entry.axes_of(layer)
            if before:
                axes = replace(axes, reduced=None)
            found.append(Prunable(key, path, layer, entry, method, axes))
    if chosen is None or before:
        return found
    by_key = {item.key: item for item in found}
    missing = [key for key in chosen if key not in by_key]
    if missing:
        raise ValueError(
            check.message(
                f"'{inner.name}' to have all weights that were masked",
                f"a layer without {', '.join(missing)}",
                "Build the layer in the same way as when it was wrapped.",
            )
        )
    return [by_key[key] for key in chosen]


def _find_followers(inner, followers):
    """Yields `(path, layer, PrunableWeight)`."""
    paths = {id(chain[-1][1]): chain[-1][0] for chain in _keras.walk(inner)}
    places = _keras.places(inner)
    at = {places[id(layer)]: layer for layer in _keras.flatten(inner)}
    for place, index in followers:
        layer = at.get(place)
        if layer is None or not 0 <= index < len(layer.weights):
            raise ValueError(
                check.message(
                    f"weights of '{inner.name}' whose masks follow those of others",
                    f"weight {index} of {place!r}, which is not there",
                    "The config is damaged, or get_config() of a layer is incomplete.",
                )
            )
        entry = PrunableWeight(
            layer.weights[index].name, lambda owner, index=index: owner.weights[index]
        )
        yield "/".join(filter(None, (paths.get(id(layer)), entry.name))), layer, entry


def method_at(place, default, overrides):
    """Returns the method at a place, inherited from the nearest enclosing layer that has one."""
    while place not in overrides:
        if not place:
            return default
        place = place.rpartition("/")[0]
    return overrides[place]


def check_fits(method, layer, entry, path):
    """Raises ValueError if a method cannot prune a weight, as far as known before `build`.

    Args:
        method: The `Method`.
        layer: The layer that owns the weight.
        entry: The `PrunableWeight`.
        path: Name of the weight in messages.
    """
    if layer.built:
        shape = tuple(entry.get(layer).shape)
        method.pattern.check(shape, entry.axes_of(layer).resolve(len(shape)), path)
    target = method.schedule.target_sparsity
    method.pattern.check_target(target, path)
    cap = method.scope.max_sparsity if isinstance(method.scope, scopes.Global) else None
    if cap is not None and target > cap:
        raise ValueError(
            check.message(
                f"the schedule of {path} to stay at or below {cap:g}, the cap of {method.scope}",
                f"a target sparsity of {target:g}",
                "Raise max_sparsity, or lower the schedule's sparsity.",
            )
        )


def tensorflow_state(mask_set):
    """Returns an object that lets tf.train.Checkpoint save the step and random states."""
    import tensorflow as tf

    class PruningState(tf.train.experimental.PythonState):
        def serialize(self):
            return json.dumps(mask_set.state())

        def deserialize(self, string_value):
            mask_set.set_state(json.loads(string_value))
            for weight in mask_set.weights:
                weight.forget_count()

    return PruningState()
