"""Layers as products of matrices: rows of inputs times a kernel, for each group of channels."""

from math import prod

import numpy as np
from keras import ops

from tfprune._layers import facts
from tfprune.patterns.axes import from_matrices, to_matrices


class Product:
    """A layer whose outputs are a product of its inputs and its kernel.

    The kernel is `groups` matrices of shape (inputs, outputs). `rows(x) @ matrices(kernel)` are
    the layer's outputs before bias and activation.

    Args:
        layer: A built layer.
        entry: The `PrunableWeight` that is multiplied.

    Attributes:
        variable: The kernel.
        shape: Its shape.
        axes: Its `KernelAxes`.
    """

    def __init__(self, layer, entry):
        self.layer = layer
        self.variable = entry.get(layer)
        self.shape = tuple(self.variable.shape)
        self.axes = entry.axes_of(layer).resolve(len(self.shape))

    @property
    def apart(self):
        """How many parts of the kernel are pruned each for itself: the experts."""
        return self.shape[0] if self.axes.experts else 1

    @property
    def run(self):
        """How many inputs in a row are neighbors for N:M: those of one position in a window."""
        return self.matrices(np.empty(self.shape, "bool")).shape[1]

    def rows(self, x):
        """Returns the rows that a call multiplies: a tensor of shape (groups, rows, inputs)."""
        raise NotImplementedError(f"{type(self).__name__} has to implement `rows`.")

    def matrices(self, kernel):
        """Returns a kernel's values as an array of shape (groups, inputs, outputs)."""
        return to_matrices(kernel, self.axes)

    def kernel(self, matrices):
        """Undoes `matrices`."""
        return from_matrices(matrices, self.shape, self.axes)


class DenseProduct(Product):
    """Inputs along the last axis."""

    def rows(self, x):
        return ops.reshape(x, (1, -1, self.shape[0]))


class EinsumProduct(Product):
    """Inputs along all axes that the equation sums over; groups along the shared ones."""

    def rows(self, x):
        left, _, output = self.layer.equation.replace(" ", "").partition("->")
        inputs, kernel = left.split(",")
        if inputs.startswith("..."):
            free = len(x.shape) - len(inputs) + 3
            letters = [None] * free + list(inputs[3:])
        else:
            letters = list(inputs.replace("...", ""))
        summed = [letter for letter in kernel if letter in inputs and letter not in output]
        shared = [letter for letter in kernel if letter in inputs and letter in output]
        rest = [a for a, letter in enumerate(letters) if letter not in (*summed, *shared)]
        order = [letters.index(s) for s in shared] + rest + [letters.index(s) for s in summed]
        sizes = dict(zip(kernel, self.shape, strict=True))
        groups, size = (prod(sizes[s] for s in part) for part in (shared, summed))
        return ops.reshape(ops.transpose(x, order), (groups, -1, size))


class ConvolutionProduct(Product):
    """Inputs are the values in a window: positions, then channels."""

    @property
    def run(self):
        return self.shape[-2]

    def rows(self, x):
        layer = self.layer
        if layer.data_format == "channels_first":
            x = ops.moveaxis(x, 1, -1)
        size, padding = tuple(layer.kernel_size), layer.padding
        strides, dilation = tuple(layer.strides), tuple(layer.dilation_rate)
        if padding == "causal":
            x = ops.pad(x, [[0, 0], [dilation[0] * (size[0] - 1), 0], [0, 0]])
            padding = "valid"
        if layer.rank == 1:
            x = ops.expand_dims(x, 1)
            size, strides, dilation = ((1, *values) for values in (size, strides, dilation))
        step = {} if max(dilation) == 1 else {"dilation_rate": dilation}
        patches = ops.image.extract_patches(
            x, size, strides=strides, padding=padding, data_format="channels_last", **step
        )
        positions, groups = prod(size), layer.groups
        split = ops.reshape(patches, (-1, positions, groups, self.shape[-2]))
        return ops.reshape(
            ops.transpose(split, (2, 0, 1, 3)), (groups, -1, positions * self.shape[-2])
        )

    def matrices(self, kernel):
        groups = self.layer.groups
        flat = kernel.reshape(-1, groups, self.shape[-1] // groups)
        return flat.transpose(1, 0, 2)

    def kernel(self, matrices):
        return np.ascontiguousarray(matrices.transpose(1, 0, 2)).reshape(self.shape)


class ExpertProduct(Product):
    """A bank of experts: a weight of shape (experts, inputs, outputs), multiplied by an einsum.

    Its layer does not show which expert has which inputs; `experts.py` finds out.
    """

    def rows(self, x):
        raise NotImplementedError("The inputs of experts are seen where they are multiplied.")


_BY_FLOW = {
    "dense": DenseProduct,
    "einsum_dense": EinsumProduct,
    "convolution": ConvolutionProduct,
}


def product_of(layer, entry):
    """Returns the `Product` of a layer's weight; `None` if its inputs are not known to be rows."""
    if entry.axes_of(layer).experts and len(entry.get(layer).shape) == 3:
        return ExpertProduct(layer, entry)
    flow = facts.fact(layer, "flow")
    made = _BY_FLOW.get(flow) if isinstance(flow, str) else None
    if made is None or (flow == "convolution" and layer.rank > 2):
        return None
    return made(layer, entry)
