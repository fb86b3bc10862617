"""The sparse form of each layer class, or the reason why a layer has none."""

import keras
import numpy as np

from tfprune import _keras
from tfprune.sparse.layers import (
    SemiStructuredDense,
    SparseConv,
    SparseDense,
    SparseEinsumDense,
)
from tfprune.sparse.layers.equation import Contraction
from tfprune.sparse.layers.semi_structured import (
    HALF,
    has_semi_structured_kernels,
    is_semi_structured,
)

# Below, compressed rows take more bytes than a dense matrix, and more time.
_LEAST_ZEROS = 0.5


def sparse_form(layer, input_shape):
    """Makes a sparse layer that computes the same as a layer.

    Args:
        layer: A built layer.
        input_shape: Shape of its input, the batch included.

    Returns:
        The sparse layer, built; or the reason why there is none, as a text.
    """
    make = _FORMS.get(_keras.plain_class(layer))
    if make is None:
        return f"no sparse form of {type(layer).__name__}"
    if _keras.is_quantized(layer):
        return "quantized"
    if layer.compute_dtype != "float32" and not _for_tensor_cores(layer):
        return f"computes in {layer.compute_dtype}, not in float32"
    zeros = zero_share(layer)
    if zeros < _LEAST_ZEROS:
        return "fewer than half of the weights are zero"
    if not np.isfinite(_kernel(layer)).all():
        return "has weights that are not finite"
    return make(layer, (None, *input_shape[1:]))


def _for_tensor_cores(layer):
    """Whether a layer becomes a `SemiStructuredDense`."""
    return (
        _keras.plain_class(layer) is keras.layers.Dense
        and layer.compute_dtype in HALF
        and has_semi_structured_kernels()
        and is_semi_structured(_kernel(layer).T)
    )


def has_form(layer):
    """Whether the class of a layer has a sparse form."""
    return _keras.plain_class(layer) in _FORMS


def zero_share(layer):
    """Returns the share of zeros in a layer's kernel."""
    kernel = _kernel(layer)
    return 1 - np.count_nonzero(kernel) / max(1, kernel.size)


def _kernel(layer):
    return _keras.on_host(layer.kernel)


def _filled(form, input_shape, matrix, layer):
    form.build(input_shape)
    form.put(matrix, _keras.on_host(layer.bias) if form.use_bias else None)
    return form


def _shared(layer):
    """Arguments that all sparse layers have."""
    return {
        "nonzeros": int(np.count_nonzero(_kernel(layer))),
        "activation": layer.activation,
        "name": layer.name,
        "dtype": layer.dtype_policy,
    }


def _dense(layer, input_shape):
    kind = SemiStructuredDense if _for_tensor_cores(layer) else SparseDense
    form = kind(layer.units, use_bias=layer.use_bias, **_shared(layer))
    return _filled(form, input_shape, _kernel(layer).T, layer)


def _einsum_dense(layer, input_shape):
    contraction = Contraction.of(layer.equation, len(input_shape))
    if contraction is None:
        return f"'{layer.equation}' is no product of two matrices"
    kernel = _kernel(layer)
    form = SparseEinsumDense(
        layer.equation,
        layer.partial_output_shape,
        kernel.shape,
        layer.bias_axes,
        **_shared(layer),
    )
    return _filled(form, input_shape, contraction.matrix(kernel), layer)


def _conv(layer, input_shape):
    if layer.groups != 1:
        return "grouped: each filter reads some of the channels"
    names = ("kernel_size", "strides", "padding", "dilation_rate", "data_format", "use_bias")
    form = SparseConv(
        layer.filters, **{name: getattr(layer, name) for name in names}, **_shared(layer)
    )
    kernel = _kernel(layer)
    return _filled(form, input_shape, kernel.reshape(-1, kernel.shape[-1]).T, layer)


_FORMS = {
    keras.layers.Dense: _dense,
    keras.layers.EinsumDense: _einsum_dense,
    keras.layers.Conv1D: _conv,
    keras.layers.Conv2D: _conv,
    keras.layers.Conv3D: _conv,
}
