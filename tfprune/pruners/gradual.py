"""Automated gradual pruning with any recipe."""

from tfprune._base import validation as check
from tfprune.prune import prune_low_magnitude
from tfprune.pruners import recipes
from tfprune.schedules.ramps import PolynomialDecay


def agp(
    model,
    sparsity,
    end_step=None,
    *,
    recipe="level",
    initial_sparsity=0.0,
    begin_step=0,
    frequency=None,
    epochs=None,
    steps_per_epoch=None,
    rules=None,
    data=None,
):
    """Wraps a model so that training prunes it by a recipe, along a cubic curve.

    Train the model with `UpdatePruningStep`, which recomputes the criterion at each update.
    Recipes that need data also need `UpdatePruningStep(data=...)`.

    Args:
        model: A built model. It is copied and not changed.
        sparsity: Fraction of pruned units at the end, in [0, 1).
        end_step: Optimizer step at which `sparsity` is reached. Pass either `end_step` or
            `epochs`.
        recipe: Name of a one-shot pruner of `tfprune.pruners`: "level", "slim", "fpgm",
            "l1_filter", "l2_filter", "activation_apoz_rank", "activation_mean_rank" or
            "taylor_fo_weight".
        initial_sparsity: Fraction of pruned units at the beginning, in [0, 1).
        begin_step: Optimizer step of the first update. With `epochs`, it needs
            `steps_per_epoch`.
        frequency: Optimizer steps between updates. By default 100; with `epochs` alone, as in
            `PolynomialDecay.from_epochs`.
        epochs: Number of epochs until the sparsity is reached.
        steps_per_epoch: Optimizer steps in an epoch. Without it, `fit` finds the number when it
            begins.
        rules: List of `Rule`s for exceptions.
        data: For "slim" on a subclassed model: data to run the model on once.

    Returns:
        The wrapped model, uncompiled.

    Raises:
        ValueError, TypeError: As in `tfprune.prune_low_magnitude`, if the recipe is unknown, or
            if the end is not given in exactly one way.

    Example:

    >>> model = keras.Sequential([keras.Input((8, 8, 3)), keras.layers.Conv2D(8, 3)])
    >>> pruned = tfprune.pruners.agp(
    ...     model, 0.5, recipe="l1_filter", epochs=2)
    >>> pruned.layers[0].pruned_weights[0].method.schedule.end_epoch
    2

    Reference:

    - [Zhu & Gupta, 2017: To prune, or not to prune](https://arxiv.org/abs/1710.01878)
    """
    schedule = _schedule(
        initial_sparsity, sparsity, begin_step, end_step, frequency, epochs, steps_per_epoch
    )
    parts = recipes.get(recipe).parts(model, rules, data)
    return prune_low_magnitude(model, schedule, **parts)


def _schedule(initial, final, begin_step, end_step, frequency, epochs, steps_per_epoch):
    received = f"end_step={end_step!r}, epochs={epochs!r}, steps_per_epoch={steps_per_epoch!r}"
    if (epochs is None) == (end_step is None) or (epochs is None and steps_per_epoch is not None):
        raise ValueError(
            check.message(
                "either `end_step` or `epochs`",
                received,
                "Pass exactly one of the two; `steps_per_epoch` belongs to `epochs`.",
            )
        )
    if epochs is not None:
        mend = "Pass a whole number of at least 1."
        epochs = check.integer("epochs", epochs, 1, mend)
        if steps_per_epoch is None:
            return _by_epochs(initial, final, begin_step, frequency, epochs)
        end_step = epochs * check.integer("steps_per_epoch", steps_per_epoch, 1, mend)
    frequency = 100 if frequency is None else frequency
    return PolynomialDecay(initial, final, begin_step, end_step, 3, frequency)


def _by_epochs(initial, final, begin_step, frequency, epochs):
    if begin_step != 0:
        raise ValueError(
            check.message(
                "`begin_step` to be 0 while the number of steps in an epoch is unknown",
                f"begin_step={begin_step!r}, epochs={epochs!r}, steps_per_epoch=None",
                "Pass steps_per_epoch=len(dataset) too.",
            )
        )
    chosen = {} if frequency is None else {"frequency": frequency}
    return PolynomialDecay.from_epochs(initial, final, end_epoch=epochs, **chosen)
