"""Models of a class of their own in which layers have become sparse."""

from typing import Any

import keras

from tfprune import _keras
from tfprune.sparse.layers.base import not_for_training
from tfprune.sparse.layers.placed import PlacedForms

# The base class is known only when a model becomes sparse.
_Model: Any = object


@keras.saving.register_keras_serializable(package="tfprune")
class SparseModel(_Model):
    """What `to_sparse` adds to the class of a model that keeps its class.

    A class is derived from this one and the model's own, and assigned to the model, which
    therefore keeps its type and its methods. Its config holds the config of the dense model, and
    the sparse layers with their places.
    """

    _dense_config: dict
    _placed: PlacedForms

    def make_train_function(self, force=False):
        # Before JAX's fit takes the values out of the variables.
        raise ValueError(not_for_training(f"fit of '{self.name}'"))

    def get_config(self):
        return {"dense": self._dense_config, "forms": self._placed.to_config()}

    @classmethod
    def from_config(cls, config, custom_objects=None):
        dense = keras.saving.deserialize_keras_object(config["dense"], custom_objects)
        if not dense.built:
            _keras.build_from_config(dense, config["dense"].get("build_config"))
        return with_sparse_layers(dense, config["forms"])

    def build_from_config(self, config):
        """Does nothing: the model was built before its layers were replaced."""


def with_sparse_layers(model, forms):
    """Puts sparse layers into a model that keeps its class.

    Args:
        model: The built model, uncompiled; it is changed.
        forms: `{place: (sparse layer or its config, input shape)}`; see `_keras.places`.

    Returns:
        `model`.
    """
    dense_config = keras.saving.serialize_keras_object(model)
    placed = PlacedForms(forms)
    placed.put_inside(model)
    _keras.change_class(model, _keras.derived_class(model, SparseModel, SparseModel))
    _keras.set_untracked(model, "_dense_config", dense_config)
    _keras.set_untracked(model, "_placed", placed)
    return model
