"""The callback that asks the schedule and updates the masks."""

from tfprune.callbacks.pruning_callback import OwnLoop, PruningCallback
from tfprune.callbacks.pruning_training import PruningTraining


class UpdatePruningStep(OwnLoop, PruningCallback):
    """Counts optimizer steps and updates the masks when the schedule says so.

    `model.fit(..., callbacks=[tfprune.UpdatePruningStep()])` is all that a training with Keras
    needs; its place among the callbacks does not matter. The sparsity stands beside the loss in
    the progress bar, in `logs["sparsity"]` and in the history. Where training ends short of the
    schedule, the callback warns.

    Masks are weights of the model: what brings back the weights of an earlier epoch, as
    `EarlyStopping(restore_best_weights=True)` does, brings back its sparsity too. The callback
    warns of it, wherever it stands; `PruningCheckpoint` keeps the best model at target sparsity.

    In a training loop of your own, give it the model and call `step()` after each optimizer step.

    Args:
        model: The wrapped model, for a loop of your own only.
        data: For criteria on gradients or activations: a `tf.data.Dataset`, a
            `keras.utils.PyDataset`, a PyTorch `DataLoader`, or arrays as a tuple `(x, y)`. Each
            mask update runs the model on some batches of it.
        batches: Number of batches for each mask update.
        batch_size: Size of the batches that arrays are cut into.
        loss: For criteria on gradients where the model is not compiled: a Keras loss.

    Raises:
        ValueError: If the model has no wrapped layer, a weight turns NaN or infinite, a second
            UpdatePruningStep stands among the callbacks, or a criterion needs data and none is
            given.
        TypeError: If `model` is no Keras 3 model.

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

    def __init__(self, model=None, data=None, batches=1, batch_size=32, loss=None):
        training = PruningTraining(data=data, batches=batches, batch_size=batch_size, loss=loss)
        super().__init__(training, model)
