"""State of a layer that Keras lists among its variables, but not among its weights."""

import keras

from tfprune._keras.devices import everywhere
from tfprune._keras.layers import backend
from tfprune._keras.own_class import add_weight
from tfprune._keras.patching import set_untracked
from tfprune._keras.training import sync_state


class _Holder:
    """Takes the place of a random generator in a layer's list of them.

    Keras counts the states of random generators among `variables`, and so among the state trees,
    but not among `weights`: neither the old .h5 format nor `get_weights` knows them.
    """

    def __init__(self, state):
        self.state = state


def add_state(layer, name, shape):
    """Adds an int32 variable to a layer that is in `layer.variables`, and not in `layer.weights`.

    Args:
        layer: The layer.
        name: The name of the variable.
        shape: Its shape.

    Returns:
        The variable, with zeros.
    """
    with everywhere(len(shape)):
        variable = add_weight(
            layer,
            name=name,
            shape=shape,
            dtype="int32",
            initializer="zeros",
            trainable=False,
            autocast=False,
        )
    _drop(layer._non_trainable_variables, lambda item: item is variable)
    layer._seed_generators.append(_Holder(variable))
    return variable


def remove_state(layer, variable):
    """Removes a variable that `add_state` added."""
    _drop(layer._seed_generators, lambda item: item.state is variable)


def is_readable(variable):
    """Whether a variable has a value now: JAX's `fit` takes the values out of the variables."""
    return backend() != "jax" or variable._value is not None


def around_state_trees(model, before_reading, after_writing):
    """Calls a function before each `get_state_tree` of a model, and one after `set_state_tree`."""
    if not isinstance(model, keras.Model) or hasattr(model.get_state_tree, "original"):
        return
    get, put = model.get_state_tree, model.set_state_tree

    def get_state_tree(*args, **kwargs):
        sync_state(model)
        before_reading()
        return get(*args, **kwargs)

    def set_state_tree(*args, **kwargs):
        put(*args, **kwargs)
        after_writing()

    get_state_tree.original = get  # type: ignore[attr-defined]
    set_untracked(model, "get_state_tree", get_state_tree)
    set_untracked(model, "set_state_tree", set_state_tree)


def _drop(items, condition):
    items[:] = [item for item in items if not condition(item)]
