"""Normalization that makes scores of layers of different scale comparable."""

from dataclasses import replace

import numpy as np

from tfprune.criteria.weights import lamp_scores

NORMALIZATIONS = ("mean", "max", "lamp")

_PIECE = 1 << 18


def normalized(scores, how):
    """Returns `Scores` in the same order, on a scale that all layers share.

    Pruned units count too, with the score of zeros: as a layer gets sparser, its mean falls, which
    raises the scores of its remaining units.

    Args:
        scores: The `Scores` to normalize.
        how: "mean" or "max" divides by the mean or maximum of the absolute scores; "lamp" divides
            each score by the sum of all scores that are not smaller, itself included; `None`
            changes nothing.
    """
    if how is None:
        return scores
    everything = replace(scores, candidates=None)
    if how == "lamp":
        values = everything.read(slice(None), checked=True).astype("float64")
        # Scores below zero move all of them up, which preserves their order.
        return replace(
            scores, values=lamp_scores(values - min(0.0, values.min(initial=0.0))), score=None
        )
    pieces = (
        np.abs(everything.read(slice(start, start + _PIECE), checked=True))
        for start in range(0, scores.size, _PIECE)
    )
    if how == "max":
        divisor = max((float(piece.max()) for piece in pieces), default=0.0)
    else:
        divisor = sum(float(piece.sum(dtype="float64")) for piece in pieces) / max(1, scores.size)
    if divisor == 0:
        return scores
    score = scores.score
    return replace(
        scores, score=lambda first, *more: (score(first, *more) if score else first) / divisor
    )
