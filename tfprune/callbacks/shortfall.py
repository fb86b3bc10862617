"""Warnings about a training that ended with another sparsity than its schedule's."""

import numpy as np

RESTORED = (
    "EarlyStopping(restore_best_weights=True), for instance, restores the masks of its best epoch "
    "with the weights: leave it out, and keep the best model at target sparsity with "
    "tfprune.PruningCheckpoint."
)


def shortfalls(update, lookahead, steps_taken):
    """Yields `(expected, received, mend)` for each schedule that training did not complete.

    Args:
        update: The `MaskUpdate` of the model.
        lookahead: The `Lookahead` that evaluates the schedules.
        steps_taken: Whether the optimizer takes steps; it takes none without trainable weights.
    """
    for step, weights in _by_schedule(update.owners):
        schedule = weights[0].method.schedule
        held = lookahead.held(schedule, step)
        counts = update.expected_zeros([(held, weight) for weight in weights])
        if not counts:
            continue
        pruned, expected, units = (sum(count) for count in zip(*counts, strict=True))
        end = getattr(schedule, "end_step", -1)
        target = schedule.target_sparsity
        if pruned != expected:
            yield (
                f"a sparsity of {expected / units:.4f}, the schedule's own at step {step}",
                f"{pruned / units:.4f}",
                f"Other code changed the masks or the schedule. {RESTORED}",
            )
        elif step < end or (end < 0 and held < np.float32(target)):
            yield (
                f"training to reach the schedule's sparsity of {target:g}"
                + (f" at step {end}" if end >= 0 else ""),
                f"sparsity {pruned / units:.4f} at step {step}, where training ended",
                _how_to_reach(end, step, steps_taken),
            )


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
