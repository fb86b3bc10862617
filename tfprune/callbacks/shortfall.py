"""Warnings about masks whose sparsity is not that of their schedule."""

import numpy as np

RESTORED = (
    "EarlyStopping(restore_best_weights=True), for instance, restores the masks of its best epoch "
    "with the weights: leave it out, and keep the best model at target sparsity with "
    "tfprune.PruningCheckpoint."
)

# Units that an equal share would leave to a layer of which a scope leaves a single one.
_SHARE = 100


def shortfalls(update, lookahead, steps_taken, resumed=False):
    """Yields `(expected, received, mend)` for each schedule that training did not complete.

    Args:
        update: The `MaskUpdate` of the model.
        lookahead: The `Lookahead` that evaluates the schedules.
        steps_taken: Whether the optimizer takes steps; it takes none without trainable weights.
        resumed: Whether training began with masks of a file that another schedule made.
    """
    for step, schedule, pruned, expected, held in _sparsities(update, lookahead):
        end = getattr(schedule, "end_step", -1)
        target = schedule.target_sparsity
        if pruned != expected:
            yield (
                f"a sparsity of {expected:.4f}, the schedule's own at step {step}",
                f"{pruned:.4f}",
                _how_to_resume(schedule, step, pruned)
                if resumed
                else f"Other code changed the masks or the schedule. {RESTORED}",
            )
        elif step < end or (end < 0 and held < np.float32(target)):
            yield (
                f"training to reach the schedule's sparsity of {target:g}"
                + (f" at step {end}" if end >= 0 else ""),
                f"sparsity {pruned:.4f} at step {step}, where training ended",
                _how_to_reach(end, step, steps_taken),
            )


def made_by_others(update, lookahead):
    """Yields `(expected, received, mend)` for each schedule that has ended in another sparsity.

    Masks from a file are those of the schedule that the file was saved with. If the model was
    wrapped with another one, which has no update left at this step, they stay as they are.
    """
    for step, schedule, pruned, expected, _ in _sparsities(update, lookahead):
        if pruned != expected and 0 <= getattr(schedule, "end_step", -1) <= step:
            yield (
                f"a sparsity of {expected:.4f}, the schedule's own at step {step}",
                f"{pruned:.4f}, from the file that training resumes from",
                _how_to_resume(schedule, step, pruned),
            )


def emptied(update, lookahead):
    """Yields `(expected, received, mend)` where a scope left a single unit to large layers.

    Nothing that a network could use passes through such a layer, and no later training mends it.
    Under a scope that gives each layer its share, a layer never loses nearly all of it alone.
    """
    for step, weights in _by_schedule(update.owners):
        held = lookahead.held(weights[0].method.schedule, step)
        for known in update.competitions([(held, weight) for weight in weights]):
            names = [
                request.name
                for request in known.requests(masks_on=update.masks_on)
                if request.units - request.zeros_now == 1 and request.units * (1 - held) >= _SHARE
            ]
            if names:
                yield (
                    "weights left in every layer",
                    f"a single one in {_shown(names)}, under {known.scope!r} at "
                    f"{held:.4g}, so that nearly nothing passes through",
                    "Cap the sparsity of each layer, scope=tfprune.scopes.Global("
                    'max_sparsity=0.99) for instance, or divide it with scope="erdos_renyi_kernel"'
                    ". An untrained model often has layers whose weights are all smaller than "
                    "those of others.",
                )


def _shown(names, most=3):
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def _how_to_reach(end, step, steps_taken):
    if not steps_taken:
        return (
            "The model has no trainable weights, so the optimizer takes no steps: unfreeze a "
            "layer, or prune at once with tfprune.ConstantSparsity.one_shot(sparsity)."
        )
    if end < 0:
        return "Train for longer."
    return (
        f"Train for {end - step} more optimizer steps, or lower end_step; "
        "from_epochs(..., steps_per_epoch=...) counts in epochs."
    )


def _how_to_resume(schedule, step, pruned):
    return (
        "The file was saved with another schedule than that of this model, which has no update "
        "left to make. Wrap the model with the schedule of the file, or with one that goes on from "
        f"there: tfprune.PolynomialDecay({pruned:.4g}, {schedule.target_sparsity:g}, "
        f"begin_step={step}, end_step=...)."
    )


def _sparsities(update, lookahead):
    """Yields `(step, schedule, sparsity, the schedule's sparsity, as it was asked for)`.

    The third and the fourth are counted in whole units.
    """
    for step, weights in _by_schedule(update.owners):
        schedule = weights[0].method.schedule
        held = lookahead.held(schedule, step)
        counts = update.expected_zeros([(held, weight) for weight in weights])
        if counts:
            pruned, expected, units = (sum(count) for count in zip(*counts, strict=True))
            yield step, schedule, pruned / units, expected / units, held


def _by_schedule(owners):
    """Yields `(step, weights)` for weights at the same step of the same schedule."""
    found: list = []
    for owner in owners:
        step = owner.mask_set.step
        for weight in owner.mask_set.weights:
            for known, weights in found:
                if known == step and weights[0].method.same_competition(weight.method):
                    weights.append(weight)
                    break
            else:
                found.append((step, [weight]))
    return found
