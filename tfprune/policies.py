"""Policies: which layers of a model are worth pruning for a given runtime."""

import keras

from tfprune import _keras_graph as graph
from tfprune import _validation as check


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

    XNNPACK keeps a whole chain of layers in channels-first layout: it begins with a 3x3
    convolution of stride 2 on 3 channels, goes through 1x1 convolutions, depthwise ones, adds,
    multiplications and activations, and ends in a global average pooling. The policy checks that
    there is such a chain, and says layer by layer what breaks it.

    Example:

    >>> policy = tfprune.PruneForLatencyOnXNNPack()
    >>> policy.allow_pruning(keras.layers.Conv2D(8, 1)), policy.allow_pruning(keras.layers.Dense(8))
    (True, False)
    """

    def allow_pruning(self, layer):
        return (
            isinstance(layer, keras.layers.Conv2D)
            and not isinstance(layer, (keras.layers.Conv2DTranspose, keras.layers.DepthwiseConv2D))
            and layer.kernel_size == (1, 1)
            and layer.strides == (1, 1)
            and layer.groups == 1
        )

    def ensure_model_supports_pruning(self, model):
        if not graph.is_graph(model):
            raise ValueError(
                check.message(
                    "a Sequential or Functional model for PruneForLatencyOnXNNPack",
                    f"{type(model).__name__}",
                    "Write the model with the functional API: a subclassed model cannot be "
                    "checked layer by layer.",
                )
            )
        layers = [layer for layer in graph.flatten(model)[1:] if not graph.is_graph(layer)]
        candidates = [layer for layer in layers if self.allow_pruning(layer)]
        problems = [] if candidates else ["there is no 1x1 Conv2D of stride 1 without groups"]
        problems += self._entry_problem(layers) + self._exit_problem(layers)
        problems += [problem for layer in layers if (problem := self._problem(layer))]
        if problems:
            raise ValueError(
                check.message(
                    "a chain of layers that XNNPACK can run sparse",
                    f"model '{model.name}', in which " + "; ".join(problems),
                    "Change these layers, or prune without this policy: the file becomes smaller "
                    "all the same.",
                )
            )

    def _entry_problem(self, layers):
        for layer in layers:
            if isinstance(layer, keras.layers.Conv2D) and layer.kernel_size == (3, 3):
                if layer.strides != (2, 2):
                    return [f"'{layer.name}' has strides={layer.strides} (strides=2 would fit)"]
                if layer.padding not in ("same", "valid"):
                    return [f"'{layer.name}' has padding={layer.padding!r} ('same' would fit)"]
                return []
        return ["there is no 3x3 Conv2D of stride 2 to enter the chain by"]

    def _exit_problem(self, layers):
        if any(isinstance(layer, keras.layers.GlobalAveragePooling2D) for layer in layers):
            return []
        return ["there is no GlobalAveragePooling2D to leave the chain by"]

    def _problem(self, layer):
        name = layer.name
        if isinstance(layer, keras.layers.DepthwiseConv2D):
            if layer.kernel_size not in ((3, 3), (5, 5)):
                return f"'{name}' has kernel_size={layer.kernel_size} (3 or 5 would fit)"
            if layer.strides not in ((1, 1), (2, 2)):
                return f"'{name}' has strides={layer.strides} (1 or 2 would fit)"
            if layer.depth_multiplier != 1:
                return f"'{name}' has depth_multiplier={layer.depth_multiplier} (1 would fit)"
        if (
            isinstance(layer, keras.layers.Conv2D)
            and layer.kernel_size == (1, 1)
            and not self.allow_pruning(layer)
        ):
            return f"'{name}' has strides={layer.strides}, groups={layer.groups} (1 would fit)"
        if getattr(layer, "data_format", "channels_last") != "channels_last":
            return f"'{name}' has data_format='channels_first' ('channels_last' would fit)"
        return None
