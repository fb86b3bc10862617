"""Equations of EinsumDense as matrix products."""

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Contraction:
    """An equation "inputs,kernel->outputs" as a product of two matrices.

    Attributes:
        examples: Axes of the inputs that the outputs keep.
        contracted: Axes of the kernel that are summed over, in the order of `before`.
        made: Axes of the kernel that the outputs have.
        before: Order of the inputs' axes: first `examples`, then the contracted ones.
        after: Order of the product's axes in the outputs.
        names: Names of the outputs' axes, by which the bias is given.
    """

    examples: tuple
    contracted: tuple
    made: tuple
    before: tuple
    after: tuple
    names: str

    @classmethod
    def of(cls, equation, ndim):
        """Reads an equation.

        Args:
            equation: The equation of an EinsumDense.
            ndim: Number of axes of the inputs, the batch included.

        Returns:
            A `Contraction`; `None` if the equation is not one product of matrices.
        """
        inputs, kernel, outputs = _letters(equation, ndim)
        if len(set(inputs)) < len(inputs) or len(set(kernel)) < len(kernel):
            return None
        kept = [axis for axis in inputs if axis in outputs]
        summed = [axis for axis in inputs if axis not in outputs]
        made = [axis for axis in kernel if axis in outputs]
        if set(kept) & set(kernel) or set(summed) - set(kernel):
            return None
        if set(kernel) - set(made) != set(summed) or set(outputs) != {*kept, *made}:
            return None
        product = [*kept, *made]
        return cls(
            examples=tuple(inputs.index(axis) for axis in kept),
            contracted=tuple(kernel.index(axis) for axis in summed),
            made=tuple(kernel.index(axis) for axis in made),
            before=tuple(inputs.index(axis) for axis in [*kept, *summed]),
            after=tuple(product.index(axis) for axis in outputs),
            names=outputs,
        )

    def matrix_shape(self, kernel_shape):
        """Returns `(outputs, inputs)` of the matrix that a kernel is."""
        return tuple(
            math.prod(kernel_shape[axis] for axis in axes) for axes in (self.made, self.contracted)
        )

    def matrix(self, kernel):
        """Returns a kernel, an array, as a matrix of shape `(outputs, inputs)`."""
        kernel = kernel.transpose(*self.made, *self.contracted)
        return kernel.reshape(self.matrix_shape_of_moved(kernel.shape))

    def matrix_shape_of_moved(self, shape):
        """The same for a kernel whose axes are in the order of the matrix already."""
        number = len(self.made)
        return math.prod(shape[:number]), math.prod(shape[number:])

    def output_shape(self, kernel_shape, input_shape):
        """Returns the shape of the outputs."""
        sizes = [input_shape[axis] for axis in self.examples]
        sizes += [kernel_shape[axis] for axis in self.made]
        return tuple(sizes[axis] for axis in self.after)

    def bias_shape(self, kernel_shape, input_shape, bias_axes):
        """Returns the shape of the bias, with ones where it is spread."""
        shape = self.output_shape(kernel_shape, input_shape)
        named = [
            size if name in bias_axes else 1 for name, size in zip(self.names, shape, strict=True)
        ]
        first = next((place for place, size in enumerate(named) if size != 1), len(named) - 1)
        return tuple(named[first:])


def _letters(equation, ndim):
    """Returns the three terms of an equation, with a letter for each axis in "..."."""
    left, outputs = equation.replace(" ", "").split("->")
    inputs, kernel = left.split(",")
    if "..." in inputs:
        number = ndim - len(inputs.replace("...", ""))
        free = [chr(code) for code in range(ord("A"), ord("Z")) if chr(code) not in equation]
        open_axes = "".join(free[:number])
        inputs, kernel, outputs = (
            term.replace("...", open_axes) for term in (inputs, kernel, outputs)
        )
    return inputs, kernel, outputs
