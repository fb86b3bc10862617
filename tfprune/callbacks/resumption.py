"""Training resumed from a file: does the step in the file belong to the epoch that begins?"""

import math
import warnings

from tfprune import _keras
from tfprune._base import validation as check


class Resumption:
    """Compares the step that a file brought along with the epoch that training begins in.

    `keras.callbacks.BackupAndRestore` writes weights and the number of the epoch into two files. A
    program that is killed between them would train an epoch twice.

    Args:
        owners: What holds the masks of the model, built.
    """

    def __init__(self, owners):
        self._masks = owners[0].mask_set
        self._was_loaded = self._masks.was_loaded
        self._masks.was_loaded = False
        self._waits = False

    def begin(self, model):
        """Called when `fit` begins; moves its first epoch on to that of the weights."""
        self._waits = True
        wanted = self._epoch()
        if self._masks.was_loaded and wanted is not None:
            _keras.move_first_epoch(model, wanted - 1, wanted)

    def begin_epoch(self, epoch, steps):
        """Called at the start of each epoch, with the number of its optimizer steps or `None`.

        Returns:
            Whether the masks came from a file since the last epoch or training.
        """
        in_fit, waits = self._masks.was_loaded, self._waits
        self._masks.was_loaded = self._waits = False
        resumed = in_fit or self._was_loaded
        if waits and (in_fit or (self._was_loaded and epoch)):
            self._compare(epoch)
        self._was_loaded = False
        self._masks.epoch = (epoch, self._masks.current_step(), steps or 0)
        return resumed

    def _epoch(self):
        """The epoch that the file's training would have come to next; `None` if unknown."""
        if self._masks.epoch is None:
            return None
        epoch, start, steps = self._masks.epoch
        done = self._masks.step - start
        if not steps or not 0 <= done <= math.ceil(steps):
            return None
        return int(epoch) + (done >= math.floor(steps) > 0)

    def _compare(self, epoch):
        wanted = self._epoch()
        if wanted is None:
            return
        begun, start, _ = self._masks.epoch
        done = int(self._masks.step - start)
        inside = wanted == begun and done > 0
        if wanted == epoch and not inside:
            return
        where = f"{done} steps after the start of epoch {int(begun)}" if inside else "its start"
        warnings.warn(
            check.message(
                f"training to continue in epoch {wanted}, to which the pruning step "
                f"{self._masks.step} of the weights belongs, {where}",
                f"training that begins at the start of epoch {epoch}",
                "Steps are counted twice or skipped. Pass initial_epoch to fit, put "
                "UpdatePruningStep after BackupAndRestore, and save at the end of epochs; or use "
                "PruningBackup.",
            ),
            stacklevel=6,
        )
