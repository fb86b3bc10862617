"""Models pruned in place, which keep their class and own their masks."""

import contextlib
from typing import Any

import keras
from keras import tree

from tfprune import _keras
from tfprune._base import validation as check
from tfprune._wrapping.mask_set import tensorflow_state
from tfprune._wrapping.methods import Method
from tfprune._wrapping.owner import Owner, overrides_from
from tfprune._wrapping.preset_files import write_preset
from tfprune._wrapping.prunable import KNOWN_TO_0_1

_STATE = "_pruning_state"


class InPlaceMasks(Owner):
    """The masks and the methods of a model that is pruned in place.

    The model stores this object in an attribute that Keras does not track. The mask variables
    belong to the model itself, so that `fit` on JAX, `get_weights` and tf.train.Checkpoint find
    them.
    """

    def __init__(self, model, method, overrides, followers=None, weights=None):
        self._model = model
        self._added: list = []
        self._states: list = []
        self._init_masks(method, overrides, followers, weights)

    @property
    def inner(self):
        return self._model

    @property
    def name(self):  # type: ignore[override]
        return self._model.name

    @property
    def built(self):
        return self._model.built

    def name_of(self, path):
        return path

    def add_weight(self, **arguments):
        attribute = f"_pruning_{len(self._added)}"
        variable = _keras.add_weight(self._model, attribute, **arguments)
        self._added.append((attribute, variable))
        return variable

    def add_state(self, name, shape):
        self._states.append(_keras.add_state(self._model, name, shape))
        return self._states[-1]

    @property
    def variables(self):
        """The variables that pruning added to the model."""
        return [*(variable for _, variable in self._added), *self._states]

    def make_masks(self):
        try:
            super().make_masks()
        except BaseException:
            self.remove_variables()
            raise
        if _keras.backend() == "tensorflow":
            setattr(self._model, _STATE, tensorflow_state(self._mask_set))
        _keras.forget_compiled(self._model)

    def remove_variables(self):
        """Removes the mask variables from the model."""
        for attribute, variable in self._added:
            _keras.remove_weight(self._model, variable, attribute)
        for variable in self._states:
            _keras.remove_state(self._model, variable)
        self._added, self._states = [], []


# The base class is known only when a model is pruned.
_Model: Any = object


