"""Models without weights yet: building them in time, and replacing them when they are built."""

import contextlib

import keras

from tfprune._base import validation as check
from tfprune._keras.cloning import bare_clone
from tfprune._keras.layers import backend
from tfprune._keras.own_class import change_class
from tfprune._keras.patching import set_untracked


class DeferredSequential(keras.Sequential):
    """Takes over the layers of another model, which is made from a plain one once shapes are known.

    Then it is a `keras.Sequential` like any other. After an error, it stays unbuilt.

    Args:
        layers: Layers without weights.
        name: Its name.
        make: Function of a built, plain Sequential model that returns another one.
    """

    def __init__(self, layers, name, make):
        set_untracked(self, "_make", make)
        super().__init__(layers, name=name)

    def build(self, input_shape=None):
        if self._make is None:
            # Keras keeps this method of a model that was built before.
            keras.Sequential.build(self, input_shape)
            return
        with _with_values():
            self._become(input_shape)

    def _become(self, input_shape):
        plain = keras.Sequential([bare_clone(layer) for layer in self.layers], name=self.name)
        plain.build(input_shape)
        if not plain.layers[0].built or plain.inputs is None:
            raise ValueError(
                check.message(
                    "inputs of one tensor, whose shape is known, for a model that is planned "
                    "when it is built",
                    f"input_shape={input_shape!r:.80} for '{self.name}'",
                    "Give the model a keras.Input before it is wrapped.",
                )
            )
        made = self._make(plain)
        set_untracked(self, "_make", None)
        self._layers = list(made.layers)
        change_class(self, keras.Sequential)
        keras.Sequential.build(self, input_shape)

    def get_config(self):
        raise ValueError(
            check.message(
                f"'{self.name}' to be built before it is saved or copied",
                "a model that is planned when it is built",
                "Call it on data once.",
            )
        )


def _with_values():
    """A context in which variables have values, where TensorFlow compiles a function too."""
    if backend() != "tensorflow":
        return contextlib.nullcontext()
    import tensorflow as tf

    return tf.init_scope()


def build_before_training(model):
    """Lets `fit` and its like build an unbuilt model before they begin; returns the model.

    Keras builds models in a scope in which weights have no values yet; on TensorFlow it does so in
    the first training step only, when callbacks have begun.
    """
    if model.built:
        return model
    hooks = {"_symbolic_build": model._symbolic_build}
    if backend() == "tensorflow":
        hooks["_maybe_symbolic_build"] = model._maybe_symbolic_build

    def hook(usual):
        def build(iterator=None, data_batch=None):
            if not model.built:
                if data_batch is None:
                    data_batch = _first_batch(iterator)
                inputs = keras.utils.unpack_x_y_sample_weight(data_batch)[0]
                model(keras.tree.map_structure(_symbol, inputs))
            usual(iterator, data_batch)

        return build

    for name, usual in hooks.items():
        set_untracked(model, name, hook(usual))
    return model


def _first_batch(iterator):
    # Keras 3.10 counts with the first step of an execution alone, later ones with the last too.
    for *_, found in iterator:
        return found[0] if isinstance(found, (list, tuple)) else next(found)


def _symbol(value):
    dtype = keras.backend.standardize_dtype(value.dtype)
    return keras.KerasTensor((None, *value.shape[1:]), dtype)
