"""Attributes and methods that are set on single objects, past Keras's tracking."""

import functools


def set_untracked(model, name, value):
    """Sets an attribute that Keras does not track."""
    object.__setattr__(model, name, value)


def delete_untracked(model, name):
    """Removes an attribute that `set_untracked` set."""
    object.__delattr__(model, name)


def replace_method(layer, name, function):
    """Replaces a method of one layer by a function, if the layer's class has such a method."""
    if hasattr(type(layer), name):
        # Keras itself sets methods on layers that wrap the methods of their classes.
        function.before = vars(layer).get(name)
        set_untracked(layer, name, function)


def restore_method(layer, name):
    """Undoes `replace_method`."""
    function = vars(layer).get(name)
    if hasattr(function, "before"):
        delete_untracked(layer, name)
        if function.before is not None:
            set_untracked(layer, name, function.before)


def check_before(cls, name, check):
    """Makes a method of a Keras class call `check(self)` first, for all models.

    It is for calls that change one layer after the other, so that a layer's refusal comes too late.
    A loaded model gives no other occasion: only its wrappers are this library's.
    """
    method = getattr(cls, name)

    @functools.wraps(method)
    def checked(self, *args, **kwargs):
        check(self)
        return method(self, *args, **kwargs)

    setattr(cls, name, checked)
