"""Searches among the candidates of one model."""

from tfprune import _keras
from tfprune._base.registration import PartRegistry
from tfprune._updates.recalibration import Recalibration
from tfprune.pruners.search.base import Search
from tfprune.pruners.search.session import Session
from tfprune.pruners.search.settling import settled

SEARCHES = PartRegistry("method", "tfprune.pruners", default="sensitivity", saved=False)


class CandidateSearch(Search):
    """Base class of searches among the candidates of one model.

    Candidates are one copy of the model with other numbers of units pruned. Units are scored once;
    a candidate costs one assignment of masks and one evaluation.
    """

    def _found(self, judge, store, train, verbose):
        candidates = self._candidates()
        _keras.compile_like(candidates.model, self.model)
        recalibration = None
        if self._recalibrates:
            objective = self.objective
            recalibration = Recalibration(
                candidates.model, self.data, objective.batches, objective.batch_size
            )
        session = Session(
            candidates, self._allocator, judge, store, train, recalibration, self.seed, verbose
        )
        try:
            zeros = self._search(session)
        finally:
            session.finished()
        method = {
            "pattern": self.pattern,
            "criterion": self.criterion,
            "rules": self.rules,
        }
        parts = {"method": type(self).__name__, "metric": self.objective.metric}
        removes = self._removes_filters
        return settled(session, self.budget, removes, method, zeros, parts, self._where)

    def _search(self, session):
        """Returns the numbers of pruned units that were found, trained where it can be."""
        raise NotImplementedError(f"{type(self).__name__} has to search.")
