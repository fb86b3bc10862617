"""Statistics of inputs of layers: squares and products, summed over the samples."""

import keras
import numpy as np
from keras import ops

from tfprune import _keras
from tfprune.pruners.post_training.experts import watched_experts
from tfprune.pruners.post_training.products import ExpertProduct


class InputStatistics:
    """Sums over all rows that a layer multiplies.

    Args:
        product: The layer's `Product`.
        hessian: Whether to sum the products of all pairs of inputs, not only the squares.
    """

    def __init__(self, product, hessian):
        self.product = product
        self._hessian = hessian
        self._sum: np.ndarray | float = 0.0

    def add(self, x, mask=None):
        """Adds the inputs of one call.

        Args:
            x: The input tensor.
            mask: Bool array over samples and positions, `False` for padding; or `None`.
        """
        x = ops.cast(x, "float32")
        if mask is not None:
            x = _without_padding(x, mask)
        self.add_rows(self.product.rows(x))

    def add_rows(self, rows):
        """Adds rows: a tensor of shape (groups, rows, inputs)."""
        if not int(rows.shape[1]):
            return
        if self._hessian:
            new = ops.matmul(ops.transpose(rows, (0, 2, 1)), rows)
        else:
            new = ops.sum(ops.square(rows), axis=1)
        # In double precision on the host: single precision loses small sums among many samples.
        self._sum = self._sum + ops.convert_to_numpy(new).astype("float64")

    @property
    def seen(self):
        """Whether any input was other than zero."""
        return bool(np.any(self._sum))

    @property
    def unseen(self):
        """List of the groups whose inputs were all zero."""
        return [group for group, own in enumerate(np.asarray(self._sum)) if not np.any(own)]

    @property
    def finite(self):
        """Whether no input was NaN or infinite."""
        return bool(np.isfinite(self._sum).all())

    def hessian(self):
        """Sum of `x x^T` over the rows: float64 array of shape (groups, inputs, inputs)."""
        return np.asarray(self._sum)

    def norms(self):
        """L2 norm of each input over all rows: float64 array of shape (groups, inputs)."""
        squares = np.asarray(self._sum)
        if self._hessian:
            squares = np.diagonal(squares, axis1=1, axis2=2)
        return np.sqrt(squares)


def _without_padding(x, mask):
    """Sets padded positions to zero, where the axes of a tensor show where they are."""
    if len(x.shape) > 2 and tuple(x.shape[:2]) == mask.shape:
        shape = (*mask.shape, *[1] * (len(x.shape) - 2))
    elif len(x.shape) == 2 and x.shape[0] == mask.size:
        shape = (mask.size, 1)
    else:
        return x
    return x * ops.cast(ops.convert_to_tensor(mask.reshape(shape)), x.dtype)


def watch(statistics, calls, run, masks):
    """Runs calls and adds the inputs of layers to their statistics.

    Args:
        statistics: `{name: InputStatistics}`.
        calls: The calls to run.
        run: Function from a call to its outputs.
        masks: Bool array for each call, or `None`.

    Returns:
        List of what `run` returned.
    """
    by_layer: dict = {}
    experts = {}
    for one in statistics.values():
        if isinstance(one.product, ExpertProduct):
            experts[id(one.product.variable)] = one
        else:
            by_layer.setdefault(id(one.product.layer), []).append(one)
    layers = [own[0].product.layer for own in by_layer.values()]
    found = []
    for call, mask in zip(calls, masks, strict=True):

        def handle(layer, own, args, kwargs, mask=mask):
            x = _keras.positional(own, args, kwargs)[0]
            for one in by_layer[id(layer)]:
                one.add(x, mask)
            return own(*args, **kwargs)

        with _keras.intercepted_calls(layers, handle), watched_experts(experts, mask):
            found.append(run(call))
    return found


def padding_of(batch):
    """Returns the padding mask among a batch's inputs as a bool array; `None` if all is data."""
    mask = batch.get("padding_mask") if isinstance(batch, dict) else None
    if mask is None:
        return None
    mask = np.asarray(keras.ops.convert_to_numpy(mask)).astype(bool)
    return None if mask.all() or mask.ndim != 2 else mask
