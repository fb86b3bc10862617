"""The sparse form of convolutions."""

import itertools
import math

import keras
from keras import ops

from tfprune._base import validation as check
from tfprune.sparse.layers.base import SparseLayer, activated


@keras.saving.register_keras_serializable(package="tfprune")
class SparseConv(SparseLayer):
    """A convolution of one, two or three dimensions that stores only nonzero weights.

    `tfprune.to_sparse` makes it. A window of 1 is a product of matrices; a larger one is a
    product of patches.

    Args:
        filters: Number of outputs.
        kernel_size: Sizes of the window, one for each spatial axis.
        nonzeros: Number of nonzero weights.
        strides: Steps of the window.
        padding: "valid", "same" or, with one spatial axis, "causal".
        dilation_rate: Distances between the places of the window.
        data_format: "channels_last" or "channels_first".
        activation: Activation function.
        use_bias: Whether there is a bias.
        **kwargs: Arguments of `keras.layers.Layer`.

    Example:

    >>> layer = tfprune.sparse.SparseConv(1, (1, 1), nonzeros=1, use_bias=False)
    >>> layer.build((None, 2, 2, 3))
    >>> layer.put([[0, 0, 4]])
    >>> keras.ops.convert_to_numpy(layer(np.ones((1, 2, 2, 3), "float32"))).max().item()
    4.0
    """

    def __init__(
        self,
        filters,
        kernel_size,
        nonzeros,
        strides=1,
        padding="valid",
        dilation_rate=1,
        data_format="channels_last",
        activation=None,
        use_bias=True,
        **kwargs,
    ):
        super().__init__(nonzeros, activation, use_bias, **kwargs)
        self.filters = check.integer("filters", filters, 1, "Use for instance 32.")
        self.kernel_size = tuple(kernel_size)
        self.strides = _sizes(strides, len(self.kernel_size))
        self.padding = check.choice("padding", padding, ("valid", "same", "causal"))
        self.dilation_rate = _sizes(dilation_rate, len(self.kernel_size))
        formats = ("channels_last", "channels_first")
        self.data_format = check.choice("data_format", data_format, formats)

    def matrix_shape(self, input_shape):
        channels = input_shape[-1 if self.data_format == "channels_last" else 1]
        return self.filters, math.prod(self.kernel_size) * channels

    def dense_shape(self):
        channels = self.sizes[1] // math.prod(self.kernel_size)
        return *self.kernel_size, channels, self.filters

    def compute_output_shape(self, input_shape):
        last = self.data_format == "channels_last"
        spatial = input_shape[1:-1] if last else input_shape[2:]
        made = tuple(
            None if size is None else self._places(size, axis) for axis, size in enumerate(spatial)
        )
        return (
            (input_shape[0], *made, self.filters)
            if last
            else (
                input_shape[0],
                self.filters,
                *made,
            )
        )

    def _places(self, size, axis):
        """Returns how many places the window has along an axis."""
        reach = self.dilation_rate[axis] * (self.kernel_size[axis] - 1)
        return -(-(size - (reach if self.padding == "valid" else 0)) // self.strides[axis])

    def call(self, inputs, training=None):
        self.check_call(training)
        first = self.data_format == "channels_first"
        axes = len(self.kernel_size)
        if first:
            inputs = ops.transpose(inputs, (0, *range(2, axes + 2), 1))
        patches = self._patches(inputs)
        sizes = ops.shape(patches)[1:-1]
        outputs = self.product(ops.reshape(patches, (-1, self.sizes[1])))
        if self.bias is not None:
            outputs = ops.add(outputs, self.bias)
        outputs = ops.reshape(activated(self, outputs), (-1, *sizes, self.filters))
        return ops.transpose(outputs, (0, axes + 1, *range(1, axes + 1))) if first else outputs

    def _patches(self, inputs):
        """Returns the inputs under the window at each place, by place and channel."""
        spatial = ops.shape(inputs)[1:-1]
        reach = [d * (k - 1) + 1 for d, k in zip(self.dilation_rate, self.kernel_size, strict=True)]
        pads = [
            self._pad(size, window, stride)
            for size, window, stride in zip(spatial, reach, self.strides, strict=True)
        ]
        if not all(isinstance(number, int) and number == 0 for pad in pads for number in pad):
            inputs = ops.pad(inputs, ((0, 0), *pads, (0, 0)))
        ends = [
            size + sum(pad) - window + 1
            for size, pad, window in zip(spatial, pads, reach, strict=True)
        ]
        parts = []
        for place in itertools.product(*map(range, self.kernel_size)):
            starts = [p * d for p, d in zip(place, self.dilation_rate, strict=True)]
            slices = (
                slice(start, start + end, stride)
                for start, end, stride in zip(starts, ends, self.strides, strict=True)
            )
            parts.append(inputs[(slice(None), *slices)])
        return parts[0] if len(parts) == 1 else ops.concatenate(parts, axis=-1)

    def _pad(self, size, window, stride):
        if self.padding == "valid":
            return 0, 0
        if self.padding == "causal":
            return window - 1, 0
        missing = (-(-size // stride) - 1) * stride + window - size
        missing = max(missing, 0) if isinstance(missing, int) else ops.maximum(missing, 0)
        return missing // 2, missing - missing // 2

    def get_config(self):
        names = ("filters", "kernel_size", "strides", "padding", "dilation_rate", "data_format")
        return {**super().get_config(), **{name: getattr(self, name) for name in names}}


def _sizes(number, axes):
    return (number,) * axes if isinstance(number, int) else tuple(number)
