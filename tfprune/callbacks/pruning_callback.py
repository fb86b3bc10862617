"""The Keras side of callbacks that prune."""

import keras

from tfprune.callbacks.pruning_training import PruningTraining


class PruningCallback(keras.callbacks.Callback):
    """Forwards the events of `fit` to a `PruningTraining`, and adds the sparsity to the logs.

    Args:
        training: The `PruningTraining`.
        model: The wrapped model, for custom training loops only.
    """

    def __init__(self, training: PruningTraining, model=None):
        super().__init__()
        self._training = training
        if model is not None:
            training.attach(model, own_loop=True)
            super().set_model(model)

    def set_model(self, model):
        super().set_model(model)
        self._training.attach(model)

    def on_train_begin(self, logs=None):
        self._training.begin(self.params)

    def on_epoch_begin(self, epoch, logs=None):
        self._training.begin_epoch(epoch)

    def on_train_batch_begin(self, batch, logs=None):
        self._training.go_on(batch)

    def on_train_batch_end(self, batch, logs=None):
        self._training.end_batch(batch)
        self._log(logs)

    def on_epoch_end(self, epoch, logs=None):
        self._training.end_epoch()
        self._log(logs)

    def on_train_end(self, logs=None):
        self._training.end()

    def _log(self, logs):
        if logs is not None:
            logs["sparsity"] = self._training.updater.sparsity


class OwnLoop:
    """The methods of a `PruningCallback` for custom training loops."""

    _training: PruningTraining

    def step(self, sync=None):
        """Counts one optimizer step and updates the masks if one is due.

        Call it after each optimizer step of your own loop. If you accumulate gradients over several
        batches, call it after each *update*.

        Args:
            sync: A function that assigns the current values to the model's variables, for loops
                that keep the values elsewhere, as on JAX. It is called only before a mask update;
                if `step` returns True, read the values again.

        Returns:
            Whether the masks were updated.

        Example:

        >>> layer = tfprune.prune_low_magnitude(
        ...     keras.layers.Dense(1), tfprune.ConstantSparsity(0.5, begin_step=1))
        >>> model = keras.Sequential([keras.Input((8,)), layer])
        >>> pruning = tfprune.UpdatePruningStep(model)
        >>> pruning.step()   # after optimizer.apply(...)
        True
        """
        return self._training.step(sync)

    def project(self, trainable_variables, non_trainable_variables):
        """Sets pruned weights to zero in values outside of the model's variables.

        Call it in stateless training steps on JAX; it can be compiled. In other loops, the
        optimizer applies the masks.

        Args:
            trainable_variables: Values in the order of `model.trainable_variables`.
            non_trainable_variables: Values in the order of `model.non_trainable_variables`.

        Returns:
            List of the new trainable values.
        """
        return self._training.projection(trainable_variables, non_trainable_variables)

    @property
    def sparsity(self):
        """Fraction of zeros over all pruned weights together."""
        updater = self._training.updater
        return 0.0 if updater is None else updater.sparsity
