"""The masks of one wrapper: made, enforced, saved and loaded here and nowhere else."""

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
from tfprune.masks import Competitor, MaskRequest
from tfprune.patterns import KernelAxes

# Configs of version 0.1 do not list the masked weights: they mean all that could be pruned then.
BEFORE_LISTS = "all weights that version 0.1 knew"


def refusal(call, name):
    """A function for calls that cannot be made while weights are masked."""

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
    """Puts a weight's masked values to zero after each optimizer update, inside the compiled step.

    Args:
        mask: Bool Keras variable, True = keep.
        user: The constraint that the weight had already, or `None`.
    """

    def __init__(self, mask, user=None):
        self.mask = mask
        self.user = user
        self.average = None

    def __call__(self, weight):
        value = weight if self.user is None else self.user(weight)
        if _keras.is_tracing_without_state() and _keras.backend() == "jax":
            # The mask's value is not here but among the arguments of the train step, which
            # UpdatePruningStep lets project the weights itself.
            return ops.convert_to_tensor(value)
        if self.average is not None:
            self.average.assign(masked(self.average, self.mask))
        return masked(value, self.mask)

    def get_config(self):
        return {} if self.user is None else {"user": self.user}


def masked(value, mask):
    """Returns `value` where `mask` is True, and +0 elsewhere, whatever stood there."""
    value = ops.convert_to_tensor(value)
    return ops.where(ops.convert_to_tensor(mask), value, ops.zeros((), dtype=value.dtype))


class PrunedWeight(Competitor):
    """One weight with its mask.

    Attributes:
        path: Layer path inside the wrapper and name of the weight, "lstm_cell/kernel" for instance.
        name: The same with the wrapper's name: "lstm/lstm_cell/kernel".
        layer: The layer that owns the weight.
        axes: `KernelAxes` of the weight.
        method: The `Method` by which it is pruned.
        variable: The weight.
        mask: The mask, a bool variable of the same shape.
        threshold: Highest score that the latest mask update removed, or `None`.
        initial: The weight's values when it was wrapped, a variable; `None` unless the criterion
            needs them.
        makes_output: Whether its output channels are those of the layer's output.
        follows: Whether its mask follows from those of other weights: a bias goes with its filter.
        coupled: Whether its filters are pruned together with those of other layers.
        key: Place of the layer inside the wrapper and name of the weight, as configs list them.
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
        """Turns a schedule that counts in epochs into one in steps."""
        self.method = self._method.resolved(steps_per_epoch)

    @property
    def awaits_epochs(self):
        """Whether its schedule does not know yet how long an epoch is."""
        return self.method.counts_in_epochs

    def attach(self):
        """Puts the mask's constraint on the weight, outside the constraint that it has."""
        self.constraint = MaskConstraint(self.mask, self.variable.constraint)
        self.variable.constraint = self.constraint
        if not self.follows:
            _keras.mask_lora(self.layer, self._entry.name, self._masked)
            _keras.refuse(self.layer, "quantize", refusal("quantize()", self.layer.name))

    def detach(self):
        """Leaves the weight with the constraint that it had before.

        What LoRA weights add to it becomes part of it, masked, so that it stays sparse.
        """
        if not self.follows:
            _keras.merge_lora(self.layer, self._entry.name, self.variable)
            _keras.allow(self.layer, "quantize")
        self.variable.constraint = self.constraint.user

    def _masked(self, value):
        return masked(value, self.mask)

    @property
    def array(self):
        """The weight's values as a NumPy array for reading, LoRA weights added."""
        added = _keras.with_lora(self.layer, self._entry.name)
        return _keras.host_array(self.variable) if added is None else _keras.on_host(added)

    @property
    def own_variables(self):
        """The variables that pruning added: the mask, and the initial values if they are kept."""
        return [self.mask] if self.initial is None else [self.mask, self.initial]

    def remember_initial(self):
        """Takes the weight's values as the initial ones, where the criterion needs these."""
        if self.initial is not None:
            self.initial.assign(_keras.host_array(self.variable))

    def check_in_place(self):
        """Raises if the layer no longer computes with the weight that the mask belongs to."""
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
        """Assigns a mask and puts the masked values of the weight to zero."""
        self._zeros = int(mask.size - np.count_nonzero(mask))
        self.mask.assign(mask)
        self.project()

    def forget_count(self):
        """Tells that the mask variable was written by somebody else."""
        self._zeros = None

    def project_average(self, average):
        """Lets the constraint project the moving average of the weight too; `None` for none."""
        self.constraint.average = average

    def project(self):
        """Puts the masked values of the weight, and of its moving average, to zero."""
        self.variable.assign(masked(self.variable, self.mask))
        if self.constraint.average is not None:
            self.constraint.average.assign(masked(self.constraint.average, self.mask))


