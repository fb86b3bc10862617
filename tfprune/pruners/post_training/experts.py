"""The inputs of experts, seen where a bank of them is multiplied."""

import contextlib

import numpy as np
from keras import ops

from tfprune import _keras


def watched_experts(statistics, mask):
    """Returns a context in which the products of banks of experts add to their statistics.

    A bank computes all experts for all tokens, and weighs the results afterwards. So the choice of
    experts is taken from the `top_k` before: a token counts for the experts chosen for it. Without
    a choice, all tokens count for all.

    Args:
        statistics: `{id(variable): InputStatistics}`.
        mask: Bool array over samples and positions, `False` for padding; or `None`.
    """
    if not statistics:
        return contextlib.nullcontext()
    chosen: list = []

    def seen(name, arguments, outputs):
        if name == "top_k":
            size = int(arguments[0].shape[-1])
            chosen[:] = [_by_expert(np.asarray(ops.convert_to_numpy(outputs[1])), size)]
        elif len(arguments) == 3 and id(arguments[2]) in statistics:
            own = statistics[id(arguments[2])]
            rows = _rows(arguments[0], ops.cast(arguments[1], "float32"))
            own.add_rows(_counted(rows, own.product.shape[0], chosen, mask))

    return _keras.watched_operations(("top_k", "einsum"), seen)


def _by_expert(choice, experts):
    """Bool array of shape (experts, tokens) from the numbers of the chosen experts."""
    choice = choice.reshape(-1, choice.shape[-1])
    return (choice[None] == np.arange(experts)[:, None, None]).any(axis=-1)


def _rows(equation, x):
    """The inputs of an einsum with a bank, of shape (experts or 1, tokens, inputs)."""
    left = equation.replace(" ", "").partition("->")[0]
    letters, kernel = left.split(",")
    expert, summed = kernel[0], kernel[1]
    shared = [letters.index(expert)] if expert in letters else []
    last = letters.index(summed)
    rest = [axis for axis in range(len(letters)) if axis not in (*shared, last)]
    groups = x.shape[shared[0]] if shared else 1
    return ops.reshape(ops.transpose(x, [*shared, *rest, last]), (groups, -1, x.shape[last]))


def _counted(rows, experts, chosen, mask):
    """Sets rows to zero that an expert was not chosen for, and padding."""
    tokens = int(rows.shape[1])
    counts = np.ones((1, tokens), bool)
    if chosen and chosen[0].shape == (experts, tokens):
        counts = chosen[0]
    if mask is not None and mask.size == tokens:
        counts = counts & mask.reshape(1, -1)
    if counts.all():
        return rows
    return rows * ops.cast(ops.convert_to_tensor(counts[:, :, None]), rows.dtype)
