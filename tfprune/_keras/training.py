"""Optimizers, data, and hooks before and after training."""

import keras
from keras import ops
from keras.src.trainers.data_adapters import get_data_adapter

from tfprune._base import validation as check
from tfprune._keras.layers import backend


def sync_state(model):
    """Writes the state of JAX's `fit` into the model's variables; does nothing elsewhere."""
    if backend() == "jax" and hasattr(model, "jax_state_sync"):
        model.jax_state_sync()


def single_optimizers(optimizer):
    """Returns the plain optimizers inside a loss-scaling or combined optimizer."""
    inside = _inside(optimizer)
    return [single for item in inside for single in single_optimizers(item)] or [optimizer]


def _inside(optimizer):
    inner = getattr(optimizer, "inner_optimizer", None)
    return list(getattr(optimizer, "optimizers", None) or []) if inner is None else [inner]


def copy_numbers(optimizer, other):
    """Copies the state that belongs to no weight: steps, learning rate, scale of the loss.

    Args:
        optimizer: The optimizer.
        other: An optimizer of the same class, which gets the state.
    """
    for name, number in vars(optimizer).items():
        if isinstance(number, keras.Variable):
            getattr(other, name).assign(ops.convert_to_numpy(number))
    for old, new in zip(_inside(optimizer), _inside(other), strict=True):
        copy_numbers(old, new)


def is_built_for_nothing(optimizer):
    """Whether an optimizer is built, but for no variable at all.

    Keras builds the optimizer of a legacy .h5 file with the variables of the model itself, without
    those of its layers, and then loads none of its state.
    """
    return all(
        single.built and getattr(single, "_trainable_variables", None) == []
        for single in single_optimizers(optimizer)
    )


def batches_done(optimizer):
    """Returns `(batches, accumulation)`: batches an optimizer has seen, and batches per update."""
    first = single_optimizers(optimizer)[0]
    return int(ops.convert_to_numpy(first._iterations)), first.gradient_accumulation_steps or 1


def averages(optimizer):
    """Returns `{id(variable): its moving average}` for an optimizer that keeps averages."""
    found = {}
    for single in single_optimizers(optimizer):
        if getattr(single, "use_ema", False) and single.built:
            pairs = zip(
                single._trainable_variables, single._model_variables_moving_average, strict=True
            )
            found.update({id(v): average for v, average in pairs if average is not None})
    return found


def slots(optimizer, variable):
    """Returns an optimizer's state for one variable: momenta and the like, of its shape."""
    found = []
    for single in single_optimizers(optimizer):
        known = getattr(single, "_trainable_variables", [])
        places = [place for place, item in enumerate(known) if item is variable]
        if not places:
            continue
        for name, kept in vars(single).items():
            if name == "_trainable_variables" or not isinstance(kept, (list, tuple)):
                continue
            if len(kept) == len(known) and kept[places[0]] is not None:
                slot = kept[places[0]]
                if isinstance(slot, keras.Variable) and slot.shape == variable.shape:
                    found.append(slot)
    return found


def factors(optimizer, variable):
    """Returns `(state, axis)` of state that has the variable's shape without one of its axes.

    Adafactor keeps the means of squared gradients over the last axis, and over the one before it.
    """
    found = []
    for single in single_optimizers(optimizer):
        if not isinstance(single, keras.optimizers.Adafactor) or len(variable.shape) < 2:
            continue
        for place, item in enumerate(getattr(single, "_trainable_variables", [])):
            if item is variable:
                found += [(single._r[place], -1), (single._c[place], -2)]
    return [(kept, axis) for kept, axis in found if kept is not None]


def numpy_batches(data, batch_size):
    """Returns an iterator over batches of NumPy arrays, for any data that `fit` takes.

    Args:
        data: A data set, a generator, or arrays as a tuple `(x,)`, `(x, y)` or
            `(x, y, sample_weight)`.
        batch_size: Size of the batches that arrays are cut into.
    """
    return iter(_adapter(data, batch_size).get_numpy_iterator())


def number_of_batches(data, batch_size):
    """Returns the number of batches in data that can be read again; `None` if unknown."""
    is_a_set = isinstance(data, keras.utils.PyDataset) or not hasattr(data, "__next__")
    return _adapter(data, batch_size).num_batches if is_a_set else None


def _adapter(data, batch_size):
    parts = data if isinstance(data, tuple) else (data,)
    try:
        return get_data_adapter(*parts, batch_size=batch_size)
    except (ValueError, TypeError, AttributeError, LookupError) as error:
        raise ValueError(
            check.message(
                "data that fit takes, and a batch size",
                f"{type(data).__name__}: {check.first_line(error)}"[:200],
                "Pass arrays, as a tuple with their labels, or a data set.",
            )
        ) from error


def before_training(model, action):
    """Calls `action(model)` whenever `fit` or `train_on_batch` is about to train."""
    if getattr(model.make_train_function, "action", None) is action:
        return
    original = model.make_train_function

    def make_train_function(force=False):
        action(model)
        return original(force)

    make_train_function.action = action  # type: ignore[attr-defined]
    model.make_train_function = make_train_function


def move_first_epoch(model, before, after):
    """Lets the `fit` that begins start with epoch `after` if it would start with `before`.

    That is where a callback chose the first epoch, as BackupAndRestore does.
    """
    if (getattr(model, "_initial_epoch", None) or 0) == before:
        model._initial_epoch = after


def set_first_epoch(model, epoch):
    """Lets the `fit` that begins start with an epoch, as BackupAndRestore does; `None` as usual."""
    model._initial_epoch = epoch


def after_training(model, action):
    """Calls `action()` at the end of the running `fit`, after all callbacks.

    Keras puts its own History last, unless the user passes one.
    """
    history = getattr(model, "history", None)
    if history is None:
        return

    original = history.on_train_end

    def on_train_end(logs=None):
        vars(history).pop("on_train_end", None)
        original(logs)
        action()

    history.on_train_end = on_train_end


def compile_like(model, other):
    """Compiles a model like another one, with its own optimizer, if the config allows it.

    If a loss or metric has no config, the model stays uncompiled.

    Returns:
        Whether it was compiled.
    """
    if not getattr(other, "compiled", False):
        return False
    try:
        model.compile_from_config(other.get_compile_config())
    except Exception:
        return False
    return bool(model.compiled)
