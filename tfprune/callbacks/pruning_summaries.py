"""TensorBoard curves of sparsity and threshold."""

from typing import Any

import keras

from tfprune._base import validation as check
from tfprune._base.packages import check_installed
from tfprune._wrapping.wrapper import mask_owners


class PruningSummaries(keras.callbacks.Callback):
    """Writes the sparsity and the threshold of every pruned weight for TensorBoard.

    It writes nothing else, so you can combine it with `keras.callbacks.TensorBoard` on the same
    folder. The threshold is the highest score that the latest mask update pruned.

    Args:
        log_dir: Folder for the event files.
        update_freq: "epoch", or a number of batches.

    Raises:
        ImportError: If TensorFlow, which writes the files, is not installed.
        ValueError: If `log_dir` is empty, `update_freq` is neither "epoch" nor a number, or the
            model has no wrapped layer.

    Example:

    >>> callbacks = [tfprune.UpdatePruningStep(), tfprune.PruningSummaries("logs")]
    """

    def __init__(self, log_dir, update_freq="epoch"):
        super().__init__()
        check_installed(["tensorflow"], "tensorflow", "to write summaries for TensorBoard")
        if not log_dir:
            raise ValueError(
                check.message("`log_dir` to be a folder", f"{log_dir=}", 'Give a path, "logs".')
            )
        if update_freq != "epoch":
            mend = 'Give "epoch" or a number of batches.'
            update_freq = check.integer("update_freq", update_freq, 1, mend)
        self.log_dir = str(log_dir)
        self.update_freq = update_freq
        self._writer: Any = None
        self._owners: list = []

    def set_model(self, model):
        super().set_model(model)
        self._owners = mask_owners(model)
        if not self._owners:
            raise ValueError(
                check.message(
                    "a model with wrapped layers",
                    f"model '{model.name}' without any",
                    "Call model = tfprune.prune_low_magnitude(model, schedule) before fit.",
                )
            )

    def on_train_begin(self, logs=None):
        import tensorflow as tf

        self._writer = tf.summary.create_file_writer(self.log_dir)

    def on_train_batch_end(self, batch, logs=None):
        if self.update_freq != "epoch" and (batch + 1) % self.update_freq == 0:
            self._write()

    def on_epoch_end(self, epoch, logs=None):
        if self.update_freq == "epoch":
            self._write()

    def on_train_end(self, logs=None):
        self._writer.close()

    def _write(self):
        _ = self.model  # On JAX, Keras writes the state into the variables on this access.
        zeros = size = 0
        with self._writer.as_default():
            for owner in self._owners:
                step = owner.pruning_step
                for weight in owner.pruned_weights:
                    name = f"{owner.name}/{weight.path}"
                    _write_scalar(f"sparsity/{name}", weight.zeros / weight.size, step=step)
                    if weight.threshold is not None:
                        _write_scalar(f"threshold/{name}", weight.threshold, step=step)
                    if not weight.follows:
                        zeros, size = zeros + weight.zeros, size + weight.size
            _write_scalar("sparsity", zeros / size, step=step)
        self._writer.flush()


def _write_scalar(name, value, step):
    """Calls `tf.summary.scalar`, which TensorFlow has only if TensorBoard is installed."""
    import tensorflow as tf

    metadata = tf.compat.v1.SummaryMetadata(
        plugin_data=tf.compat.v1.SummaryMetadata.PluginData(plugin_name="scalars"),
        data_class=1,
    )
    tf.summary.write(name, tf.constant(value, tf.float32), step=step, metadata=metadata)
