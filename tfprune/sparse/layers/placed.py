"""Sparse layers at their places inside a layer or model."""

import keras

from tfprune import _keras
from tfprune.sparse.layers.base import SparseLayer


class PlacedForms:
    """Sparse layers by place. Not a layer's attribute: Keras would save them a second time.

    Args:
        forms: `{place: (sparse layer or its config, input shape)}`.
    """

    def __init__(self, forms):
        self.layers = {place: _made(form) for place, (form, _) in forms.items()}
        self._shapes = {place: tuple(shape) for place, (_, shape) in forms.items()}

    def put_inside(self, holder):
        """Builds the sparse layers, and puts them in their places in a built layer or model."""
        for place, form in self.layers.items():
            if not form.built:
                form.build(self._shapes[place])
        _keras.put_inside(holder, self.layers)

    def to_config(self):
        """Returns them as plain data, which the constructor takes."""
        serialize = keras.saving.serialize_keras_object
        return {
            place: (serialize(form), self._shapes[place]) for place, form in self.layers.items()
        }


def _made(form):
    if isinstance(form, SparseLayer):
        return form
    return keras.saving.deserialize_keras_object(form)
