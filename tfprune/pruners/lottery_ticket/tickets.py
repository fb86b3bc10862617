"""The results of lottery ticket rounds: models, a table, a plot."""

from dataclasses import dataclass

from rich.table import Table

from tfprune._base import validation as check
from tfprune._base.text import as_text
from tfprune._wrapping.strip import strip_pruning
from tfprune.plots import rounds


@dataclass(frozen=True)
class TicketRound:
    """One round of a lottery ticket.

    Attributes:
        round: Number of the round; 0 is the dense model.
        sparsity: Requested fraction of zeros among the prunable weights.
        zeros: Number of pruned weights.
        parameters: Number of prunable weights.
        metrics: `{name: number}` returned by training.
    """

    round: int
    sparsity: float
    zeros: int
    parameters: int
    metrics: dict


class Tickets:
    """The results of `LotteryTicket.run`. `str(tickets)` is a table.

    Attributes:
        control: `None`, "random_masks" or "random_reinit".
        rounds: List of `TicketRound`, the dense round first.
    """

    def __init__(self, lottery, store, control):
        self._lottery = lottery
        self._store = store
        self.control = control
        self.rounds = []
        for round in range(lottery.rounds + 1):
            name = record_name(round, control)
            with store.reading(name):
                found = TicketRound(round, lottery.sparsity_of(round), **store.data(name))
            self.rounds.append(found)

    def ticket(self, round=-1, trained=False):
        """Returns the wrapped model of a round.

        Args:
            round: Number of the round; negative numbers count from the last.
            trained: `True` for the weights after the round's training, `False` for the rewound
                and masked weights before it.

        Raises:
            ValueError: If the round does not exist.
        """
        if not -len(self.rounds) <= round < len(self.rounds):
            raise ValueError(
                check.message(
                    f"`round` from 0 to {len(self.rounds) - 1}", f"{round=}", "Choose one of these."
                )
            )
        round %= len(self.rounds)
        name = record_name(round, self.control)
        with self._store.reading(name):
            arrays = self._store.arrays(name)
            masks = self._lottery.unpack(arrays["masks"])
            if trained:
                weights = arrays["trained"]
            else:
                weights = self._lottery.start_of(round, self.control, self._store)
            return self._lottery.model_of(round, self._store, weights, masks)

    def stripped(self, round=-1, trained=True):
        """Returns the stripped model of a round, in which pruned weights are exactly zero.

        Args:
            round: Number of the round; negative numbers count from the last.
            trained: `True` for the weights after the round's training, `False` for those before.
        """
        return strip_pruning(self.ticket(round, trained))

    def table(self):
        """Returns the rounds as a `rich.table.Table`."""
        table = Table(title="Lottery tickets" + (f", {self.control}" if self.control else ""))
        names = self._metrics()
        for name in ("Round", "Sparsity", "Weights left", *names):
            table.add_column(name, justify="right")
        for one in self.rounds:
            numbers = [f"{one.metrics[n]:.4f}" if n in one.metrics else "" for n in names]
            left = f"{one.parameters - one.zeros:,}"
            table.add_row(str(one.round), f"{one.zeros / one.parameters:.2%}", left, *numbers)
        return table

    def __str__(self):
        return as_text(self.table())

    def _metrics(self):
        return list(dict.fromkeys(name for one in self.rounds for name in one.metrics))

    def plot(self, metric, *others, path=None, ax=None):
        """Draws a metric against the sparsity.

        Needs matplotlib: `pip install "tfprune[plots]"`.

        Args:
            metric: Name of the metric, for instance "accuracy".
            *others: Further `Tickets` to draw in the same plot, for instance the controls.
            path: File to save the plot to; its suffix selects PNG, PDF or SVG. `None` saves
                nothing.
            ax: matplotlib axes to draw on; `None` makes a new figure.

        Returns:
            The `matplotlib.figure.Figure`.

        Raises:
            ValueError: If the metric does not exist.
            ImportError: If matplotlib is not installed.
        """
        for tickets in (self, *others):
            check.choice("metric", metric, tickets._metrics())
        return rounds.draw([self, *others], metric, path, ax)


def record_name(round, control=None):
    """Returns the name of the record of a round."""
    return f"{control or 'round'}_{round:02}"
