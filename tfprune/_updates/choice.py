"""The choice of a new mask, which waits until all others are made."""

from dataclasses import dataclass

from tfprune import _keras
from tfprune.masks import Competitor, DeviceMask


@dataclass(frozen=True)
class Choice:
    """The new mask of one competitor, before it is assigned.

    Attributes:
        competitor: The `Competitor`.
        copies: Tuple of `(request, units that are kept)`: one for each replica, or for all.
        threshold: The highest score that goes; `None` if nothing changes.
    """

    competitor: Competitor
    copies: tuple
    threshold: float | None

    @property
    def changes(self):
        """Whether the mask differs from the present one."""
        # Masks are nested, so an equal count means an equal mask.
        request, kept = self.copies[0]
        return kept.size - kept.count() != request.zeros_now

    def assign(self):
        """Gives the competitor its mask."""
        if len(self.copies) == 1:
            self._assign(0)
        else:
            _keras.in_each_replica(self.competitor.scored[0].variable, self._assign)

    def _assign(self, number):
        request, kept = self.copies[number]
        known = (request.zeros_of(kept),) if isinstance(kept, DeviceMask) else ()
        self.competitor.set_mask(request.spread(kept), *known)
