"""TensorBoard curves of sparsity and threshold."""

import os
from typing import Any

import keras

from tfprune._base import validation as check
from tfprune._base.packages import check_installed
from tfprune._updates.mask_update import MaskUpdate
from tfprune.callbacks.pruning_callback import is_plain


class ForwardingCallback(keras.callbacks.Callback):
    """A callback that passes every event on to another callback, `board`, if it has one."""

    board: Any = None


def _forwarded(name):
    def tell(self, *arguments, **named):
        getattr(super(ForwardingCallback, self), name)(*arguments, **named)
        if self.board is not None:
            getattr(self.board, name)(*arguments, **named)

    return tell


for _name in dir(keras.callbacks.Callback):
    if _name.startswith(("on_", "set_")):
        setattr(ForwardingCallback, _name, _forwarded(_name))


class PruningSummaries(ForwardingCallback):
    """Writes the sparsity and the threshold of every pruned weight for TensorBoard.

    The threshold is the highest score that the latest mask update removed. After each epoch, the
    values are written at the number of the epoch, as Keras writes its own; after batches, at the
    pruning step.

    Args:
        log_dir: Folder for the event files.
        update_freq: "epoch", "batch", or a number of batches.
        **kwargs: Arguments of `keras.callbacks.TensorBoard`, for instance `histogram_freq`. If
            any are given, the callback also writes everything that `TensorBoard` writes. Without
            them, it can share a folder with a separate `TensorBoard`.

    Raises:
        TypeError: If `log_dir` is not a path, or an argument is unknown to `TensorBoard`.
        ValueError: If `log_dir` is empty or a file, or `update_freq` is invalid.
        ImportError: If arguments of `TensorBoard` are given and tensorboard is not installed.

    Example:

    >>> callbacks = [tfprune.UpdatePruningStep(), tfprune.PruningSummaries("logs")]
    """

    def __init__(self, log_dir, update_freq="epoch", **kwargs):
        super().__init__()
        check_installed(["tensorflow"], "tensorflow", "to write summaries for TensorBoard")
        if not isinstance(log_dir, (str, os.PathLike)):
            raise TypeError(
                check.message("`log_dir` to be a folder", f"{log_dir=}", 'Give a path, "logs".')
            )
        if not os.fspath(log_dir) or os.path.isfile(log_dir):
            raise ValueError(
                check.message("`log_dir` to be a folder", f"{log_dir=}", 'Give a path, "logs".')
            )
        if not isinstance(update_freq, str) or update_freq not in ("epoch", "batch"):
            mend = 'Give "epoch", "batch" or a number of batches.'
            update_freq = check.integer("update_freq", update_freq, 1, mend)
        self.log_dir = str(log_dir)
        self.update_freq = update_freq
        self._writer: Any = None
        self._owners: list = []
        self._epoch = 0
        self._batch = 0  # Batches of the epoch so far.
        self._unwritten = 0  # Batches since the values were due.
        if kwargs:
            self.board = _board(log_dir, update_freq, kwargs)

    def set_model(self, model):
        super().set_model(model)
        self._owners = [] if is_plain(model, type(self).__name__) else MaskUpdate(model).owners

    def on_train_begin(self, logs=None):
        import tensorflow as tf

        self._writer = tf.summary.create_file_writer(self.log_dir)
        self._epoch = self._batch = self._unwritten = 0
        super().on_train_begin(logs)

    def on_train_batch_end(self, batch, logs=None):
        # With several steps per execution, batches are left out. A smaller number begins an epoch.
        self._unwritten += batch + 1 - (self._batch if self._batch <= batch else 0)
        self._batch = batch + 1
        every = 1 if self.update_freq == "batch" else self.update_freq
        if every != "epoch" and self._unwritten >= every:
            self._unwritten %= every
            self._write()
        super().on_train_batch_end(batch, logs)

    def on_epoch_end(self, epoch=None, logs=None, batch=None):
        """Ends an epoch; `batch` is how loops that were written for tfmot call it."""
        number = self._epoch if epoch is None else epoch
        self._epoch = number + 1
        if self.update_freq == "epoch":
            self._write(number)
        super().on_epoch_end(number, logs)

    def on_train_end(self, logs=None):
        self._writer.close()
        super().on_train_end(logs)

    def _write(self, epoch=None):
        if not self._owners:
            return
        _ = self.model  # On JAX, Keras writes the state into the variables on this access.
        zeros = size = 0
        with self._writer.as_default():
            for owner in self._owners:
                step = owner.pruning_step if epoch is None else epoch
                for weight in owner.pruned_weights:
                    name = weight.name
                    _write_scalar(f"sparsity/{name}", weight.zeros / weight.size, step=step)
                    if weight.threshold is not None:
                        _write_scalar(f"threshold/{name}", weight.threshold, step=step)
                    if not weight.follows:
                        zeros, size = zeros + weight.zeros, size + weight.size
            _write_scalar("sparsity", zeros / size, step=step)
        self._writer.flush()


def _board(log_dir, update_freq, arguments):
    """Keras's own callback, which needs more than TensorFlow."""
    check_installed(
        ["tensorboard"],
        "tensorboard",
        f"for {', '.join(arguments)}, arguments of keras.callbacks.TensorBoard",
    )
    return keras.callbacks.TensorBoard(log_dir, update_freq=update_freq, **arguments)


def _write_scalar(name, value, step):
    """Calls `tf.summary.scalar`, which TensorFlow has only if TensorBoard is installed."""
    import tensorflow as tf

    metadata = tf.compat.v1.SummaryMetadata(
        plugin_data=tf.compat.v1.SummaryMetadata.PluginData(plugin_name="scalars"),
        data_class=1,
    )
    tf.summary.write(name, tf.constant(value, tf.float32), step=step, metadata=metadata)
