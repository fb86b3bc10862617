"""Rules for recurrent layers, and for the layers that wrap others."""

import inspect

import keras
import numpy as np

from tfprune import _keras
from tfprune._channels.ledger import UNKNOWN, Flow, array, evaluated
from tfprune._channels.rules.makers import acts_alone, read_by


def recurrent(call):
    """Makes units, whose gates are concatenated and whose states the next step reads."""
    layer, cell = call.layer, call.of(call.layer.cell)
    path, number = call.ledger.path(layer), layer.units
    labels = call.ledger.source(layer, number)
    gates = cell.layer.kernel.shape[1] // number
    _read_sequence(call, cell, gates)
    for variable in (cell.layer.kernel, cell.layer.recurrent_kernel, cell.layer.bias):
        cell.cut(variable, -1, np.tile(labels, gates))
    cell.cut(cell.layer.recurrent_kernel, 0, labels, reads=True)
    call.edit("units", labels)
    silent = _starts(call, labels)
    activations = [cell.layer.activation]
    if gates > 1:
        activations.append(cell.layer.recurrent_activation)
    if all(acts_alone(activation) for activation in activations):
        silent &= _stays_zero(cell.layer, gates)
    else:
        reason = f"an activation of '{path}' is not known to be elementwise"
        call.ledger.fix(labels, reason)
        silent[:] = False
    units = call.make(number, 1, np.where(silent, 0, np.nan))
    matrix = array(cell.layer.recurrent_kernel)
    read_by(cell, units, matrix, 0, None, "its states start with zeros", "recurrent")
    made = [units.moved(len(call.output_shapes[0]) - 1)]
    return made + [units] * (len(call.output_shapes) - 1)


def _read_sequence(call, cell, gates):
    flow = call.take(-1, call.tensors("sequences")[0])
    for index in call.tensors("mask"):
        if index is not None:
            call.fix(f"'{call.ledger.path(call.layer)}' uses them as a mask", index)
    kernel = array(cell.layer.kernel)
    cell.cut(cell.layer.kernel, 0, flow.labels, reads=True)
    bias = cell.layer.bias
    if bias is None:
        read_by(cell, flow, kernel, 0, None, "it has no bias")
        return

    def fold(values):
        extra = values @ kernel
        if len(bias.shape) == 1:
            return extra
        # A GRU has one row for the inputs and one for the states.
        return np.stack([extra, np.zeros_like(extra)])

    read_by(cell, flow, kernel, 0, fold)


def _starts(call, labels):
    """Returns which units start at zero; ties the units of a given initial state to them."""
    layer, silent = call.layer, np.ones(len(labels), bool)
    path = call.ledger.path(layer)
    given = call.tensors("initial_state")
    for index in given:
        if index is None:
            call.ledger.fix(labels, f"the initial state of '{path}' has a number for each")
            silent[:] = False
            continue
        state = call.take(1, index)
        call.ledger.tie(labels, state.labels)
        silent &= state.values == 0
    for state in _keras.recurrent_states(layer):
        # The state of a stateful layer.
        silent &= np.all(array(state) == 0, axis=0)
    return silent


def _stays_zero(cell, gates):
    """Returns which units that are zero stay zero after a step, for any input.

    The new state is a gated mean of the old state and a candidate, or the candidate itself, so it
    is zero if the candidate is.
    """
    candidate = slice(0, cell.units) if gates == 1 else slice(2 * cell.units, 3 * cell.units)
    live = np.zeros(cell.units, bool)
    for variable in (cell.kernel, cell.recurrent_kernel, cell.bias):
        if variable is not None:
            weight = array(variable).reshape(-1, gates * cell.units)
            live |= np.any(weight[:, candidate] != 0, axis=0)
    zero = np.zeros(1, "float32")
    return ~live & (evaluated(cell.activation, 1, 0, 1, zero)[0] == 0)


def bidirectional(call):
    """Follows a forward and a backward layer on the same sequence.

    Keras expects both to have the same width, so their units are removed in pairs.
    """
    layer, path = call.layer, call.ledger.path(call.layer)
    states = _given(call, "initial_state")
    half = len(states) // 2
    made = []
    for key, inner, own in (
        ("layer", layer.forward_layer, states[:half]),
        ("backward_layer", layer.backward_layer, states[half:]),
    ):
        made.append(_run_direction(call, key, inner, own))
    (forward, *ours), (backward, *theirs) = made
    if forward.axis is None or backward.axis is None:
        for flow in (forward, backward):
            call.ledger.fix(flow.labels, f"one direction of '{path}' is not followed")
        return [UNKNOWN] * len(call.output_shapes)
    call.ledger.tie(forward.labels, backward.labels)
    if layer.merge_mode is None:
        return [forward, backward, *ours, *theirs]
    pair = np.stack([forward.values, backward.values])
    if layer.merge_mode == "concat":
        labels = np.concatenate([forward.labels, backward.labels])
        merged = Flow(forward.axis, labels, pair.reshape(-1))
    elif layer.merge_mode == "mul":
        merged = forward.carrying(np.where(np.any(pair == 0, axis=0), 0, np.nan))
    else:
        merged = forward.carrying(np.where(np.all(pair == 0, axis=0), 0, np.nan))
    return [merged, *ours, *theirs]


def _given(call, name):
    """Returns the contents of an argument of the call: tensors of the model, and numbers."""
    tensors = _tensors(call.arguments)
    # Numbers in an initial state are constants.
    return [0.0 if index is None else tensors[index] for index in call.tensors(name)]


def _tensors(arguments):
    return [item for item in keras.tree.flatten(arguments) if _keras.is_symbolic(item)]


def _run_direction(call, key, inner, states):
    (sequences,) = _given(call, "sequences")
    arguments = ((sequences,), {"initial_state": states or None})
    mask = _given(call, "mask")
    if mask:
        arguments[1]["mask"] = mask[0]
    known = {id(tensor): place for place, tensor in enumerate(_tensors(call.arguments))}
    places = [known[id(tensor)] for tensor in _tensors(arguments)]
    shapes = inner.compute_output_shape(tuple(sequences.shape))
    return call.inside(
        key,
        inner,
        [call.inputs[place] for place in places],
        [call.shapes[place] for place in places],
        list(shapes) if inner.return_state else [shapes],
        arguments,
    )


def time_distributed(call):
    """Follows the inner layer, which gets single steps: the same channels, one axis less."""
    inner, path = call.layer.layer, call.ledger.path(call.layer)
    places = call.tensors("inputs")
    for index in call.tensors("mask"):
        if "mask" in inspect.signature(inner.call).parameters:
            return call.stop(f"'{path}' passes a mask on")
        if index is not None:
            call.fix(f"'{path}' uses them as a mask", index)
    if len(places) != 1 or places[0] is None or len(call.output_shapes) != 1:
        return call.stop(f"'{path}' is called on several tensors")
    flow, shape = call.inputs[places[0]], call.shapes[places[0]]
    if flow.axis == 1:
        return call.stop(f"'{path}' uses them as time steps")
    step = shape[:1] + shape[2:]
    (made,) = call.inside(
        "layer",
        inner,
        [flow if flow.axis is None else flow.moved(flow.axis - 1)],
        [step],
        [shape[:1] + shape[2:] for shape in call.output_shapes],
        ((keras.KerasTensor(step),), {}),
    )
    return [made if made.axis is None else made.moved(made.axis + 1)]
