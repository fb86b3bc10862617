"""A smaller model with the optimizer of the larger one: what it remembers is sliced alike."""

import numpy as np
from keras import ops

from tfprune import _keras
from tfprune._wrapping.strip import strip_pruning
from tfprune.structural.silent_channels import planned


def shrink_compiled(model):
    """Makes a compiled model smaller, so that its training goes on without a jolt.

    What the optimizer remembers of a weight has the weight's shape, so it is cut by the same code:
    a copy of the model gets it in the place of the weights, and loses the same channels.

    Args:
        model: A built and compiled model, wrapped with a pattern of whole filters, or plain with
            filters of zeros. It is not changed.

    Returns:
        `(smaller model, ShrinkPlan)`. The model is compiled as the larger one, as far as its losses
        and metrics can be copied; its optimizer has done as many steps.
    """
    plain = strip_pruning(model)
    plan = planned(plain, 1)
    small = plan.apply()
    if not _keras.compile_like(small, model):
        return small, plan
    optimizer = small.optimizer
    if not optimizer.built:
        optimizer.build(small.trainable_variables)
    pairs = list(zip(model.trainable_variables, plain.trainable_variables, strict=True))
    kept = [_keras.slots(model.optimizer, variable) for variable, _ in pairs]
    for number in range(max(map(len, kept), default=0)):
        for (_, copy), slots in zip(pairs, kept, strict=True):
            if number < len(slots):
                copy.assign(_keras.on_host(slots[number]))
        cut = {variable.path: variable for variable in plan.rebuilt().trainable_variables}
        for variable in small.trainable_variables:
            slots = _keras.slots(optimizer, variable)
            # A bias that took over constants is new: nothing is remembered of it.
            if number < len(slots) and variable.path in cut:
                slots[number].assign(_keras.host_array(cut[variable.path]))
    olds, news = (_keras.single_optimizers(m.optimizer) for m in (model, small))
    for old, new in zip(olds, news, strict=True):
        new.iterations.assign(np.asarray(ops.convert_to_numpy(old.iterations)))
    return small, plan
