"""Policies, which select the layers worth pruning for a given runtime."""

from tfprune import _keras
from tfprune._base import validation as check
from tfprune._deployment import xnnpack
from tfprune._keras.checks import check_built


class PruningPolicy:
    """Decides which layers are pruned, and whether a model can benefit from pruning at all.

    Example:

    >>> class DenseOnly(tfprune.PruningPolicy):
    ...     def allow_pruning(self, layer):
    ...         return isinstance(layer, keras.layers.Dense)
    """

    def allow_pruning(self, layer):
        """Returns whether to prune a layer.

        Args:
            layer: A Keras layer.
        """
        raise TypeError(
            check.message(
                "a policy that says which layers to prune",
                f"{type(self).__name__}, which does not",
                "Write a subclass of tfprune.PruningPolicy with allow_pruning(layer).",
            )
        )

    def ensure_model_supports_pruning(self, model):
        """Raises ValueError, naming the obstacles, if a model cannot benefit from pruning.

        Args:
            model: A built Keras model.
        """


class PruneForLatencyOnXNNPack(PruningPolicy):
    """Prunes the 1x1 convolutions that XNNPACK can run with its sparse kernels.

    XNNPACK, the library that computes for LiteRT, has sparse kernels for 1x1 convolutions in
    channels-first layout. It keeps a chain of layers in that layout only if the whole chain fits:

    - The chain begins with `ZeroPadding2D(1)` and an unpadded 3x3 `Conv2D` of stride 2 on 3
      channels.
    - It contains only 1x1 convolutions of stride 1, symmetrically padded 3x3 or 5x5 depthwise
      convolutions, sums and products of two tensors, activations, batch normalizations directly
      after a convolution, and bilinear upsampling by a factor of 2.
    - It ends in a `GlobalAveragePooling2D`, and no layer outside reads a tensor inside.

    The policy follows the model's graph and reports the obstacles layer by layer. It cannot check
    four further conditions:

    - The file is written with `tfprune.export(..., sparse=True)`. A dense file gains nothing from
      zeros.
    - More than two thirds of all weights in the chain's 1x1 convolutions are zero.
    - Weights are float32 or float16, not 8-bit.
    - The processor is not an x86 with AVX, where XNNPACK never runs its sparse kernels.

    `benchmarks/sparse_litert.py` measures each condition. The speed on Arm was not measured; the
    claim follows XNNPACK's source.

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
                    "Build the model with the functional API: a subclassed model cannot be "
                    "checked layer by layer.",
                )
            )
        check_built(model)
        if problems := xnnpack.problems(model):
            raise ValueError(
                check.message(
                    "a chain of layers that XNNPACK can run sparse",
                    f"model '{model.name}', in which " + "; ".join(problems),
                    "Change these layers, or prune without this policy: the file still becomes "
                    "smaller.",
                )
            )
