"""The base class of layers that compute the same as the layer inside them."""

from typing import Any

import keras

from tfprune._keras.calls import as_symbolic
from tfprune._keras.cloning import build_from_config


class WrapperBase:
    """Base, before Keras's own, of a layer around `self.inner`.

    It is built and called like the inner layer, with the same padding masks and shapes.
    """

    supports_masking = True
    # Walks through a model's graph continue in `inner`.
    is_transparent = True
    # Of the class that is derived.
    inner: Any
    built: Any
    build: Any

    def __call__(self, *args, **kwargs):
        if not self.built and not self.inner.built:
            # Calling the inner layer lets Keras build it for any signature.
            symbolic_args, symbolic_kwargs = keras.tree.map_structure(as_symbolic, (args, kwargs))
            self.inner(*symbolic_args, **symbolic_kwargs)
        return super().__call__(*args, **kwargs)  # type: ignore[misc]

    def get_build_config(self):
        return {"inner": self.inner.get_build_config()} if self.inner.built else None

    def build_from_config(self, config):
        if config and config.get("inner"):
            if not self.inner.built:
                build_from_config(self.inner, config["inner"])
            if self.inner.built and not self.built:
                self.build()

    def compute_mask(self, inputs, previous_mask=None):
        if not self.inner.supports_masking:
            return None
        return self.inner.compute_mask(inputs, previous_mask)

    def compute_output_shape(self, *args, **kwargs):
        return self.inner.compute_output_shape(*args, **kwargs)

    def compute_output_spec(self, *args, **kwargs):
        return self.inner.compute_output_spec(*args, **kwargs)
