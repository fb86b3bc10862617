"""A checkpoint that compares only models at their target sparsity."""

import warnings
from typing import Any

from tfprune import _keras
from tfprune._base import validation as check
from tfprune._updates.mask_update import MaskUpdate
from tfprune.callbacks.pruning_callback import is_plain


class PruningCheckpoint(_keras.WholeFileCheckpoint):
    """Keeps the best model among those that have reached the target sparsity of their schedule.

    A plain `ModelCheckpoint(save_best_only=True)` nearly always keeps an early model that is still
    dense. This callback starts to compare models once every wrapped weight has reached the target
    sparsity of its schedule.

    Args:
        filepath: File to save to, as in `keras.callbacks.ModelCheckpoint`.
        monitor: Name of the metric to compare by.
        save_best_only: `False` saves every epoch at the target sparsity.
        **kwargs: Further arguments of `keras.callbacks.ModelCheckpoint`.

    Raises:
        ValueError: If `filepath` is too long to be a name.

    Example:

    >>> callbacks = [
    ...     tfprune.UpdatePruningStep(),
    ...     tfprune.PruningCheckpoint("best.keras", monitor="val_accuracy", mode="max"),
    ... ]
    """

    def __init__(self, filepath, monitor="val_loss", *, save_best_only=True, **kwargs):
        super().__init__(filepath, monitor=monitor, save_best_only=save_best_only, **kwargs)
        self._update: Any = None
        self._zeros: list = []
        self._reached = False
        self._ever_reached = False

    def set_model(self, model):
        super().set_model(model)
        self._update = None if is_plain(model, type(self).__name__) else MaskUpdate(model)
        self._ever_reached = False

    def on_train_batch_end(self, batch, logs=None):
        if self.save_freq != "epoch" and self._at_target():
            super().on_train_batch_end(batch, logs)

    def on_epoch_end(self, epoch, logs=None):
        if self._at_target():
            super().on_epoch_end(epoch, logs)

    def on_train_end(self, logs=None):
        super().on_train_end(logs)
        if self._update is not None and not self._ever_reached:
            warnings.warn(
                check.message(
                    "training to reach the target sparsity",
                    "training that ended before it, so that nothing was saved",
                    "Train for longer, or end the schedule earlier.",
                ),
                stacklevel=2,
            )

    def _at_target(self):
        if self._update is None:
            return False
        zeros = [weight.zeros for weight in self._update.weights]
        if zeros != self._zeros:
            self._zeros = zeros
            _keras.sync_state(self.model)
            aims = [(w.method.schedule.target_sparsity, w) for w in self._update.weights]
            counts = self._update.expected_zeros(aims)
            self._reached = all(pruned >= expected for pruned, expected, _ in counts)
        self._ever_reached = self._ever_reached or self._reached
        return self._reached
