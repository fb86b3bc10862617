"""Prunes a model at once, with masks for fine-tuning."""

from tfprune._keras.checks import check_model
from tfprune._updates.evidence import Evidence
from tfprune._updates.mask_update import MaskUpdate
from tfprune._wrapping.mask_set import keep_masks
from tfprune.prune import prune_low_magnitude
from tfprune.schedules.constant import ConstantSparsity


def one_shot(
    model,
    sparsity,
    *,
    pattern=None,
    criterion=None,
    scope=None,
    rules=None,
    data=None,
    batches=8,
    batch_size=32,
    loss=None,
    verbose=1,
):
    """Prunes a trained model at once.

    The result is wrapped. Fine-tune it with the `UpdatePruningStep` callback, which keeps the
    pruned weights at zero, then remove the wrappers with `strip_pruning`.

    Args:
        model: A built model, as in `tfprune.prune_low_magnitude`. It is copied and not changed.
        sparsity: Fraction of pruned units, in [0, 1).
        pattern: A pattern or its name; by default, single weights.
        criterion: A criterion or its name; by default, the magnitude.
        scope: A scope, a distribution, or its name; by default, "local".
        rules: List of `Rule`s that give layers their own method or exempt them.
        data: For criteria on gradients or activations: a `tf.data.Dataset`, a
            `keras.utils.PyDataset`, a PyTorch `DataLoader`, or arrays as a tuple `(x, y)`.
        batches: Number of batches of `data` to use.
        batch_size: Batch size for arrays.
        loss: A Keras loss; by default, the loss with which `model` is compiled.
        verbose: 1 shows progress over the batches, 0 does not.

    Returns:
        The pruned model, wrapped and uncompiled.

    Raises:
        ValueError: As in `tfprune.prune_low_magnitude`, and if the criterion needs data that is
            missing or does not fit the model.
        TypeError: If an argument is of the wrong kind.

    Example:

    >>> model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(4)])
    >>> pruned = tfprune.pruners.one_shot(model, 0.75, scope="global")
    >>> int(np.count_nonzero(tfprune.strip_pruning(pruned).layers[0].kernel))
    8
    """
    check_model(model)
    pruned = prune_low_magnitude(
        model,
        ConstantSparsity.one_shot(sparsity),
        pattern=pattern,
        criterion=criterion,
        scope=scope,
        rules=rules,
    )
    evidence = Evidence(
        pruned, data, batches, batch_size, loss=loss, compiled=model, verbose=verbose
    )
    update = MaskUpdate(pruned)
    weights = [weight for weight in update.weights if not weight.follows]
    evidence.check(weights)
    aims = [(weight.method.schedule.target_sparsity, weight) for weight in weights]
    update.apply(aims, evidence)
    # Otherwise the first step of fine-tuning would score again, with data it lacks.
    keep_masks(update.owners)
    return pruned
