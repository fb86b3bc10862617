"""Masks of several groups of requests, on the host or where the weights are."""

from tfprune.masks.device import (
    DeviceMask,
    DeviceRequest,
    check_device_scores,
    keep_device_masks,
)
from tfprune.masks.requests import masks_with_zeros
from tfprune.masks.selection import Workers


def masks_in_groups(groups):
    """Computes masks with so many pruned units in each group of requests.

    Args:
        groups: List of `(requests, zeros, normalizations)` as `masks_with_zeros` takes them.

    Returns:
        List of `(kept, threshold)`, one for each group: `kept` has `Bits` for each request, or a
        `DeviceMask` for each `DeviceRequest`.
    """
    if all(isinstance(request, DeviceRequest) for requests, _, _ in groups for request in requests):
        return _on_device(groups)
    for requests, zeros, _ in groups:
        for request in requests if zeros != sum(r.zeros_now for r in requests) else ():
            request.begin()
    with Workers(sum(r.weight.size for requests, _, _ in groups for r in requests)) as workers:
        return workers.map(_on_host, groups)


def _on_host(group):
    requests, zeros, normalizations = group
    return masks_with_zeros(requests, zeros, normalizations, packed=True)


def _on_device(groups):
    results: list = [None] * len(groups)
    changing: dict = {True: [], False: []}
    same = []
    for place, (requests, zeros, _) in enumerate(groups):
        now = sum(request.zeros_now for request in requests)
        if zeros == now:
            same += [request.weight_alone() for request in requests]
            kept = [DeviceMask(None, r.units, r.zeros_now) for r in requests]
            results[place] = kept, None
            continue
        rising = zeros > now
        scores = [request.device_scores(rising) for request in requests]
        changing[rising].append((place, (scores, zeros - now if rising else zeros)))
    if same:
        check_device_scores(same)
    for found in changing.values():
        if found:
            masks = keep_device_masks([group for _, group in found])
            for (place, _), result in zip(found, masks, strict=True):
                results[place] = result
    return results
