"""Connections dropped and grown: new masks with as many zeros as before."""

from dataclasses import replace

from keras import ops

from tfprune.masks import keep_device_masks, masks_with_zeros


def exchanged_on_host(weights, fractions, criteria, found):
    """Computes the masks of an exchange.

    Args:
        weights: List of `PrunedWeight`s.
        fractions: List of the shares of active units to drop, one for each weight, in [0, 1).
        criteria: Pair `(drop, grow)`.
        found: The evidence for each of both.

    Returns:
        `[(weight, mask, zeros, grown)]` for weights that exchange connections: the mask, how many
        weights it prunes or `None`, and where it keeps weights that were pruned before.
    """
    (drop, grow), computed = criteria, []
    for position, (weight, fraction) in enumerate(zip(weights, fractions, strict=True)):
        before = weight.request(found[0], position, drop)
        zeros, number = before.zeros_now, _dropped(before, fraction)
        if not number:
            continue
        (kept,), _ = masks_with_zeros([before], zeros + number)
        between = replace(
            before,
            criterion=grow,
            mask=before.spread(kept),
            evidence=found[1].get(id(weight), {}),
        )
        (kept,), _ = masks_with_zeros([between], zeros)
        mask = before.spread(kept)
        computed.append((weight, mask, None, mask & ~before.mask))
    return computed


def exchanged_on_device(weights, fractions, criteria, found):
    """The same as `exchanged_on_host` with tensors for arrays, all weights together."""
    moving = []
    for weight, fraction in zip(weights, fractions, strict=True):
        before = weight.device_request(found[0], criteria[0])
        number = _dropped(before, fraction)
        if number:
            moving.append((weight, before, number))
    if not moving:
        return []
    dropped = keep_device_masks(
        [([before.device_scores(True)], number) for _, before, number in moving]
    )
    growing = []
    for (weight, before, _), ((kept,), _) in zip(moving, dropped, strict=True):
        request = weight.device_request(found[1], criteria[1])
        between = replace(request, mask=before.spread(kept), pruned_weights=kept.zeros)
        growing.append(([between.device_scores(False)], before.zeros_now))
    computed = []
    for (weight, before, _), ((kept,), _) in zip(moving, keep_device_masks(growing), strict=True):
        mask = before.spread(kept)
        grown = ops.logical_and(mask, ops.logical_not(before.mask))
        computed.append((weight, mask, before.zeros_of(kept), grown))
    return computed


def _dropped(request, fraction):
    """How many units of a weight are dropped; 0 if it has none to exchange."""
    zeros = request.zeros_now
    number = min(int((request.units - zeros) * fraction), request.most_zeros - zeros)
    return number if zeros and number > 0 else 0
