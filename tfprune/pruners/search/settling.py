"""The candidate that a search chose, made into models whose cost is measured."""

import numpy as np

from tfprune import _keras
from tfprune._base import validation as check
from tfprune._reports import prunable_weights
from tfprune._updates.mask_update import MaskUpdate
from tfprune._wrapping.mask_set import keep_masks
from tfprune._wrapping.strip import strip_pruning
from tfprune.prune import prune_low_magnitude
from tfprune.pruners.search.result import LayerShare, SearchResult
from tfprune.schedules.constant import ConstantSparsity
from tfprune.structural.allocation import Budget
from tfprune.structural.optimizer_state import compile_copy, compile_smaller
from tfprune.structural.silent_channels import plan_removal

_TRIES = 12
# Removes a little more than is missing, so that rounding to whole units cannot stall the loop.
_CLOSER = 0.995


def settled(session, budget, removes, method, zeros, parts, where):
    """Makes the model that a search chose, and measures its costs.

    Args:
        session: The `Session` of the search.
        budget: `{name: number}`, as the user gave it.
        removes: Whether the pruned units are filters that are removed.
        method: `{"pattern", "criterion", "rules"}` with which the model was wrapped.
        zeros: The numbers of pruned units that were found.
        parts: `{"method", "metric"}` of the result.
        where: `{"runtime", "threads"}` in which a latency is measured.

    Returns:
        A `SearchResult`.

    Raises:
        ValueError: If the measured model cannot be made to meet the budget.
    """
    candidates, small = session.candidates, None
    zeros, costs = list(zeros), session.allocator.costs(zeros)
    if removes:
        zeros, small, costs = _smaller(session, Budget(budget, session.dense), zeros, where)
    allocation = shares(candidates, zeros)
    known = [trial for trial in session.trials if trial.zeros == tuple(zeros)]
    found = SearchResult(
        **parts,
        budget=dict(budget),
        dense=session.dense,
        costs=costs,
        allocation=allocation,
        trials=list(session.trials),
        best=known[-1] if known else None,
    )
    found.pruned = _wrapped(session.model_with(zeros), method, found)
    found.model = found.pruned if small is None else small
    return found


def shares(candidates, zeros):
    """Returns a `LayerShare` for each competitor of a model.

    Args:
        candidates: The `Candidates`.
        zeros: Pruned units of each competitor.
    """
    paths = {id(w.variable): w.path for w in prunable_weights.find(candidates.model)}
    return tuple(
        LayerShare(
            request.name,
            tuple(dict.fromkeys(paths[id(weight.variable)] for weight in competitor.scored)),
            request.units,
            gone,
        )
        for request, competitor, gone in zip(
            candidates.requests, candidates.competitors, zeros, strict=True
        )
    )


def _smaller(session, budget, zeros, where):
    """Removes the pruned filters, and more of them until the measured costs are in the budget.

    Counting and measuring may differ a little: a channel may have to stay because it is another
    constant than zero, and a machine is not always equally fast. Then all densities are lowered by
    one factor.

    Returns:
        The numbers of pruned units, the smaller model, and `{name: cost}`.
    """
    allocator, factor = session.allocator, 1.0
    round_to = session.candidates.requests[0].pattern.round_to
    for _ in range(_TRIES):
        wrapped = session.model_with(zeros)
        plain = strip_pruning(wrapped)
        plan = plan_removal(plain, round_to)
        costs = _measured(plan, allocator.costs(zeros), budget, session.dense, where)
        load = budget.load(costs)
        if load <= 1:
            return zeros, compile_smaller(plan, plain, wrapped), costs
        factor *= _CLOSER / load
        kept = [(n - z) / n for n, z in zip(allocator.units, zeros, strict=True)]
        tighter = allocator.tightened(factor)
        if tighter is None:
            break
        zeros = tighter.project(np.log(kept))
    raise ValueError(
        check.message(
            f"a model that meets the budget {budget} when it is measured",
            f"{load:.3g} times the budget",
            "Raise the budget; latency varies less on an idle machine.",
        )
    )


def _measured(plan, counted, budget, dense, where):
    costs = {
        "sparsity": counted["sparsity"],
        "parameters": plan.after.parameters,
        "macs": plan.after.macs,
    }
    if "latency" in budget.targets:
        seconds = plan.latency(**where)
        ratio = seconds["after"].median / seconds["before"].median
        costs["latency"] = ratio * dense["latency"]
    return costs


def _wrapped(candidate, method, found):
    """Returns a model with the masks of a candidate, compiled alike, whose method keeps them."""
    new = prune_low_magnitude(
        strip_pruning(candidate),
        ConstantSparsity.one_shot(found.sparsity),
        scope=found.to_distribution(),
        **method,
    )
    update = MaskUpdate(new)
    for weight, other in zip(update.weights, MaskUpdate(candidate).weights, strict=True):
        weight.set_mask(np.array(_keras.host_array(other.mask)))
    keep_masks(update.owners)
    return compile_copy(new, candidate)
