"""The subjects of a sensitivity analysis: single layers, or groups of filters."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from tfprune import _keras
from tfprune._channels.coupling import PrunedGroup
from tfprune._reports import prunable_weights
from tfprune._updates.evidence import Evidence
from tfprune._updates.mask_update import MaskUpdate
from tfprune._wrapping.strip import strip_pruning
from tfprune._wrapping.wrapper import pruned_weights
from tfprune.masks.computing import compute_mask
from tfprune.patterns.slices import Filter
from tfprune.prune import prune_low_magnitude


@dataclass(frozen=True)
class Subject:
    """A layer, or a group of layers, that is pruned while all others keep their weights.

    Attributes:
        layer: Path of the layer, or of the first of the group.
        others: Paths of the other layers of the group.
        parameters: Number of prunable weights.
        units: Number of units that are pruned as a whole.
        masks: Function from a sparsity to a list of `(variable, mask)`.
    """

    layer: str
    others: tuple
    parameters: int
    units: int
    masks: Callable


# -- Single layers ---------------------------------------------------------------------------------


def single_layers(model, layers, criterion, pattern, evidence):
    """Returns one `Subject` for each layer with prunable weights.

    Args:
        model: The user's model.
        layers: See `tfprune.sensitivity`.
        criterion: The `Criterion`.
        pattern: The `Pattern`.
        evidence: Arguments of `Evidence`.
    """
    by_layer: dict = {}
    for weight in prunable_weights.chosen(prunable_weights.find(model), layers):
        by_layer.setdefault(weight.path, []).append(weight)
    found = _evidence(model, criterion, pattern, evidence)

    def subject(layer, weights):
        def masks(sparsity):
            return [(w.variable, _mask(w, sparsity, pattern, criterion, found)) for w in weights]

        shapes = [(tuple(weight.variable.shape), weight.axes) for weight in weights]
        parameters = sum(int(np.prod(shape)) for shape, _ in shapes)
        units = sum(int(pattern.unit_count(*shape)) for shape in shapes)
        return Subject(layer, (), parameters, units, masks)

    return [subject(layer, weights) for layer, weights in by_layer.items()]


def _mask(weight, sparsity, pattern, criterion, found):
    try:
        return compute_mask(
            _keras.host_array(weight.variable),
            sparsity,
            pattern=pattern,
            criterion=criterion,
            axes=weight.axes,
            evidence=found.get(weight.name),
        )
    except ValueError as error:
        raise ValueError(f"{weight.name}: {error} Or leave the layer out with `layers`.") from error


def _evidence(model, criterion, pattern, evidence):
    """Returns `{weight name: {need: array}}` for criteria that need more than the weights."""
    if not set(criterion.needs) - {"axes", "position"}:
        return {}
    # Evidence can only be collected on a wrapped model, so make a wrapped copy.
    copy = prune_low_magnitude(strip_pruning(model), criterion=criterion, pattern=pattern)
    weights = [weight for weight in pruned_weights(copy) if not weight.follows]
    collected = Evidence(copy, compiled=model, **evidence)(weights)
    by_variable = {id(weight.variable): collected[id(weight)] for weight in weights}
    return {
        weight.name: by_variable[id(weight.variable)]
        for weight in prunable_weights.find(copy)
        if id(weight.variable) in by_variable
    }


# -- Groups of filters -----------------------------------------------------------------------------


def have_groups(model, pattern):
    """Whether a pattern prunes filters of several layers of a model together."""
    coupled = isinstance(pattern, Filter) and pattern.coupled
    return coupled and any(map(_keras.runs_as_graph, _plain_layers(model)))


def groups_of_filters(model, layers, criterion, pattern, evidence):
    """Returns one `Subject` for each group of filters that `prune_low_magnitude` can remove.

    Takes the arguments of `single_layers`; `pattern` is a coupled `Filter`.
    """
    # The copy's masks are computed, and never assigned; the user's model is measured.
    copy = prune_low_magnitude(strip_pruning(model), criterion=criterion, pattern=pattern)
    update, original = MaskUpdate(copy), _originals(copy, model)
    competitors: dict = {}
    for weight in update.weights:
        competitor = update.competitor(weight)
        if competitor is not None:
            competitors[id(competitor)] = competitor
    scored = {id(w.variable): w for c in competitors.values() for w in c.scored}
    found = [weight for weight in prunable_weights.find(copy) if id(weight.variable) in scored]
    paths = {id(weight.variable): weight.path for weight in found}
    meant = {weight.path for weight in prunable_weights.chosen(found, layers)}
    collected = Evidence(copy, compiled=model, **evidence)(list(scored.values()))
    by_layer: dict = {}
    for competitor in competitors.values():
        members = list(dict.fromkeys(paths[id(weight.variable)] for weight in competitor.scored))
        if meant.intersection(members):
            # The filters of a layer outside of groups may be those of several weights.
            row = by_layer.setdefault(members[0], ({}, []))
            row[0].update(dict.fromkeys(members))
            row[1].append(competitor)

    def subject(members, row):
        def masks(sparsity):
            aims = [(sparsity, competitor.scored[0]) for competitor in row]
            proposed = update.proposed(aims, lambda weights, as_tensors: collected)
            by_id = {id(weight): weight.variable for weight in update.weights}
            return [(original[id(by_id[key])], mask) for key, mask in proposed.items()]

        layer, *others = members
        return Subject(
            layer,
            tuple(others),
            round(sum(_size(competitor) for competitor in row)),
            sum(competitor.request(collected).units for competitor in row),
            masks,
        )

    return [subject(*by_layer[path]) for path in dict.fromkeys(paths.values()) if path in by_layer]


def _originals(copy, model):
    """Returns `{id of a weight of the copy: the same weight of the model}`."""
    pairs = zip(*(_plain_layers(one) for one in (copy, model)), strict=True)
    return {
        id(ours): theirs
        for layer, original in pairs
        # Models that hold wrappers have more weights; the layers inside form separate pairs.
        if len(layer.weights) == len(original.weights)
        for ours, theirs in zip(layer.weights, original.weights, strict=True)
    }


def _plain_layers(model):
    plain = prunable_weights.unwrapped(model)
    return [plain, *(layer for _, layer in prunable_weights.layers_by_path(plain))]


def _size(competitor):
    """Number of weights that the competitor's filters hold."""
    if not isinstance(competitor, PrunedGroup):
        return int(np.prod(competitor.variable.shape))
    return sum(
        np.prod(part.variable.shape) * np.mean(part.units >= 0)
        for part in competitor.coupling.scored
    )
