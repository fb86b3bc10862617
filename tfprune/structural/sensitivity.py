"""Targets met by the layers that lose least: `shrink(..., allocation="sensitivity")`."""

import numpy as np

from tfprune._base import validation as check
from tfprune._updates.recalibration import Recalibration, learning_norms
from tfprune.structural.allocation import Allocator, levels, tolerated
from tfprune.structural.costs import Costs
from tfprune.structural.targets import budget_of, share

# The smallest share that every group keeps of its channels at the same density everywhere.
_LEAST = 0.25
_LEVELS = 8
_TRIES = 12


def search_by_sensitivity(candidates, model, targets, make_plan, evidence):
    """Finds the pruned filters with which all targets are met at the smallest loss of one group.

    Args:
        candidates: `Candidates`.
        model: The plain model.
        targets: `{"macs" or "parameters": fraction or number}`.
        make_plan: Function from a model to its `ShrinkPlan`.
        evidence: `{"data", "batches", "batch_size"}`.

    Returns:
        The `ShrinkPlan`.
    """
    if "latency" in targets:
        raise ValueError(
            check.message(
                "targets in macs or parameters for allocation='sensitivity'",
                f"targets={targets!r}",
                "Use tfprune.pruners.SensitivitySearch, which takes a latency.",
            )
        )
    costs = Costs(model, candidates)
    allocator = Allocator(candidates, costs, budget_of(costs, targets), _LEAST)
    loss = candidates.loss_meter()
    recalibration = None
    if learning_norms(candidates.model):
        parts = {name: evidence[name] for name in ("data", "batches", "batch_size")}
        recalibration = Recalibration(candidates.model, **parts)

    def made(zeros):
        pruned = candidates.with_zeros(zeros)
        if recalibration is not None:
            recalibration()
        return pruned

    curves = []
    for i, numbers in enumerate(levels(allocator, _LEVELS)):
        curve = []
        for number in numbers:
            zeros = list(allocator.now)
            zeros[i] = number
            made(zeros)
            curve.append((number, loss()))
        curves.append(curve)
    zeros, factor = tolerated(allocator, curves), 1.0
    for _ in range(_TRIES):
        plan = make_plan(made(zeros))
        plan.sparsity = sum(zeros) / sum(allocator.units)
        plan.shares = candidates.shares(zeros)
        missed = share(plan, targets)
        if missed <= 1:
            return plan
        factor *= 0.995 / missed
        tighter = allocator.tightened(factor)
        if tighter is None:
            break
        zeros = tighter.project(
            np.log([1 - z / n for z, n in zip(zeros, allocator.units, strict=True)])
        )
    raise ValueError(
        check.message(
            "targets that can be reached by removing channels",
            f"targets={targets!r}, while the best model found has {missed:.3g} times as much",
            "Raise the targets, or free more layers: plan_shrink(model) lists what is kept.",
        )
    )