def _check_unmasked(variable, path):
    if isinstance(variable.constraint, MaskConstraint):
        raise ValueError(
            check.message(
                f"one pruning wrapper around {path}",
                "a layer whose weight has the mask of another wrapper",
                "Use that wrapper, or wrap a copy of the layer: "
                "tfprune.strip_pruning(wrapper) makes one.",
            )
        )


class MaskSet:
    """The masks of all prunable weights inside one layer, and the count of pruning steps.

    It is a plain object, so that Keras tracks the masks once, in the wrapper that made them.

    Args:
        owner: The wrapper; it creates the mask variables.
        inner: The wrapped layer, built.
        default: The `Method` of weights without a method of their own.
        overrides: `{place: Method or None}`, by place inside `inner` as `_keras.places`
            names it; they hold for the layers inside that layer too.
        followers: List of `(place, index)`: weights whose masks follow from others', by the place
            of the layer inside `inner` and the weight's position among the layer's weights.
        chosen: The masked weights, by place and name as `find_prunable` gives them; `None` for all
            that can be pruned, `BEFORE_LISTS` for all that could be before there were lists.

    Raises:
        ValueError: If a method does not fit, a weight is masked already, or one of `chosen` is
            not there; nothing is changed then.
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
        # Optimizer steps in an epoch, where a schedule counts in epochs and a `fit` has begun.
        self.steps_per_epoch = None
        self.clock = None
        self.seeds = None

    def chosen(self):
        """The masked weights, as a config lists them."""
        return [weight.key for weight in self.weights if not weight.follows]

    def stores(self, key):
        """Whether an entry of a file's group for the layer is one that `save` wrote."""
        return key in ("pruning_step", "seed_states", "steps_per_epoch") or key.startswith(
            ("mask_", "initial_")
        )

    def current_step(self):
        """Optimizer steps completed since pruning began, up to this moment."""
        return self.step + (self.clock.elapsed() if self.clock is not None else 0)

    def hand_over(self, clock):
        """Lets another clock count from now on; one that still runs has to begin again."""
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
        """Says how many optimizer steps an epoch has; the first answer holds."""
        if self.steps_per_epoch is None and any(w.awaits_epochs for w in self.weights):
            self._resolve(steps_per_epoch)

    def _resolve(self, steps_per_epoch):
        self.steps_per_epoch = steps_per_epoch
        for weight in self.weights:
            weight.resolve(steps_per_epoch)

    def take_seeds(self):
        """Returns the random states that a file brought along, once; `None` if there are none."""
        seeds, self.seeds = self.seeds, None
        return seeds

    def state(self):
        """Step, length of an epoch and random states, as plain numbers."""
        seeds = self.seeds
        if seeds is None and self.clock is not None:
            seeds = self.clock.seeds()
        state = {"step": self.current_step(), "seeds": seeds}
        if self.steps_per_epoch is not None:
            state["steps_per_epoch"] = self.steps_per_epoch
        return state

    def set_state(self, state):
        """Takes over what `state()` gave."""
        self.step = int(state["step"])
        self.seeds = state["seeds"]
        if state.get("steps_per_epoch") is not None:
            self._resolve(state["steps_per_epoch"])
        if self.clock is not None:
            self.clock.reset()

    def save(self, store):
        """Writes masks (one bit a weight), step and random states into a Keras store."""
        state = self.state()
        store["pruning_step"] = np.array(state["step"], dtype="int64")
        if "steps_per_epoch" in state:
            store["steps_per_epoch"] = np.array(state["steps_per_epoch"], dtype="float64")
        if state["seeds"]:
            store["seed_states"] = np.array(state["seeds"], dtype="int64")
        for position, weight in enumerate(self.weights):
            store[f"mask_{position}"] = np.packbits(_keras.host_array(weight.mask).reshape(-1))
            if weight.initial is not None:
                # HDF5 knows no bfloat16.
                values = np.asarray(_keras.host_array(weight.initial), dtype="float32")
                store[f"initial_{position}"] = values

    def read(self, store, name):
        """Reads what `save` wrote, and changes nothing; raises if it does not fit.

        Returns:
            Masks, initial values, and the state as `set_state` takes it.
        """
        masks, initials = [], []
        for position, weight in enumerate(self.weights):
            if weight.initial is not None:
                initials.append((weight.initial, _stored_initial(store, position, weight, name)))
            bits = np.asarray(store[f"mask_{position}"]) if f"mask_{position}" in store else None
            if bits is None or bits.dtype != np.uint8 or bits.shape != (-(-weight.size // 8),):
                found = "no mask" if bits is None else f"{bits.dtype} data of shape {bits.shape}"
                raise ValueError(
                    check.message(
                        f"the mask of {name}/{weight.path}, {weight.size} bits, in the file",
                        found,
                        "The file is damaged or belongs to another model; layers read before "
                        f"{name} have its weights already, so load another file. Weights of a "
                        "plain model are read by tfprune.load_plain_weights(model, path).",
                    )
                )
            flat = np.unpackbits(bits, count=weight.size).astype(bool)
            masks.append(flat.reshape(tuple(weight.variable.shape)))
        step = int(np.asarray(store["pruning_step"])) if "pruning_step" in store else 0
        seeds = np.asarray(store["seed_states"]).tolist() if "seed_states" in store else None
        epoch = float(np.asarray(store["steps_per_epoch"])) if "steps_per_epoch" in store else None
        return masks, initials, {"step": step, "seeds": seeds, "steps_per_epoch": epoch}

    def load(self, store, name):
        """Reads what `save` wrote; raises before these masks are changed if it does not fit.

        Keras reads a file layer by layer, so layers before this one have what the file says then.
        """
        masks, initials, state = self.read(store, name)
        for weight, mask in zip(self.weights, masks, strict=True):
            weight.mask.assign(mask)
            weight.forget_count()
        for variable, values in initials:
            variable.assign(values)
        self.set_state(state)


def _stored_initial(store, position, weight, name):
    key = f"initial_{position}"
    values = np.asarray(store[key]) if key in store else None
    if values is None or values.shape != tuple(weight.variable.shape):
        raise ValueError(
            check.message(
                f"the initial values of {name}/{weight.path} in the file, for "
                f"{weight.method.criterion!r}",
                "none" if values is None else f"an array of shape {values.shape}",
                "The file is damaged or belongs to a model with another criterion.",
            )
        )
    return values


@dataclass(frozen=True)
class Prunable:
    """A weight that can be pruned, and how.

    Attributes:
        key: Place of its layer and name of the weight, the same in a copy.
        path: Path of its layer and name of the weight, as messages show them.
        layer: The layer that owns it.
        entry: Its `PrunableWeight`.
        method: The `Method` that prunes it, or `None` if a rule or a policy exempts it.
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
        """The weight; its layer is built."""
        return self.entry.get(self.layer)


def find_prunable(inner, default, overrides, chosen=None):
    """Lists what can be pruned inside a layer.

    Args:
        inner: The layer.
        default: The `Method` of weights without a method of their own.
        overrides: `{place: Method or None}`.
        chosen: As `MaskSet` takes it.

    Returns:
        List of `Prunable`, in the order of the layers, or in that of `chosen`.

    Raises:
        ValueError: If one of `chosen` is not there.
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
            # A layer that lists its weights itself may give two of them one name.
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
                f"the weights that were masked, in '{inner.name}'",
                f"a layer without {', '.join(missing)}",
                "Build the layer as it was built when it was wrapped.",
            )
        )
    return [by_key[key] for key in chosen]


