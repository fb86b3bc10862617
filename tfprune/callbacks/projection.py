"""Projection of weights onto their masks while variables are read-only, as in JAX's `fit`."""

from contextlib import ExitStack

from tfprune import _keras
from tfprune._wrapping.pruned_weight import masked
from tfprune._wrapping.wrapper import mask_owners


class Projection:
    """Projects a model's trainable values with the masks among its non-trainable values.

    Args:
        model: A built model with wrappers.
    """

    def __init__(self, model):
        self._owners = mask_owners(model)
        self._weights = [w for owner in self._owners for w in owner.pruned_weights]
        trainable = _positions(model.trainable_variables)
        others = _positions(model.non_trainable_variables)
        self._pairs = [
            (trainable[id(weight.variable)], others[id(weight.mask)])
            for weight in self._weights
            if id(weight.variable) in trainable
        ]

    def __call__(self, trainable_variables, non_trainable_variables):
        """Returns the trainable values, with every pruned weight set to zero.

        Args:
            trainable_variables: Values in the order of `model.trainable_variables`.
            non_trainable_variables: Values in the order of `model.non_trainable_variables`.
        """
        values = list(trainable_variables)
        for weight, mask in self._pairs:
            values[weight] = masked(values[weight], non_trainable_variables[mask])
        return values

    def install(self, model):
        """Makes the model's own train step project its result.

        Call it again after the model is compiled: a frozen layer or another optimizer moves the
        variables to other positions. A step that already projects is not changed.
        """
        averages = self._average_positions(model)
        positions = (self._pairs, averages)
        installed = getattr(model.train_step, "positions", None)
        if installed == positions:
            return
        original = model.train_step if installed is None else model.train_step.original

        def train_step(state, data):
            with ExitStack() as stack:
                for owner in self._owners:
                    stack.enter_context(owner.projecting())
                logs, state = original(state, data)
            trainable, others, optimizer, metrics = state
            trainable = self(trainable, others)
            if averages:
                optimizer = list(optimizer)
                for average, mask in averages:
                    optimizer[average] = masked(optimizer[average], others[mask])
            return logs, (trainable, others, optimizer, metrics)

        train_step.positions = positions  # type: ignore[attr-defined]
        train_step.original = original  # type: ignore[attr-defined]
        model.train_step = train_step
        model.train_function = None

    def _average_positions(self, model):
        if getattr(model, "optimizer", None) is None:
            return []
        known = _keras.averages(model.optimizer)
        positions = _positions(model.optimizer.variables)
        others = _positions(model.non_trainable_variables)
        return [
            (positions[id(known[id(weight.variable)])], others[id(weight.mask)])
            for weight in self._weights
            if id(weight.variable) in known
        ]


def mask_averages(optimizer, weights):
    """Makes the constraints of weights also project the optimizer's moving averages of them."""
    known = {} if optimizer is None else _keras.averages(optimizer)
    for weight in weights:
        weight.project_average(known.get(id(weight.variable)))


def _positions(variables):
    return {id(variable): position for position, variable in enumerate(variables)}
