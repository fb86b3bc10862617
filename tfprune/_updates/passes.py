"""Forward and backward passes that read a model without changing it, on every backend."""

import keras
import numpy as np
from keras import ops, tree

from tfprune import _keras


def gradient_function(model, variables, loss_of):
    """Returns a compiled function `(batch, scale) -> gradients`, float32 tensors.

    Args:
        model: The model.
        variables: The variables to take gradients for, frozen ones too.
        loss_of: Function `(x, y, sample_weight) -> loss`.
    """

    def loss_at(values, x, y, sample_weight, scale, others=()):
        mapping = [*others, *zip(variables, values, strict=True)]
        # The scope discards all state that the model or its loss writes.
        with keras.StatelessScope(state_mapping=mapping, collect_losses=True):
            loss = ops.cast(loss_of(x, y, sample_weight), "float32")
        return loss * ops.cast(scale, "float32")

    run = _BACKENDS[_keras.backend()](model, variables, loss_at)

    def gradients(batch, scale):
        batch = tree.map_structure(_as_tensor, batch)
        return [ops.cast(g, "float32") / scale for g in run(batch, scale)]

    return gradients


def _as_tensor(value):
    return None if value is None else ops.convert_to_tensor(value)


def _on_tensorflow(model, variables, loss_at):
    import tensorflow as tf

    @tf.function(reduce_retracing=True)
    def run(batch, scale):
        values = [tf.convert_to_tensor(variable.value) for variable in variables]
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(values)
            loss = loss_at(values, *batch, scale)
        found = tape.gradient(loss, values, unconnected_gradients="zero")
        return [tf.convert_to_tensor(gradient) for gradient in found]

    return lambda batch, scale: run(batch, tf.constant(scale, "float32"))


def _on_jax(model, variables, loss_at):
    import jax

    chosen = {id(variable) for variable in variables}
    others = [variable for variable in model.variables if id(variable) not in chosen]

    @jax.jit
    def run(values, other_values, batch, scale):
        pairs = list(zip(others, other_values, strict=True))
        return jax.grad(lambda at: loss_at(at, *batch, scale, pairs))(values)

    return lambda batch, scale: run(
        [variable.value for variable in variables],
        [variable.value for variable in others],
        batch,
        scale,
    )


def _on_torch(model, variables, loss_at):
    import torch

    def run(batch, scale):
        with torch.enable_grad():
            values = [v.value.detach().clone().requires_grad_() for v in variables]
            loss = loss_at(values, *batch, scale)
            found = torch.autograd.grad(loss, values, allow_unused=True)
        return [
            torch.zeros_like(value) if gradient is None else gradient
            for gradient, value in zip(found, values, strict=True)
        ]

    return run


_BACKENDS = {"tensorflow": _on_tensorflow, "jax": _on_jax, "torch": _on_torch}


def activation_function(model, weights):
    """Returns a function `x -> (zeros, sum, number)` of relu(output) by channel, for weights."""
    by_layer: dict = {}
    for weight in weights:
        by_layer.setdefault(id(weight.layer), []).append(weight)

    def statistics(x, mapping=()):
        sums: dict = {id(weight): [] for weight in weights}

        def seen(layer, arguments, outputs):
            for weight in by_layer[id(layer)]:
                active = ops.relu(_by_channel(weight, ops.cast(outputs, "float32")))
                zeros = ops.sum(ops.cast(active == 0, "float32"), axis=0)
                number = ops.cast(ops.shape(active)[0], "float32")
                sums[id(weight)].append((zeros, ops.sum(active, axis=0), number))

        layers = list({id(weight.layer): weight.layer for weight in weights}.values())
        scope = keras.StatelessScope(state_mapping=mapping, collect_losses=True)
        with _keras.watched_calls(layers, seen), scope:
            model(x, training=False)
        return [sums[id(weight)] for weight in weights]

    run = _compiled(model, statistics)

    def activations(x):
        found = run(tree.map_structure(_as_tensor, x))
        return [
            sum(np.array([_widened(part, calls[0]) for part in call]) for call in calls)
            for calls in found
        ]

    return activations