@keras.saving.register_keras_serializable(package="tfprune")
class MaskedModel(_Model):
    """The methods that pruning in place adds to the class of a model.

    `prune_in_place` derives a class from this one and the model's own class, and assigns it to
    the model, which therefore keeps its type and all its methods.
    """

    _pruning: InPlaceMasks
    # Its part of a file holds masks next to its weights.
    saves_masks = True

    @property
    def mask_set(self):
        """The masks with what belongs to them, or `None` before the model is built."""
        return self._pruning.mask_set

    def mask_owner(self):
        """Returns the owner of the masks, as `mask_owners` finds it."""
        return self._pruning

    @property
    def pruned_weights(self):
        """List of `PrunedWeight`, one for each mask."""
        return self._pruning.pruned_weights

    @property
    def pruning_step(self):
        """Optimizer steps completed since pruning began."""
        return self._pruning.pruning_step

    def __call__(self, *args, **kwargs):
        if self._pruning.mask_set is None:
            if not self.built:
                symbolic_args, symbolic_kwargs = tree.map_structure(
                    _keras.as_symbolic, (args, kwargs)
                )
                super().__call__(*symbolic_args, **symbolic_kwargs)
            self._pruning.make_masks()
        return super().__call__(*args, **kwargs)

    def call(self, *args, **kwargs):
        self._pruning.check_call()
        return super().call(*args, **kwargs)

    def build_from_config(self, config):
        super().build_from_config(config)
        if self.built and self._pruning.mask_set is None:
            self._pruning.make_masks()

    def save_own_variables(self, store):
        with _keras.hidden_variables(self, self._pruning.variables):
            super().save_own_variables(store)
        if self._pruning.mask_set is not None:
            self._pruning.mask_set.save(store)

    def load_own_variables(self, store):
        mask_set = self._pruning.mask_set
        if mask_set is None:
            raise ValueError(
                check.message(
                    f"'{self.name}' to be built before its masks are loaded",
                    "an unbuilt model",
                    "Call the model once on data first.",
                )
            )
        mask_set.load(store, self.name)
        own = {key: store[key] for key in list(store.keys()) if not mask_set.stores(key)}
        with _keras.hidden_variables(self, self._pruning.variables):
            super().load_own_variables(own)

    def load_weights(self, filepath, *args, **kwargs):
        # If the masks do not fit, Keras would raise only after reading all other weights.
        if self._pruning.mask_set is not None and str(filepath).endswith(".weights.h5"):
            with _keras.own_entries(filepath) as store:
                self._pruning.mask_set.read(store, self.name)
        super().load_weights(filepath, *args, **kwargs)

    def save_to_preset(self, preset_dir, *args, **kwargs):
        """Saves a KerasHub model and its masks to a preset.

        `from_preset` of the model's class loads the model without masks, exactly sparse;
        `tfprune.load_preset` loads it with masks.
        """
        if not hasattr(_keras.plain_class(self), "save_to_preset"):
            raise AttributeError(
                f"'{type(self).__name__}' object has no attribute 'save_to_preset'"
            )
        with _keras.with_former_class(self, self._pruning.variables):
            self.save_to_preset(preset_dir, *args, **kwargs)
        write_preset(preset_dir, type(self).__name__, self._pruning)

    def get_config(self):
        with _keras.with_former_class(self, self._pruning.variables):
            plain = keras.saving.serialize_keras_object(self)
        plain.pop("compile_config", None)
        return {"name": self.name, "model": plain, **self._pruning.pruning_config()}

    @classmethod
    def from_config(cls, config, custom_objects=None):
        config = dict(config)
        with check.reading_config("pruned model"):
            model = keras.saving.deserialize_keras_object(
                config.pop("model"), custom_objects=custom_objects
            )
            config.pop("name", None)
            return prune_from_config(model, config)


def prune_from_config(model, config):
    """Prunes a model by the settings from `Owner.pruning_config`; returns the model."""
    method = Method.of(
        config["pruning_schedule"], config["pattern"], config["criterion"], config["scope"]
    )
    pruned = prune_in_place(
        model,
        method,
        overrides_from(config["overrides"]),
        config.get("followers"),
        config.get("weights", KNOWN_TO_0_1),
    )
    owner_of(pruned).remember_reasons(config.get("reasons", {}))
    return pruned


def prune_in_place(model, method, overrides, followers=None, weights=None):
    """Adds masks to a model without copying it.

    Args:
        model: The model. It remains an instance of its class, and also becomes a `MaskedModel`.
        method: The default `Method`.
        overrides: Methods by place, as in `MaskSet`.
        followers: Weights whose masks follow from other masks, as in `MaskSet`.
        weights: The masked weights, as in `MaskSet`.

    Returns:
        The model. After an error, it is unchanged.
    """
    owner = InPlaceMasks(model, method, overrides, followers, weights)
    if model.built:
        owner.make_masks()
    return attach(model, owner)


def attach(model, owner):
    """Attaches masks to a model, whose class becomes a derived one; returns the model."""
    _keras.change_class(model, _keras.derived_class(model, MaskedModel, MaskedModel))
    _keras.set_untracked(model, "_pruning", owner)
    return model


def remove_masks(model):
    """Removes the masks from a model that was pruned in place, and restores its class."""
    owner = owner_of(model)
    for weight in owner.pruned_weights:
        weight.project()
        weight.detach()
    if _STATE in vars(model):
        delattr(model, _STATE)
    owner.remove_variables()
    _keras.delete_untracked(model, "_pruning")
    _keras.change_class(model, _keras.plain_class(model))
    _keras.forget_compiled(model)
    return model


def without_masks(model):
    """Context in which a model that is pruned in place has its own class and no masks.

    It has no effect on other models.
    """
    owner = owner_of(model)
    if owner is None:
        return contextlib.nullcontext()
    return _keras.with_former_class(model, owner.variables)


def owner_of(model):
    """Returns the masks of a model that is pruned in place; `None` for anything else."""
    return model._pruning if isinstance(model, MaskedModel) else None