def _find_followers(inner, followers):
    """Yields `(path, layer, PrunableWeight)`."""
    paths = {id(chain[-1][1]): chain[-1][0] for chain in _keras.walk(inner)}
    places = _keras.places(inner)
    at = {places[id(layer)]: layer for layer in _keras.flatten(inner)}
    for place, index in followers:
        layer = at[place]
        entry = PrunableWeight(
            layer.weights[index].name, lambda owner, index=index: owner.weights[index]
        )
        yield "/".join(filter(None, (paths.get(id(layer)), entry.name))), layer, entry


def method_at(place, default, overrides):
    """The method of the layer at a place: its own, or that of the nearest layer around it."""
    while place not in overrides:
        if not place:
            return default
        place = place.rpartition("/")[0]
    return overrides[place]


def check_fits(method, layer, entry, path):
    """Raises unless a method can prune a weight, as far as is known before the layer is built.

    Args:
        method: The `Method` that is to prune the weight.
        layer: The layer that owns the weight.
        entry: The `PrunableWeight`.
        path: What messages call the weight.
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
    """Returns an object through which tf.train.Checkpoint saves the step and random states."""
    import tensorflow as tf

    class PruningState(tf.train.experimental.PythonState):
        def serialize(self):
            return json.dumps(mask_set.state())

        def deserialize(self, string_value):
            mask_set.set_state(json.loads(string_value))
            for weight in mask_set.weights:
                weight.forget_count()

    return PruningState()
