"""Checkpoints whose files appear whole or not at all."""

import os
from pathlib import Path

import keras

from tfprune._base import validation as check
from tfprune._base.files import check_name, written_atomically


class WholeFileCheckpoint(keras.callbacks.ModelCheckpoint):
    """A `ModelCheckpoint` that keeps the file before until the next one is whole."""

    def __init__(self, filepath, *args, **kwargs):
        if not isinstance(filepath, (str, os.PathLike)):
            raise TypeError(
                check.message(
                    "`filepath` to be a path", f"filepath={filepath!r:.80}", 'Use "best.keras".'
                )
            )
        check_name(filepath)
        try:
            super().__init__(filepath, *args, **kwargs)
        except ValueError as error:
            raise ValueError(
                check.message(
                    "arguments that keras.callbacks.ModelCheckpoint takes",
                    f"{check.first_line(error):.200}",
                    'Use for instance filepath="best.keras".',
                )
            ) from error

    def on_train_batch_end(self, batch, logs=None):
        # Keras sets it when the first epoch ends, too late where batches are compared.
        if self.save_best_only and self.monitor_op is None:
            self._set_monitor_op()
        super().on_train_batch_end(batch, logs)

    @property
    def model(self):
        model = super().model
        return None if model is None else _SavedWhole(model)


class _SavedWhole:
    """A model that is saved by the atomic writer; all else is the model's own."""

    def __init__(self, model):
        self._model = model

    def __getattr__(self, name):
        return getattr(self._model, name)

    def save(self, filepath, **kwargs):
        _write(self._model.save, filepath, kwargs)

    def save_weights(self, filepath, **kwargs):
        _write(self._model.save_weights, filepath, kwargs)


def _write(save, filepath, kwargs):
    if "://" in os.fspath(filepath):
        # Network storage replaces files in a single step.
        save(filepath, **kwargs)
        return
    with written_atomically(Path(filepath)) as unfinished:
        save(unfinished, **kwargs)
