"""A layer in which layers inside have become sparse."""

import keras

from tfprune import _keras
from tfprune.sparse.layers.placed import PlacedForms


@keras.saving.register_keras_serializable(package="tfprune")
class SparseInside(_keras.WrapperBase, keras.layers.Wrapper):
    """A layer with layers inside, for instance attention, some of which are sparse.

    `tfprune.to_sparse` makes it. It has the name of its layer, and the same call arguments.

    Args:
        layer: The layer.
        forms: `{place: (sparse layer, input shape)}`: which layers inside become sparse.
        **kwargs: Arguments of `keras.layers.Layer`.

    Example:

    >>> attention = keras.layers.MultiHeadAttention(2, 4, name="attention")
    >>> query = tfprune.sparse.SparseEinsumDense(
    ...     "abc,cde->abde", (None, 2, 4), kernel_shape=(8, 2, 4), bias_axes="de", nonzeros=9)
    >>> layer = tfprune.sparse.SparseInside(attention, {"_query_dense": (query, (None, None, 8))})
    >>> x = keras.Input((3, 8))
    >>> layer(x, x).shape
    (None, 3, 8)
    """

    def __init__(self, layer, forms, **kwargs):
        kwargs.setdefault("name", layer.name)
        # The inner layer casts its inputs.
        kwargs.setdefault("autocast", False)
        kwargs.setdefault("dtype", layer.dtype_policy)
        super().__init__(layer, **kwargs)
        self._placed = PlacedForms(forms)
        _keras.adopt_call_arguments(self, self.inner)

    @property
    def inner(self):
        return self.layer

    @property
    def forms(self):
        """`{place: sparse layer}`."""
        return dict(self._placed.layers)

    def build(self, input_shape=None):
        if not self.inner.built:
            self.inner.build(input_shape)
        self._placed.put_inside(self.inner)
        self.built = True

    def call(self, *args, **kwargs):
        return self.inner(*args, **kwargs)

    def get_config(self):
        return {**super().get_config(), "forms": self._placed.to_config()}
