"""The masks of one wrapper: made, counted, saved and loaded here and nowhere else."""

import json

import keras

from tfprune import _keras
from tfprune._keras.checks import nothing_to_prune
from tfprune._wrapping import saved_masks
from tfprune._wrapping.consensus import Consensus
from tfprune._wrapping.prunable import check_fits, find_followers, find_prunable
from tfprune._wrapping.pruned_weight import PrunedWeight, check_unmasked
from tfprune._wrapping.step_variable import StepVariable


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
            prunable weights, `KNOWN_TO_0_1` for all weights that version 0.1 could prune.

    Raises:
        ValueError: If a method does not fit, a weight is already masked, or one of `chosen` is
            missing. Nothing is changed then.
    """

    def __init__(self, owner, inner, default, overrides, followers=(), chosen=None):
        found = _to_prune(inner, default, overrides, chosen)
        following = [
            (path, layer, entry)
            for path, layer, entry in find_followers(inner, followers)
            if not any(entry.get(layer) is known.variable for known in found)
        ]
        if not found and not following:
            raise ValueError(nothing_to_prune(inner))
        self.weights = [_with_mask(owner, item) for item in found]
        self.weights += [_with_following_mask(owner, *item, default) for item in following]
        self.step = 0
        # Optimizer steps per epoch, once a `fit` with an epoch-based schedule has begun.
        self.steps_per_epoch = None
        self.clock = None
        self.seeds = None
        # `(epoch, step at its start, its steps or 0)` of the latest epoch that began.
        self.epoch = None
        # Whether the state is from a file, from which no training has continued yet.
        self.was_loaded = False
        self._inner = inner
        self._step_variable = StepVariable(owner)

    def chosen(self):
        """Returns the keys of the masked weights for a config."""
        return [weight.key for weight in self.weights if not weight.follows]

    def stores(self, key):
        """Whether an entry of a file's group for the layer is one that `save` wrote."""
        return saved_masks.is_own(key)

    def current_step(self):
        """Returns the number of optimizer steps completed since pruning began."""
        if self.clock is None:
            self.read_variable()
        return self.step + (self.clock.elapsed() if self.clock is not None else 0)

    def hand_over(self, clock):
        """Makes another clock count the steps; the present clock is reset."""
        if self.clock is clock:
            return
        self.read_variable()
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
        return {"step": self.current_step(), "seeds": seeds, **self._epochs()}

    def _epochs(self):
        numbers = {"steps_per_epoch": self.steps_per_epoch, "epoch": self.epoch}
        return {name: number for name, number in numbers.items() if number is not None}

    def write_variable(self):
        """Brings the variable with the step up to date, before something reads it."""
        self._step_variable.write({"step": self.current_step(), **self._epochs()})

    def read_variable(self, earlier_too=False):
        """Takes over a step that other code wrote into the variable, as `set_state_tree` does."""
        state = self._step_variable.changes(earlier_too)
        if state is not None:
            self.set_state(state)
            for weight in self.weights:
                weight.forget_count()

    def set_state(self, state):
        """Takes over what `state()` gave."""
        self._step_variable.changes()
        self.step = saved_masks.checked_step(state["step"], self.weights[0].name)
        self.seeds = state["seeds"]
        self.epoch, self.was_loaded = state.get("epoch"), True
        if state.get("steps_per_epoch") is not None:
            self._resolve(state["steps_per_epoch"])
        if self.clock is not None:
            self.clock.reset()
        self.write_variable()

    def save(self, store):
        """Writes masks (one bit a weight), step and random states into a Keras store."""
        self.write_variable()
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
        """Returns the other contents of a file of the trained model: plain layers, the optimizer.

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


def keep_masks(owners):
    """Lets training keep the masks made at once, whose schedule is due at step 0 alone.

    Args:
        owners: The owners of the masks, whose methods have one-shot schedules.
    """
    for owner in owners:
        owner.mask_set.advance(1)


def _to_prune(inner, default, overrides, chosen):
    """Returns the list of `Prunable`s that get a mask; raises if one cannot have it."""
    found: list = []
    for item in find_prunable(inner, default, overrides, chosen):
        if item.method is None or not item.layer.built:
            continue
        if any(item.variable is known.variable for known in found):
            continue
        check_fits(item.method, item.layer, item.entry, item.path)
        check_unmasked(item.variable, item.path)
        found.append(item)
    return found


def _with_mask(owner, item):
    """Makes the mask of a `Prunable` and the variables that its criterion needs."""
    name, needs = item.path.replace("/", "_"), item.method.criterion.needs
    mask = _add_mask(owner, name, item.variable)
    initial = consensus = None
    if "initial" in needs:
        dtype = keras.backend.standardize_dtype(item.variable.dtype)
        initial = _add(owner, f"{name}_initial", item.variable, dtype, "zeros")
    if "dual" in needs:
        consensus = Consensus(owner, name, item.variable)
    return PrunedWeight(
        owner,
        item.path,
        item.layer,
        item.entry,
        item.axes,
        item.method,
        mask,
        key=item.key,
        initial=initial,
        consensus=consensus,
    )


def _with_following_mask(owner, path, layer, entry, method):
    """Makes the mask of a weight whose mask follows from others."""
    mask = _add_mask(owner, path.replace("/", "_"), entry.get(layer))
    axes = entry.axes_of(layer)
    return PrunedWeight(owner, path, layer, entry, axes, method, mask, follows=True)


def _add_mask(owner, name, variable):
    return _add(owner, f"{name}_mask", variable, "bool", "ones")


def _add(owner, name, variable, dtype, initializer):
    """Adds a variable of a weight's shape, on the devices where the weight is."""
    with _keras.laid_out_like(variable):
        return owner.add_weight(
            name=name,
            shape=tuple(variable.shape),
            dtype=dtype,
            initializer=initializer,
            trainable=False,
            autocast=False,
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
