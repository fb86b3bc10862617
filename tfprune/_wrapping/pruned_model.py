"""The wrapper around a whole model, as version 0.1 made it."""

import keras

from tfprune import _keras
from tfprune._base import validation as check
from tfprune._wrapping.methods import Method
from tfprune._wrapping.owner import overrides_from
from tfprune._wrapping.prunable import KNOWN_TO_0_1
from tfprune._wrapping.wrapper import MaskWrapper, scope_of


@keras.saving.register_keras_serializable(package="tfprune")
class PrunedModel(MaskWrapper, keras.Model):
    """A model around another model, with masks on its weights.

    It exists for files of version 0.1. `prune_low_magnitude` now adds the masks to the model and
    keeps its class. `strip_pruning` returns the inner model.

    Args:
        model: The model to prune.
        pruning_schedule: A `PruningSchedule`.
        pattern: A pattern or its name.
        scope: A scope or its name.
        criterion: A criterion or its name.
        overrides: Methods for single layers inside `model`, in the form of `get_config`.
        weights: The weights to mask, in the form of `get_config`; by default, all prunable
            weights.
        reasons: Reasons why other layers of the model are not pruned, in the form of
            `get_config`.
        **kwargs: Arguments of `keras.Model`.

    Raises:
        ValueError: If the model has a custom `train_step` or another custom training method.
    """

    def __init__(
        self,
        model,
        pruning_schedule,
        *,
        pattern=None,
        criterion=None,
        scope=None,
        overrides=None,
        weights=None,
        reasons=None,
        **kwargs,
    ):
        own = _keras.own_loop(model)
        if own:
            raise ValueError(
                check.message(
                    f"a subclassed model without a custom {own[0]}()",
                    f"{type(model).__name__} with {', '.join(own)}",
                    "Wrap the layers in its constructor with prune_low_magnitude(layer, ...) "
                    "instead, which keeps its own methods.",
                )
            )
        method = Method.of(pruning_schedule, pattern, criterion, scope)
        kwargs.setdefault("name", model.name)
        kwargs.setdefault("trainable", model.trainable)
        super().__init__(**kwargs)
        self.model = model
        self._init_masks(method, overrides_from(overrides), weights=weights, reasons=reasons)

    @property
    def inner(self):
        return self.model

    def get_config(self):
        model = keras.saving.serialize_keras_object(self.model)
        return {"name": self.name, "model": model, **self.pruning_config()}

    @classmethod
    def from_config(cls, config, custom_objects=None):
        config = dict(config)
        with scope_of(custom_objects), check.reading_config(cls.__name__):
            model = keras.saving.deserialize_keras_object(config.pop("model"))
            return cls(model, **{"weights": KNOWN_TO_0_1, **config})