def _widened(part, like):
    """Returns an array with one value for each channel of a layer; their number is a scalar."""
    return np.broadcast_to(ops.convert_to_numpy(part), like[0].shape).astype("float64")


def _compiled(model, function):
    if _keras.backend() == "tensorflow":
        import tensorflow as tf

        return tf.function(function, reduce_retracing=True)
    if _keras.backend() == "jax":
        import jax

        variables = model.variables

        @jax.jit
        def run(values, x):
            return function(x, list(zip(variables, values, strict=True)))

        return lambda x: run([variable.value for variable in variables], x)
    import torch

    return torch.no_grad()(function)


def _by_channel(weight, outputs):
    """Reshapes a layer's output to (values, channels)."""
    if getattr(weight.layer, "data_format", None) == "channels_first" and len(outputs.shape) > 2:
        outputs = ops.moveaxis(outputs, 1, -1)
    return ops.reshape(outputs, (-1, _channels(weight)))


def _channels(weight):
    shape = tuple(weight.variable.shape)
    return int(np.prod([shape[axis] for axis in weight.axes.resolve(len(shape)).outputs]))


def following_batch_norms(model, inputs):
    """Returns `{id(layer): BatchNormalization that follows it}` for layers of a model.

    Watches the calls instead of reading the graph, because a subclassed model has none.
    """
    made: dict = {}
    taken: list = []
    kept: list = []

    def seen(layer, arguments, outputs):
        # Keeps the tensors, so that no other tensor gets the same id.
        kept.append((arguments, outputs))
        if isinstance(layer, keras.layers.BatchNormalization) and arguments:
            taken.append((id(arguments[0]), layer))
        made[id(outputs)] = layer

    layers = [layer for layer in _keras.flatten(model) if not _keras.children(layer)]
    with _keras.watched_calls(layers, seen):
        _keras.trace(model, inputs)
    return {id(made[tensor]): norm for tensor, norm in taken if tensor in made}


def batch_statistics_function(model, norms):
    """Returns a function `x -> [(mean, variance)]` of BatchNormalizations' training inputs.

    Args:
        model: The model.
        norms: List of the BatchNormalizations.
    """

    def statistics(x, mapping=()):
        scope = keras.StatelessScope(state_mapping=mapping)
        with mean_statistics(norms), scope:
            model(x, training=True)
        return [
            tuple(scope.get_current_value(v) for v in (norm.moving_mean, norm.moving_variance))
            for norm in norms
        ]

    run = _compiled(model, statistics)

    def of_batch(x):
        found = run(tree.map_structure(_as_tensor, x))
        return [tuple(ops.convert_to_numpy(part) for part in pair) for pair in found]

    return of_batch


def mean_statistics(norms):
    """Returns a context in which moving statistics become plain means over all training calls.

    The first call replaces the old statistics. A layer that is called several times counts each
    call.

    Args:
        norms: List of BatchNormalizations.
    """
    calls = dict.fromkeys(map(id, norms), 0)

    def handle(norm, call, args, kwargs):
        if not kwargs.get("training", args[1] if len(args) > 1 else False):
            return call(*args, **kwargs)
        before, norm.momentum = norm.momentum, calls[id(norm)] / (calls[id(norm)] + 1)
        calls[id(norm)] += 1
        try:
            return call(*args, **kwargs)
        finally:
            norm.momentum = before

    return _keras.intercepted_calls(norms, handle)


def loss_function(model, loss_of):
    """Returns a compiled function `batch -> loss`, a float, in inference mode.

    Args:
        model: The model.
        loss_of: Function `(x, y, sample_weight) -> loss`.
    """

    def loss_at(batch, mapping=()):
        with keras.StatelessScope(state_mapping=mapping, collect_losses=True):
            return ops.cast(loss_of(*batch), "float32")

    run = _compiled(model, loss_at)
    return lambda batch: float(ops.convert_to_numpy(run(tree.map_structure(_as_tensor, batch))))
