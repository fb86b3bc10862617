"""Models of a custom class: recognizing them, and attaching masks to them."""

import contextlib
import types

import keras
from keras.src.models.functional import functional_like_constructor
from keras.src.saving.saving_lib import H5IOStore

from tfprune._keras.layers import is_graph
from tfprune._keras.layers import plain_class as plain_class

_BEFORE = "_class_before_pruning"
_DERIVED: dict = {}


def keeps_class(model):
    """Whether a model is more than its layers, so that only its own class can copy it.

    Plain Sequential and Functional models are not, nor are models of a class whose constructor
    takes `(inputs, outputs)`: copies of their layers can be assembled into a copy of the model.
    """
    if not isinstance(model, keras.Model):
        return False
    cls = plain_class(model)
    if not is_graph(model) or issubclass(cls, keras.Sequential):
        return cls is not keras.Sequential
    return not functional_like_constructor(cls)


def derived_class(model, mixin, registered=None):
    """Returns a subclass of a mixin and a model's class, created once for each class.

    It has the name of the model's class, from which Keras derives paths in files, and is saved as
    `registered`, a class that Keras finds when it loads; `None` for a class that is not saved.
    """
    cls = type(model)
    if (cls, mixin) not in _DERIVED:
        names = {"__module__": cls.__module__, "__doc__": cls.__doc__, _BEFORE: cls}
        derived = types.new_class(cls.__name__, (mixin, cls), {}, lambda body: body.update(names))
        # Keras maps classes to names and names to classes; the latter mapping does not change.
        register = keras.saving.register_keras_serializable
        if registered is not None:
            register("tfprune", registered.__name__)(derived)
            register("tfprune", registered.__name__)(registered)
        _DERIVED[cls, mixin] = derived
    return _DERIVED[cls, mixin]


def change_class(model, cls):
    """Makes a model an instance of another class."""
    # Bypasses Keras, which would look for variables and layers in the value.
    object.__setattr__(model, "__class__", cls)


@contextlib.contextmanager
def with_former_class(model, variables=()):
    """Temporarily restores the former class of a model, and hides some of its variables."""
    derived = type(model)
    change_class(model, plain_class(model))
    try:
        with hidden_variables(model, variables):
            yield
    finally:
        change_class(model, derived)


@contextlib.contextmanager
def hidden_variables(model, variables):
    """Hides variables that belong directly to a model."""
    hidden = {id(variable) for variable in variables}
    kept, states = model._non_trainable_variables, model._seed_generators
    visible = [variable for variable in kept if id(variable) not in hidden]
    object.__setattr__(model, "_non_trainable_variables", visible)
    others = [item for item in states if id(item.state) not in hidden]
    object.__setattr__(model, "_seed_generators", others)
    try:
        yield
    finally:
        object.__setattr__(model, "_non_trainable_variables", kept)
        object.__setattr__(model, "_seed_generators", states)


def add_weight(model, attribute=None, **arguments):
    """Adds a variable to a built model; tf.train.Checkpoint finds it by `attribute`."""
    with _unlocked(model):
        variable = model.add_weight(**arguments)
        if attribute is not None and keras.backend.backend() == "tensorflow":
            setattr(model, attribute, variable)
    return variable


def remove_weight(model, variable, attribute=None):
    """Removes such a variable from a model."""
    with _unlocked(model):
        model._untrack_variable(variable)
        if attribute is not None and attribute in vars(model):
            # Keras's own method would run the garbage collector for each mask of the model.
            super(keras.layers.Layer, model).__delattr__(attribute)


@contextlib.contextmanager
def _unlocked(model):
    locked = model._tracker.locked
    model._tracker.unlock()
    try:
        yield
    finally:
        if locked:
            model._tracker.lock()


@contextlib.contextmanager
def own_entries(filepath):
    """Opens the entry of a model itself, without its layers, in a `.weights.h5` file."""
    file = H5IOStore(str(filepath), mode="r")
    try:
        yield file.get("")
    finally:
        file.close()


def forget_compiled(model):
    """Makes a model compile its functions again, because their computation has changed."""
    for name in ("train_function", "test_function", "predict_function", "generate_function"):
        if getattr(model, name, None) is not None:
            setattr(model, name, None)
