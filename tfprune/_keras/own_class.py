"""Models of a class of their own: how they are told from plain ones, and how masks join them."""

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

    Plain Sequential and Functional models are not, nor are those of a class that is made from
    `(inputs, outputs)`: they can be put together again from copies of their layers.
    """
    if not isinstance(model, keras.Model):
        return False
    cls = plain_class(model)
    if not is_graph(model) or issubclass(cls, keras.Sequential):
        return cls is not keras.Sequential
    return not functional_like_constructor(cls)


def derived_class(model, mixin, registered):
    """Returns the class of a model with a mixin before it, made once for each class.

    It has the name of the model's class, from which Keras makes paths in files, and is saved as
    `registered`, a class that Keras can find when it loads.
    """
    cls = type(model)
    if cls not in _DERIVED:
        names = {"__module__": cls.__module__, "__doc__": cls.__doc__, _BEFORE: cls}
        derived = types.new_class(cls.__name__, (mixin, cls), {}, lambda body: body.update(names))
        # Keras knows the name of each class, and the class of each name: the latter stays.
        register = keras.saving.register_keras_serializable
        register("tfprune", registered.__name__)(derived)
        register("tfprune", registered.__name__)(registered)
        _DERIVED[cls] = derived
    return _DERIVED[cls]


def change_class(model, cls):
    """Makes a model an instance of another class."""
    # Past Keras, which would look for variables and layers in a value that is set.
    object.__setattr__(model, "__class__", cls)


@contextlib.contextmanager
def as_before(model, variables=()):
    """Lets a model be of the class that it had, and without some of its own variables."""
    derived = type(model)
    change_class(model, plain_class(model))
    try:
        with without(model, variables):
            yield
    finally:
        change_class(model, derived)


@contextlib.contextmanager
def without(model, variables):
    """Hides variables that a model holds itself."""
    hidden = {id(variable) for variable in variables}
    kept = model._non_trainable_variables
    visible = [variable for variable in kept if id(variable) not in hidden]
    object.__setattr__(model, "_non_trainable_variables", visible)
    try:
        yield
    finally:
        object.__setattr__(model, "_non_trainable_variables", kept)


def add_weight(model, attribute=None, **arguments):
    """Adds a variable to a model that is built; `attribute` lets tf.train.Checkpoint find it."""
    with _unlocked(model):
        variable = model.add_weight(**arguments)
        if attribute is not None and keras.backend.backend() == "tensorflow":
            setattr(model, attribute, variable)
    return variable


def remove_weight(model, variable, attribute=None):
    """Takes a variable out of a model again."""
    with _unlocked(model):
        model._untrack_variable(variable)
        if attribute is not None and attribute in vars(model):
            # Keras's own would collect garbage, for each mask of the model.
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


def hang_on(model, name, thing):
    """Sets an attribute past Keras, which would track what it holds."""
    object.__setattr__(model, name, thing)


def take_off(model, name):
    """Removes what `hang_on` set."""
    object.__delattr__(model, name)


@contextlib.contextmanager
def own_entries(filepath):
    """Opens what a model itself, without its layers, wrote into a `.weights.h5` file."""
    file = H5IOStore(str(filepath), mode="r")
    try:
        yield file.get("")
    finally:
        file.close()


def forget_compiled(model):
    """Lets a model compile its functions again: what they compute has changed."""
    for name in ("train_function", "test_function", "predict_function", "generate_function"):
        if getattr(model, name, None) is not None:
            setattr(model, name, None)
