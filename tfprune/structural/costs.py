"""Computes the cost of a candidate from its numbers of pruned units alone."""

from math import prod

import numpy as np

from tfprune._channels.coupling import PrunedGroup
from tfprune._reports import prunable_weights
from tfprune._reports.cost import layer_costs, model_cost


class _Cut:
    """A weight that shrinks along some axes when groups lose channels.

    Args:
        shape: Its shape.
    """

    def __init__(self, shape):
        self.size = prod(shape)
        self._shape = shape
        self._axes: dict = {}

    def add(self, axis, number, gone):
        """Adds an axis, with the positions that it loses for each number of pruned channels."""
        self._axes.setdefault(axis, []).append((number, gone))

    def left(self, zeros):
        return prod(
            size - sum(int(gone[zeros[number]]) for number, gone in self._axes.get(axis, ()))
            for axis, size in enumerate(self._shape)
        )


class _Thinned:
    """A weight that keeps its shape and gets zeros.

    Args:
        size: Number of its elements.
        number: Index of its competitor.
        gone: Number of zeros for each number of pruned units.
    """

    def __init__(self, size, number, gone):
        self.size = size
        self._number, self._gone = number, gone

    def left(self, zeros):
        return self.size - int(self._gone[zeros[self._number]])


class Costs:
    """Sparsity, parameters and multiplications of the candidates of a model.

    For groups of filters, these are the costs of the smaller model without these filters; for
    other patterns, the costs of the nonzero weights. The product of positions with positions in
    attention is assumed to shrink with its kernels; the search counts it exactly for the result.

    Args:
        model: The plain model.
        candidates: Its `Candidates`. Their pruning order affects the costs.

    Attributes:
        dense: `{"sparsity", "parameters", "macs"}` of the unpruned model; `None` for an unknown
            number.
    """

    def __init__(self, model, candidates):
        cost = model_cost(model)
        macs = None if cost.uncounted else cost.macs
        self.dense = {"sparsity": 0.0, "parameters": cost.parameters, "macs": macs}
        self._units = sum(request.units for request in candidates.requests)
        self._rows = [row for row in layer_costs(model) if row.macs and row.prunable]
        self._weights: dict = {}
        for number, competitor in enumerate(candidates.competitors):
            order = candidates.order(number)
            if isinstance(competitor, PrunedGroup):
                self._add_group(competitor.coupling, number, order)
            else:
                request = candidates.requests[number]
                gone = np.cumsum(_weights_of_units(request)[order])
                weight = _Thinned(request.weight.size, number, np.concatenate([[0], gone]))
                self._weights[id(competitor.variable)] = weight
        self._by_row: list = [[] for _ in self._rows]
        for found in prunable_weights.find(candidates.model):
            known = self._weights.get(id(found.variable))
            for row, weights in zip(self._rows, self._by_row, strict=True):
                if known is not None and f"{found.path}/".startswith(f"{row.layer}/"):
                    weights.append(known)

    def _add_group(self, coupling, number, order):
        for part in coupling.cut:
            channels = part.units[part.units >= 0]
            gone = np.cumsum(np.bincount(channels, minlength=len(order))[order])
            shape = tuple(part.variable.shape)
            weight = self._weights.setdefault(id(part.variable), _Cut(shape))
            weight.add(part.axis, number, np.concatenate([[0], gone]))

    def at(self, zeros):
        """Returns `{"sparsity", "parameters", "macs"}` of a candidate.

        Args:
            zeros: Pruned units of each competitor.
        """
        left = {key: weight.left(zeros) for key, weight in self._weights.items()}
        lost = sum(weight.size - left[key] for key, weight in self._weights.items())
        return {
            "sparsity": sum(zeros) / self._units,
            "parameters": self.dense["parameters"] - lost,
            "macs": None if self.dense["macs"] is None else self._macs(zeros),
        }

    def _macs(self, zeros):
        macs = self.dense["macs"]
        for row, weights in zip(self._rows, self._by_row, strict=True):
            lost = sum(weight.size - weight.left(zeros) for weight in weights)
            macs -= row.macs * lost / row.prunable
        return macs


def _weights_of_units(request):
    """Returns the number of weights in each unit of a request."""
    if request.units == request.weight.size:
        return np.ones(request.units, int)
    place = request.spread(np.arange(request.units))
    return np.bincount(place.reshape(-1), minlength=request.units)
