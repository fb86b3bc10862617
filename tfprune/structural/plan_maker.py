"""Makes the plans of candidates, by sparsity or by numbers of pruned channels."""

from tfprune.structural.costs import Costs
from tfprune.structural.targets import filled, search, share


class PlanMaker:
    """Makes the plans of candidates.

    Args:
        candidates: `Candidates`.
        make_plan: Function from a wrapped model to its `ShrinkPlan`.
        uniform: Whether all groups of one size have to lose the same number of channels.
    """

    def __init__(self, candidates, make_plan, uniform=False):
        self._candidates, self._make, self._uniform = candidates, make_plan, uniform

    def at(self, sparsity):
        """Returns the plan at a sparsity under the scope."""
        pruned = self._candidates.at(sparsity)
        return self._described(self._make(pruned), self._candidates.zeros_at(sparsity))

    def counted(self, model, targets):
        """Finds the plan that meets targets in MACs and parameters with the least pruning.

        Args:
            model: The plain model.
            targets: `{"macs" or "parameters": fraction or number}`.

        Returns:
            `(sparsity, ShrinkPlan)`: the lowest sparsity under the scope that meets the targets,
            and the plan, which may give channels back.
        """
        costs = Costs(model, self._candidates)
        sparsity, plan = search(self._candidates, costs, targets, self.at)
        if self._candidates.is_coarse and not self._uniform:
            zeros = self._candidates.zeros_at(sparsity)
            fewer = filled(self._candidates, costs, targets, zeros)
            fuller = self._described(self._make(self._candidates.with_zeros(fewer)), fewer)
            # Counting assumes that all pruned channels can be removed.
            if share(fuller, targets) <= 1:
                plan = fuller
        return sparsity, plan

    def _described(self, plan, zeros):
        units = sum(request.units for request in self._candidates.requests)
        plan.sparsity = sum(zeros) / units
        plan.shares = self._candidates.shares(zeros)
        return plan
