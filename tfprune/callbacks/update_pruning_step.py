"""The callback that evaluates the schedules and updates the masks."""

from tfprune.callbacks.pruning_callback import OwnLoop, PruningCallback
from tfprune.callbacks.pruning_training import PruningTraining


class UpdatePruningStep(OwnLoop, PruningCallback):
    """Counts optimizer steps and updates the masks according to the schedule.

    Pass it to `fit`: `model.fit(..., callbacks=[tfprune.UpdatePruningStep()])`, at any position
    among the callbacks. It adds the sparsity to the progress bar, to `logs["sparsity"]` and to the
    history, and warns if training ends before the schedule does.

    Masks are weights of the model. A callback that restores the weights of an earlier epoch, such
    as `EarlyStopping(restore_best_weights=True)`, therefore restores that epoch's sparsity too.
    UpdatePruningStep warns if this happens; `PruningCheckpoint` keeps the best model at the target
    sparsity.

    In your own training loop, pass the model and call `step()` after each optimizer step.

    Args:
        model: The wrapped model, for your own training loop only.
        data: Data for criteria on gradients or activations: a `tf.data.Dataset`, a
            `keras.utils.PyDataset`, a PyTorch `DataLoader`, or arrays as a tuple `(x, y)`. Each
            mask update runs the model on some batches of it.
        batches: Number of batches for each mask update.
        batch_size: Size of the batches that arrays are cut into.
        loss: A Keras loss for criteria on gradients, if the model is not compiled.
        masks_on: Where masks are computed. "device" computes and counts scores where the weights
            are, so the host reads only counts, thresholds and the scores of a few large units; the
            masks are the same as with "host". It takes all built-in patterns, and all criteria
            that score each weight separately, in float32, float16 or bfloat16. The host computes
            everything else: criteria on whole filters, LAMP, `Random`, ADMM; custom patterns and
            criteria unless they declare `on_tensors = True`, and custom distributions unless they
            declare `reads_weights = False`; other values of `normalize` than "auto" for anything
            but slices; weights of experts, and layers with LoRA. "auto" chooses "device" for
            weights on a GPU or a TPU and for those that span processes, and "host" on a CPU, where
            it is faster.

    Raises:
        ValueError: If a weight turns NaN or infinite, a second
            UpdatePruningStep is among the callbacks, or a criterion needs data and none is
            given.
        TypeError: If `model` is not a Keras 3 model.

    Example:

    >>> model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(1)])
    >>> model = tfprune.prune_low_magnitude(
    ...     model, tfprune.PolynomialDecay(0.0, 0.75, begin_step=0, end_step=10, frequency=1))
    >>> model.compile("sgd", "mse")
    >>> history = model.fit(np.ones((80, 8)), np.ones((80, 1)), batch_size=8, verbose=0,
    ...     callbacks=[tfprune.UpdatePruningStep()])
    >>> history.history["sparsity"]
    [0.75]
    """

    def __init__(self, model=None, data=None, batches=1, batch_size=32, loss=None, masks_on="auto"):
        training = PruningTraining(
            data=data, batches=batches, batch_size=batch_size, loss=loss, masks_on=masks_on
        )
        super().__init__(training, model)
