"""What the rounds of a lottery ticket found: models, a table, a plot."""

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
        round: Its number; 0 is the dense model.
        sparsity: Fraction of zeros among the weights that are pruned, as asked.
        zeros: How many weights are pruned.
        parameters: Of how many.
        metrics: What training returned, `{name: number}`.
    """

    round: int
    sparsity: float
    zeros: int
    parameters: int
    metrics: dict


class Tickets:
    """What the rounds of `LotteryTicket.run` found. Its text is a table.

    Attributes:
        control: `None`, "random_masks" or "random_reinit".
        rounds: List of `TicketRound`, the dense one first.
    """

    def __init__(self, lottery, store, control):
        self._lottery = lottery
        self._store = store
        self.control = control
        self.rounds = [
            TicketRound(
                round, lottery.sparsity_of(round), **store.data(record_name(round, control))
            )
            for round in range(lottery.rounds + 1)
        ]

    def ticket(self, round=-1, trained=False):
        """Returns the wrapped model of a round.

        Args:
            round: Number of the round; negative ones count from the last.
            trained: Whether it has the weights after the round's training; by default those before
                it: rewound and masked.

        Raises:
            ValueError: If there is no such round.
        """
        if not -len(self.rounds) <= round < len(self.rounds):
            raise ValueError(
                check.message(
                    f"`round` from 0 to {len(self.rounds) - 1}", f"{round=}", "Choose one of these."
                )
            )
        round %= len(self.rounds)
        arrays = self._store.arrays(record_name(round, self.control))
        masks = self._lottery.unpack(arrays["masks"])
        if trained:
            weights = arrays["trained"]
        else:
            weights = self._lottery.start_of(round, self.control, self._store)
        return self._lottery.model_of(round, self._store, weights, masks)

    def stripped(self, round=-1, trained=True):
        """Returns the model of a round without wrappers, exactly sparse.

        Args:
            round: Number of the round; negative ones count from the last.
            trained: Whether it has the weights after the round's training, or those before it.
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
            metric: Name of the metric, "accuracy" for instance.
            *others: Further `Tickets`, the controls for instance, to draw beside these.
            path: Where to save the picture, as PNG, PDF or SVG by the ending; `None` saves
                nothing.
            ax: matplotlib axes to draw on; those of a new figure if `None`.

        Returns:
            The `matplotlib.figure.Figure`.

        Raises:
            ValueError: If there is no such metric.
            ImportError: If matplotlib is not installed.
        """
        for tickets in (self, *others):
            check.choice("metric", metric, tickets._metrics())
        return rounds.draw([self, *others], metric, path, ax)


def record_name(round, control=None):
    """Returns what the record of a round is called."""
    return f"{control or 'round'}_{round:02}"
