"""Rules for normalizations: statistics that mix channels, and corrections for removed ones."""

import numpy as np

from tfprune._channels.ledger import UNKNOWN, array, unknown_values


def batch_normalization(call):
    """Each channel has its own statistics."""
    layer = call.layer
    flow = call.take(layer.axis)
    for weight in (layer.moving_mean, layer.moving_variance):
        call.cut(weight, 0, flow.labels)
    gamma, beta = _gamma_and_beta(call, flow.labels)
    scale = gamma / np.sqrt(array(layer.moving_variance) + np.float32(layer.epsilon))
    values = (flow.values - array(layer.moving_mean)) * scale + beta
    return [flow.carrying(np.where(gamma == 0, beta, values))]


def _gamma_and_beta(call, labels):
    """Cuts the weights that a normalization has for each channel."""
    layer, number = call.layer, len(labels)
    call.cut(layer.gamma, 0, labels)
    call.cut(layer.beta, 0, labels)
    gamma = np.ones(number, "float32") if layer.gamma is None else array(layer.gamma)
    beta = np.zeros(number, "float32") if layer.beta is None else array(layer.beta)
    return gamma, beta


def layer_normalization(call):
    """Keeps all channels, because removing one changes their mean."""
    path = call.ledger.path(call.layer)
    call.fix(f"'{path}' mixes them into its statistics")
    flow = call.inputs[0]
    return [flow.carrying(unknown_values(len(flow.labels)))]


def rms_normalization(call):
    """Corrects scale and epsilon, because removing a channel of zeros changes the mean square.

    With k of n channels left, x / sqrt(sum / n + e) is sqrt(n / k) x / sqrt(sum / k + e n / k):
    the scale and the epsilon make up for the removed channels.
    """
    layer, flow = call.layer, call.inputs[0]
    if flow.axis is None:
        return [UNKNOWN]
    path = call.ledger.path(layer)
    # Those of KerasHub have no argument for the axis, and that of T5 calls its scale a weight.
    axes = getattr(layer, "axis", [-1])
    scale = layer.scale if hasattr(layer, "scale") else layer.weight
    if [axis % len(call.shapes[0]) for axis in axes] != [flow.axis]:
        return call.stop(f"'{path}' takes the mean along other axes")
    number, epsilon = len(flow.labels), layer.epsilon
    call.cut(scale, 0, flow.labels)
    call.ledger.scale(scale, flow.labels, lambda left: np.sqrt(number / left))
    call.edit("epsilon", flow.labels, lambda left: epsilon * number / int(left))
    call.read(flow, None, "their squares are in its mean")
    silent = (flow.values == 0) | (array(scale) == 0)
    return [flow.carrying(np.where(silent, 0, np.nan))]


def group_normalization(call):
    """Removes all channels of a group or none, because they share their statistics."""
    layer = call.layer
    flow = call.take(layer.axis)
    grouped = flow.labels.reshape(layer.groups, -1)
    for column in grouped.T:
        call.ledger.tie(grouped[:, 0], column)
    if layer.groups == 1:
        reason = f"'{call.ledger.path(layer)}' mixes them into its statistics"
        call.ledger.fix(flow.labels, reason)
    call.edit("groups", grouped[:, 0])
    gamma, beta = _gamma_and_beta(call, flow.labels)
    given = flow.values.reshape(layer.groups, -1).astype("float64")
    centred = given - given.mean(axis=1, keepdims=True)
    deviation = np.sqrt(given.var(axis=1, keepdims=True) + layer.epsilon)
    values = (centred / deviation).reshape(-1) * gamma + beta
    return [flow.carrying(np.where(gamma == 0, beta, values))]
