"""The candidate that a search chose, made into a model whose cost is measured."""

import numpy as np

from tfprune._base import validation as check
from tfprune._channels.graph import plain
from tfprune.structural.silent_channels import planned

_TRIES = 12
# A little more than what is missing, so that rounding to whole units does not stop it.
_CLOSER = 0.995


class Settled:
    """The candidate that a search chose, with what it costs.

    Of groups of filters, the smaller model is made and measured. Counting and measuring may differ
    a little: a channel may have to stay because it is another constant than zero, and a machine is
    not always equally fast. Then all densities are lowered by one factor until the budget is met.

    Args:
        session: The `Session` of a search.
        budget: The `Budget`.
        dense: `{name: cost}` of the model as it is.
        step: Keep a multiple of so many channels; `None` if filters are not removed.
        zeros: The numbers of pruned units that were found.

    Attributes:
        zeros: Those with which the budget is met.
        model: The smaller model, or `None`.
        costs: `{name: cost}`.
        budget: The targets of the budget.
        dense: As given.

    Raises:
        ValueError: If the measured model cannot be made to meet the budget.
    """

    def __init__(self, session, budget, dense, step, zeros):
        self.budget, self.dense = budget.targets, dense
        self.zeros, self.model = list(zeros), None
        allocator = session.allocator
        self.costs = allocator.costs(self.zeros)
        if step is None:
            return
        factor = 1.0
        for _ in range(_TRIES):
            plan = planned(plain(session.model_with(self.zeros)), step)
            self.model, self.costs = plan.apply(), _measured(plan, self.costs, budget, dense)
            load = budget.load(self.costs)
            if load <= 1:
                return
            factor *= _CLOSER / load
            kept = [(n - z) / n for n, z in zip(allocator.units, self.zeros, strict=True)]
            tighter = allocator.tightened(factor)
            if tighter is None:
                break
            self.zeros = tighter.project(np.log(kept))
        raise ValueError(
            check.message(
                f"a model that meets the budget {budget} when it is measured",
                f"{load:.3g} times the budget",
                "Raise the budget; latency varies less on a machine that does nothing else.",
            )
        )


def _measured(plan, counted, budget, dense):
    costs = {
        "sparsity": counted["sparsity"],
        "parameters": plan.after.parameters,
        "macs": plan.after.macs,
    }
    if "latency" in budget.targets:
        seconds = plan.latency()
        ratio = seconds["after"].median / seconds["before"].median
        costs["latency"] = ratio * dense["latency"]
    return costs
