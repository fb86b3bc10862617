"""The Keras side of callbacks that prune."""

import warnings

import keras

from tfprune._base import validation as check
from tfprune._wrapping.wrapper import mask_owners
from tfprune.callbacks.pruning_training import PruningTraining

HOW_TO_WRAP = "model = tfprune.prune_low_magnitude(model, schedule)"


class PruningCallback(keras.callbacks.Callback):
    """Forwards the events of `fit` to a `PruningTraining`, and adds the sparsity to the logs.

    Args:
        training: The `PruningTraining`.
        model: The wrapped model, for custom training loops only.
    """

    _how_to_wrap = HOW_TO_WRAP

    def __init__(self, training: PruningTraining, model=None):
        super().__init__()
        self._training = training
        # Whether the model has no masks, so that there is nothing to do.
        self._is_idle = False
        # Whether `fit` runs an epoch, and whether a loop like tfmot's has begun one.
        self._in_epoch = self._by_hand = False
        if model is not None:
            training.attach(model, own_loop=True)
            super().set_model(model)

    def set_model(self, model=None):
        # In `fit(callbacks=[UpdatePruningStep])`, Keras calls the class: `self` is the model.
        if not isinstance(self, PruningCallback):
            raise TypeError(
                check.message(
                    "objects in callbacks=[...], such as tfprune.UpdatePruningStep()",
                    "a class of callbacks itself",
                    "Add the parentheses, with the arguments of the class if it needs any.",
                )
            )
        super().set_model(model)
        self._is_idle = is_plain(model, type(self).__name__, self._how_to_wrap)
        if not self._is_idle:
            self._training.attach(model)

    def on_train_begin(self, logs=None):
        self._in_epoch = self._by_hand = False
        if not self._is_idle:
            self._training.begin(self.params)

    def on_epoch_begin(self, epoch, logs=None):
        self._in_epoch = True
        if not self._is_idle:
            self._training.begin_epoch(epoch)

    def on_train_batch_begin(self, batch, logs=None):
        if self._is_idle:
            return
        if self._in_epoch:
            self._training.go_on(batch)
            return
        # A loop that calls the methods itself, as tfmot's users write it: each call means
        # an optimizer step that follows, so the one before has been made.
        if self._by_hand:
            self._training.step()
        else:
            self._training.ask()
        self._by_hand = True

    def on_train_batch_end(self, batch, logs=None):
        if self._in_epoch and not self._is_idle:
            self._training.end_batch(batch)
            self._log(logs)

    def on_epoch_end(self, epoch=None, logs=None, batch=None):
        """Ends an epoch; `batch` is how loops that were written for tfmot call it."""
        if self._is_idle:
            return
        if self._in_epoch:
            self._training.end_epoch()
        elif self._by_hand:
            self._training.step()
        self._in_epoch = self._by_hand = False
        self._log(logs)

    def on_train_end(self, logs=None):
        if self._is_idle:
            return
        if self._by_hand:
            self._training.step()
            self._by_hand = False
        self._training.end()

    def _log(self, logs):
        if logs is not None:
            logs["sparsity"] = self._training.updater.sparsity


def is_plain(model, callback, how_to_wrap=HOW_TO_WRAP):
    """Whether a model has no masks, after stripping for instance; then it warns."""
    if mask_owners(model):
        return False
    warnings.warn(
        check.message(
            f"a model with wrapped layers for {callback}",
            f"model '{model.name}' without any, so that nothing is done",
            f"Call {how_to_wrap} before fit, or leave the callback out.",
        ),
        stacklevel=4,
    )
    return True


class OwnLoop:
    """The methods of a `PruningCallback` for custom training loops."""

    _training: PruningTraining

    def step(self, sync=None):
        """Counts one optimizer step and updates the masks if one is due.

        Call it after each optimizer step of your own loop: after each *update*, if you accumulate
        gradients over several batches. Another thread that predicts with the model during a mask
        update may see some layers with their new masks and others with the old ones.

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
