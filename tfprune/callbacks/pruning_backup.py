"""A backup from which an interrupted training continues exactly."""

import os
from pathlib import Path

import keras

from tfprune import _keras
from tfprune._base import validation as check
from tfprune._base.files import check_target, remove_leftovers
from tfprune.callbacks.backup_file import read_backup, write_backup
from tfprune.callbacks.pruning_callback import is_plain


class PruningBackup(keras.callbacks.Callback):
    """Lets `fit` continue after an interruption, with the same result as without it.

    After each epoch, it writes weights, masks, pruning step, random states, the optimizer's values
    and the number of the epoch into one file, which replaces the previous one in a single step. A
    program leaves a complete backup even if it is killed while it saves. Started again, it
    continues with the next epoch. Use this callback instead of `keras.callbacks.BackupAndRestore`,
    which overwrites several files in turn.

    Args:
        path: File to keep the backup in; its suffix is ".weights.h5".
        save_freq: "epoch", or a number of batches. A training resumed in the middle of an epoch
            repeats the epoch from its first batch; it warns, and its result differs.
        delete_checkpoint: Whether the file is deleted when `fit` ends.

    Raises:
        TypeError: If `path` is not a path.
        ValueError: If no file can be written at `path`, it has another suffix, or `save_freq`
            is neither "epoch" nor a positive number. In `fit`: if the file is a backup of another
            model, or something else.
        DamagedFileError: In `fit`, if the file is damaged. It is an OSError.

    Example:

    >>> callbacks = [tfprune.PruningBackup("run.weights.h5"), tfprune.UpdatePruningStep()]
    """

    def __init__(self, path, save_freq="epoch", delete_checkpoint=True):
        super().__init__()
        if not isinstance(path, (str, os.PathLike)):
            mend = 'Use "run.weights.h5".'
            raise TypeError(check.message("`path` to be a path", f"path={path!r:.80}", mend))
        if not os.fspath(path).endswith(".weights.h5"):
            raise ValueError(
                check.message(
                    '`path` to end with ".weights.h5"',
                    f"path={os.fspath(path)!r:.80}",
                    'Use "run.weights.h5".',
                )
            )
        check_target(Path(path))
        if save_freq != "epoch":
            mend = 'Give "epoch" or a number of batches.'
            save_freq = check.integer("save_freq", save_freq, 1, mend)
        self.path = Path(path)
        self.save_freq = save_freq
        self.delete_checkpoint = delete_checkpoint
        self._is_idle = False
        self._epoch = 0
        self._batch = 0  # Batches of the epoch so far.
        self._unsaved = 0  # Batches since the last backup.

    def set_model(self, model):
        super().set_model(model)
        self._is_idle = is_plain(model, type(self).__name__)

    def on_train_begin(self, logs=None):
        self._unsaved = 0
        if self._is_idle:
            return
        optimizer = self.model.optimizer
        if not optimizer.built:
            optimizer.build(self.model.trainable_variables)
        remove_leftovers(self.path)
        if self.path.exists():
            _keras.set_first_epoch(self.model, read_backup(self.model, self.path))

    def on_epoch_begin(self, epoch, logs=None):
        self._epoch = epoch
        self._batch = 0

    def on_train_batch_end(self, batch, logs=None):
        if self.save_freq == "epoch":
            return
        # With several steps per execution, batches are left out.
        self._unsaved += batch + 1 - self._batch
        self._batch = batch + 1
        if self._unsaved >= self.save_freq:
            self._unsaved = 0
            # The last execution may count beyond the end of the epoch.
            steps = self.params.get("steps")
            self._save(self._epoch + (steps is not None and self._batch >= steps))

    def on_epoch_end(self, epoch, logs=None):
        if self.save_freq == "epoch":
            self._save(epoch + 1)

    def on_train_end(self, logs=None):
        if self._is_idle:
            return
        # Keras would begin each further `fit` there.
        _keras.set_first_epoch(self.model, None)
        if self.delete_checkpoint:
            self.path.unlink(missing_ok=True)

    def _save(self, epoch):
        if not self._is_idle:
            write_backup(self.model, self.path, epoch)
