"""What a search found: a model, a table, a plot, and the allocation for gradual training."""

import dataclasses
import glob

import numpy as np
from rich.table import Table

from tfprune import _keras
from tfprune._base import validation as check
from tfprune._base.text import as_text
from tfprune._channels.graph import plain
from tfprune._reports import prunable_weights
from tfprune._updates.mask_update import MaskUpdate
from tfprune._wrapping.methods import Rule
from tfprune.distributions import PerLayer
from tfprune.plots import search as drawing
from tfprune.prune import prune_low_magnitude
from tfprune.schedules.constant import ConstantSparsity

_ENDS = ("final_sparsity", "target_sparsity")


class SearchResult:
    """What a search found. Its text is a table.

    Attributes:
        method: Name of the search.
        model: The model that was found. For filters that can be removed, the smaller one: plain,
            and compiled with the optimizer that trained it where the search trains. For all other
            patterns, the wrapped one: fine-tune it with `UpdatePruningStep`.
        pruned: The wrapped model in both cases.
        budget: The budget, as it was given.
        costs: `{"sparsity", "parameters", "macs"}`, and "latency" if the budget has it: what the
            model was measured to have.
        dense: The same of the model before.
        shares: `{name: share}` of pruned units, by layer; a group of filters has the name of its
            first layer.
        sparsity: Share of pruned units in all.
        trials: List of `Trial`s, one for each evaluation.
        metric: Name of the number that counted.
    """

    def __init__(self, method, session, found, parts):
        self.method = method
        self.budget = dict(found.budget)
        self.costs, self.dense = found.costs, found.dense
        self.metric = parts["metric"]
        self.trials = list(session.trials)
        candidates = session.candidates
        self._units = [request.units for request in candidates.requests]
        self._zeros = list(found.zeros)
        self._names = [request.name for request in candidates.requests]
        self.sparsity = sum(self._zeros) / sum(self._units)
        self.shares = {
            name.rpartition("/")[0]: zeros / units
            for name, zeros, units in zip(self._names, self._zeros, self._units, strict=True)
        }
        paths = {id(w.variable): w.path for w in prunable_weights.find(candidates.model)}
        self._layers = [
            [paths[id(weight.variable)] for weight in competitor.scored]
            for competitor in candidates.competitors
        ]
        wrapped = session.model_with(self._zeros)
        self.pruned = self._wrapped_for_itself(wrapped, parts)
        self.model = self.pruned if found.model is None else found.model

    def _wrapped_for_itself(self, candidate, parts):
        """A model with the same masks, whose method asks for no others."""
        new = prune_low_magnitude(
            plain(candidate),
            ConstantSparsity.one_shot(self.sparsity),
            pattern=parts["pattern"],
            criterion=parts["criterion"],
            rules=parts["rules"],
            scope=self.to_distribution(),
        )
        update = MaskUpdate(new)
        for weight, other in zip(update.weights, MaskUpdate(candidate).weights, strict=True):
            weight.set_mask(np.array(_keras.host_array(other.mask)))
        for owner in update.owners:
            owner.mask_set.advance(1)
        return new

    @property
    def best(self):
        """The `Trial` of the evaluation that was best, among those that meet the budget."""
        final = [trial for trial in self.trials if trial.zeros == tuple(self._zeros)]
        return final[-1] if final else None

    @property
    def by_competitor(self):
        """`{name: share}` of pruned units, by the weight that names a layer or group."""
        rows = zip(self._names, self._zeros, self._units, strict=True)
        return {name: zeros / units for name, zeros, units in rows}

    def to_distribution(self):
        """Returns the allocation as a `PerLayer` distribution, for gradual training.

        Example:

        >>> model = keras.Sequential([
        ...     keras.Input((8,)), keras.layers.Dense(8), keras.layers.Dense(8),
        ...     keras.layers.Dense(2)])
        >>> found = tfprune.pruners.SimulatedAnnealing(
        ...     model, {"macs": 0.5}, evaluations=4, mode="min"
        ... ).run(lambda model: float(np.sum(np.abs(model(np.ones((1, 8)))))), verbose=0)
        >>> schedule = tfprune.PolynomialDecay(0.0, found.sparsity, 0, 1000)
        >>> gradual = tfprune.prune_low_magnitude(
        ...     model, schedule, pattern="filter", scope=found.to_distribution())
        """
        return PerLayer({glob.escape(name): share for name, share in self.by_competitor.items()})

    def to_rules(self, schedule):
        """Returns the allocation as a list of `Rule`s, one for each layer.

        Args:
            schedule: A schedule with one end, a `PolynomialDecay` for instance. Each layer gets
                it with an end of its own; layers that give nothing are exempt.

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
        for layers, zeros, units in zip(self._layers, self._zeros, self._units, strict=True):
            match = [glob.escape(path) for path in dict.fromkeys(layers)]
            if not zeros:
                rules.append(Rule(match, prune=False))
                continue
            share = zeros / units
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
        rows = zip(self._layers, self._zeros, self._units, strict=True)
        for layers, zeros, units in rows:
            more = f" +{len(set(layers)) - 1}" if len(set(layers)) > 1 else ""
            table.add_row(
                layers[0] + more, f"{units:,}", f"{units - zeros:,}", f"{zeros / units:.1%}"
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
        """Draws what each evaluation was worth, and what each layer gives.

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
