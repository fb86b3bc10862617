"""The result of a search: a model, a table, a plot, and the allocation for gradual training."""

import dataclasses
from typing import Any

from rich.table import Table

from tfprune._base import globs
from tfprune._base import validation as check
from tfprune._base.text import as_text
from tfprune._wrapping.methods import Rule
from tfprune.distributions import PerLayer
from tfprune.plots import search as drawing

_ENDS = ("final_sparsity", "target_sparsity")


@dataclasses.dataclass(frozen=True)
class LayerShare:
    """The share that one layer, or one group of coupled filters, loses.

    Attributes:
        name: Name of its first weight.
        layers: Paths of its layers.
        units: Number of its units.
        zeros: Number of pruned units.
    """

    name: str
    layers: tuple
    units: int
    zeros: int

    @property
    def share(self):
        """Share of pruned units."""
        return self.zeros / self.units


@dataclasses.dataclass(eq=False)
class SearchResult:
    """The result of a search. Its text is a table.

    Attributes:
        method: Name of the search.
        metric: Name of the metric that was compared.
        budget: The budget, as given.
        dense: `{"sparsity", "parameters", "macs"}` of the model before, and "latency" if the
            budget has it.
        costs: The same of the result, as measured.
        allocation: Tuple of `LayerShare`s, one for each layer or group of filters.
        trials: List of `Trial`s, one for each evaluation.
        best: The `Trial` of the allocation found; `None` if exactly this one was not evaluated.
        model: The model found. For filters that can be removed, the smaller one, plain;
            for all other patterns, the wrapped one: fine-tune it with `UpdatePruningStep`. It is
            compiled like the searched model. If the search trains, its optimizer keeps its state of
            the remaining weights.
        pruned: The wrapped model in both cases; `None` after `AutoCompress`, which removes filters
            in every round.
    """

    method: str
    metric: str
    budget: dict
    dense: dict
    costs: dict
    allocation: tuple
    trials: list
    best: Any = None
    model: Any = None
    pruned: Any = None

    @property
    def sparsity(self):
        """Share of pruned units in all."""
        return sum(row.zeros for row in self.allocation) / sum(row.units for row in self.allocation)

    @property
    def shares(self):
        """`{name: share}` of pruned units; a group of filters has the name of its first layer."""
        return {row.name.rpartition("/")[0]: row.share for row in self.allocation}

    def to_distribution(self):
        """Returns the allocation as a `PerLayer` distribution, for gradual training.

        Example:

        >>> model = keras.Sequential([
        ...     keras.Input((8,)), keras.layers.Dense(8), keras.layers.Dense(8),
        ...     keras.layers.Dense(2)])
        >>> search = tfprune.pruners.SimulatedAnnealing(model, {"macs": 0.5}, evaluations=4)
        >>> found = search.run(
        ...     lambda model: {"loss": np.sum(np.abs(model(np.ones((1, 8)))))}, verbose=0)
        >>> schedule = tfprune.PolynomialDecay(0.0, found.sparsity, 0, 1000)
        >>> gradual = tfprune.prune_low_magnitude(
        ...     model, schedule, pattern="filter", scope=found.to_distribution())
        """
        return PerLayer(globs.exactly({row.name: row.share for row in self.allocation}))

    def to_rules(self, schedule):
        """Returns the allocation as a list of `Rule`s, one for each layer.

        Args:
            schedule: A schedule with one final sparsity, for instance a `PolynomialDecay`. Each
                layer gets it with its own end; layers that lose nothing are exempt.

        Raises:
            TypeError: If the schedule has no `final_sparsity` or `target_sparsity` to replace.
        """
        fields = {field.name for field in _fields(schedule)}
        end = next((name for name in _ENDS if name in fields), None)
        if end is None:
            raise TypeError(
                check.message(
                    "`schedule` with a final_sparsity or a target_sparsity",
                    f"schedule={schedule!r}",
                    "Use for instance tfprune.PolynomialDecay(0.0, 0.5, 0, 1000).",
                )
            )
        rules = []
        shares = {path: row.share for row in self.allocation for path in row.layers}
        for match, share in globs.exactly(shares).items():
            if not share:
                rules.append(Rule(match, prune=False))
                continue
            change = {end: share}
            if "initial_sparsity" in fields:
                was = getattr(schedule, end)
                change["initial_sparsity"] = schedule.initial_sparsity * share / was if was else 0.0
            rules.append(Rule(match, schedule=dataclasses.replace(schedule, **change)))
        return rules

    def to_dict(self):
        """Returns the result as plain data, for JSON."""
        return {
            "method": self.method,
            "budget": self.budget,
            "dense": self.dense,
            "costs": self.costs,
            "shares": self.shares,
            "evaluations": [
                {"what": t.what, "zeros": list(t.zeros), "costs": t.costs, "metrics": t.metrics}
                for t in self.trials
            ],
        }

    def table(self):
        """Returns the allocation as a `rich.table.Table`."""
        budget = ", ".join(f"{name} {value:g}" for name, value in self.budget.items())
        table = Table(title=f"{self.method}, {budget}: {len(self.trials)} evaluations")
        table.add_column("Layer", overflow="fold")
        for name in ("Units", "Stay", "Pruned"):
            table.add_column(name, justify="right")
        for row in self.allocation:
            more = f" +{len(row.layers) - 1}" if len(row.layers) > 1 else ""
            table.add_row(
                row.layers[0] + more,
                f"{row.units:,}",
                f"{row.units - row.zeros:,}",
                f"{row.share:.1%}",
            )
        table.add_section()
        for name, label in (("parameters", "Parameters"), ("macs", "MACs")):
            before, after = self.dense[name], self.costs[name]
            if before:
                share = f"{1 - after / before:.1%}"
                table.add_row(label, f"{before:,}", f"{round(after):,}", share)
        if "latency" in self.costs:
            before, after = self.dense["latency"], self.costs["latency"]
            cells = [f"{1000 * value:.2f} ms" for value in (before, after)]
            table.add_row("Latency", *cells, f"{1 - after / before:.1%}")
        if self.best is not None:
            table.add_row(self.metric, "", f"{self.best.metrics[self.metric]:.4f}", "")
        return table

    def __str__(self):
        return as_text(self.table())

    def plot(self, path=None):
        """Draws the metric of each evaluation, and the share that each layer loses.

        Needs matplotlib: `pip install "tfprune[plots]"`.

        Args:
            path: Where to save the picture, as PNG, PDF or SVG by the ending; `None` saves
                nothing.

        Returns:
            The `matplotlib.figure.Figure`.

        Raises:
            ImportError: If matplotlib is not installed.
        """
        return drawing.draw(self, path)


def _fields(schedule):
    return dataclasses.fields(schedule) if dataclasses.is_dataclass(schedule) else ()
