"""The state of an optimizer, for a copy of its model or for a smaller model."""

import numpy as np

from tfprune import _keras
from tfprune._wrapping.strip import strip_pruning
from tfprune.structural.silent_channels import plan_removal


def shrink_compiled(model):
    """Makes a compiled model smaller, and keeps the state of its optimizer.

    Args:
        model: A built and compiled model, wrapped with a pattern of whole filters, or plain with
            filters of zeros. It is not changed.

    Returns:
        The smaller model, compiled as in `compile_smaller`.
    """
    plain = strip_pruning(model)
    return compile_smaller(plan_removal(plain, 1), plain, model)


def compile_smaller(plan, plain, model):
    """Compiles the smaller model of a plan like the larger one, with the state of its optimizer.

    What the optimizer remembers of a weight has the weight's shape, so it is cut by the same code:
    a copy of the model gets it in the place of the weights, and loses the same channels. Means over
    an axis, which Adafactor keeps, stay those over all channels.

    Args:
        plan: The `ShrinkPlan` of `plain`.
        plain: A copy of the model without wrappers. Its weights are overwritten.
        model: The larger model. It is not changed.

    Returns:
        The smaller model: uncompiled if the larger one is, or if its losses or metrics cannot be
        copied.
    """
    small = plan.apply()
    if not _keras.compile_like(small, model) or not model.optimizer.built:
        return small
    optimizer = small.optimizer
    if not optimizer.built:
        optimizer.build(small.trainable_variables)
    pairs = list(zip(model.trainable_variables, plain.trainable_variables, strict=True))
    kept = [_states(model.optimizer, variable) for variable, _ in pairs]
    for number in range(max(map(len, kept), default=0)):
        for (_, copy), states in zip(pairs, kept, strict=True):
            if number < len(states):
                state, axis = states[number]
                value = _keras.on_host(state)
                value = value if axis is None else np.expand_dims(value, axis)
                copy.assign(np.broadcast_to(value, tuple(copy.shape)))
        cut = {variable.path: variable for variable in plan.rebuilt().trainable_variables}
        for variable in small.trainable_variables:
            states = _states(optimizer, variable)
            # A bias that took over constants is new: nothing is remembered of it.
            if number < len(states) and variable.path in cut:
                state, axis = states[number]
                value = _keras.host_array(cut[variable.path])
                state.assign(value if axis is None else np.take(value, 0, axis))
    _keras.copy_numbers(model.optimizer, optimizer)
    return small


def compile_copy(copy, model):
    """Compiles a copy of a model with the same trainable weights and state of the optimizer.

    Args:
        copy: A model whose trainable variables are those of `model`, in the same order.
        model: The model. It is not changed.

    Returns:
        The copy: uncompiled if the model is, or if its losses or metrics cannot be copied.
    """
    if not _keras.compile_like(copy, model) or not model.optimizer.built:
        return copy
    if not copy.optimizer.built:
        copy.optimizer.build(copy.trainable_variables)
    for one, two in zip(model.trainable_variables, copy.trainable_variables, strict=True):
        states = (_states(m.optimizer, v) for m, v in ((model, one), (copy, two)))
        for (source, _), (target, _) in zip(*states, strict=True):
            target.assign(_keras.on_host(source))
    _keras.copy_numbers(model.optimizer, copy.optimizer)
    return copy


def _states(optimizer, variable):
    """Returns `(state, axis)` of what an optimizer remembers of a variable.

    A state has the variable's shape, without `axis` if that is not `None`.
    """
    whole = [(slot, None) for slot in _keras.slots(optimizer, variable)]
    return [*whole, *_keras.factors(optimizer, variable)]
