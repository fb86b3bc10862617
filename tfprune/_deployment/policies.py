"""Policies: which layers of a model are worth pruning for a given runtime."""

from tfprune import _keras
from tfprune._base import validation as check
from tfprune._deployment import xnnpack
from tfprune._keras.checks import check_built


class PruningPolicy:
    """Says which layers are pruned and whether a model as a whole can profit.

    Example:

    >>> class DenseOnly(tfprune.PruningPolicy):
    ...     def allow_pruning(self, layer):
    ...         return isinstance(layer, keras.layers.Dense)
    """

    def allow_pruning(self, layer):
        """Returns whether a layer is to be pruned.

        Args:
            layer: A Keras layer.
        """
        raise NotImplementedError(f"{type(self).__name__} has to implement allow_pruning(layer).")

    def ensure_model_supports_pruning(self, model):
        """Raises ValueError, naming what is in the way, if a model cannot profit.

        Args:
            model: A built Keras model.
        """


class PruneForLatencyOnXNNPack(PruningPolicy):
    """Prunes the 1x1 convolutions that XNNPACK can run with its sparse kernels.

    XNNPACK, which computes for LiteRT, has sparse kernels for 1x1 convolutions in channels-first
    layout. It keeps a chain of layers in that layout only if the whole chain fits:

    - it begins with `ZeroPadding2D(1)` and a 3x3 `Conv2D` of stride 2 on 3 channels, unpadded;
    - inside are 1x1 convolutions of stride 1, depthwise ones of 3x3 or 5x5 with zeros around them
      on all sides alike, sums and products of two tensors, activations, batch normalizations
      behind a convolution, bilinear upsampling of twice the size;
    - it ends in a `GlobalAveragePooling2D`, and nothing outside reads what is inside.

    The policy follows the model's graph, and says layer by layer what is in the way. It cannot see
    what has to hold beside:

    - the file is written with `tfprune.export(..., sparse=True)`: zeros in a dense file do nothing;
    - more than two thirds of all weights in the chain's 1x1 convolutions are zero;
    - weights are float32 or float16, not 8 bits;
    - the processor is no x86 with AVX: there XNNPACK never runs its sparse kernels.

    `benchmarks/sparse_litert.py` measures each of these. That it holds on Arm is what XNNPACK's
    source says: it was not tried.

    Example:

    >>> policy = tfprune.PruneForLatencyOnXNNPack()
    >>> policy.allow_pruning(keras.layers.Conv2D(8, 1)), policy.allow_pruning(keras.layers.Dense(8))
    (True, False)

    Reference:
        - [Fast Sparse ConvNets](https://arxiv.org/abs/1911.09723)
    """

    def allow_pruning(self, layer):
        return xnnpack.is_pointwise(layer)

    def ensure_model_supports_pruning(self, model):
        if not _keras.is_graph(model):
            raise ValueError(
                check.message(
                    "a Sequential or Functional model for PruneForLatencyOnXNNPack",
                    f"{type(model).__name__}",
                    "Write the model with the functional API: a subclassed model cannot be "
                    "checked layer by layer.",
                )
            )
        check_built(model)
        if problems := xnnpack.problems(model):
            raise ValueError(
                check.message(
                    "a chain of layers that XNNPACK can run sparse",
                    f"model '{model.name}', in which " + "; ".join(problems),
                    "Change these layers, or prune without this policy: the file becomes smaller "
                    "all the same.",
                )
            )
