"""The training part that moves connections: drops some and grows the same number of others."""

from typing import Any

import numpy as np
from keras import ops

from tfprune import _keras, patterns
from tfprune._base import validation as check
from tfprune.callbacks.pruning_training import TrainingPart


class Exchange(TrainingPart):
    """Exchanges connections every few optimizer steps.

    Args:
        callback: The callback that messages name, which wraps models for these exchanges.
        schedule: The schedule that the model must be wrapped with.
        scope: The scope that the model must be wrapped with.
        drop: `Criterion` that selects the connections to drop.
        grow: `Criterion` that selects the connections to grow.
        fraction: The `DropFraction`.
        every: Optimizer steps between exchanges.
        stop: Share of the training, or step, after which exchanges end.
        total: Optimizer steps of the whole training, or `None` to use the number from `fit`.
    """

    def __init__(self, callback, schedule, scope, drop, grow, fraction, every, stop, total):
        self._callback = callback
        self._wrapped_with = (schedule, scope)
        self._drop, self._grow, self._fraction = drop, grow, fraction
        self._every, self._stop, self._total = every, stop, total
        self._last: Any = None
        self._exchanged: Any = None

    @property
    def _moves(self):
        return self._fraction.initial > 0

    def attach(self, training):
        weights = training.updater.weights
        for weight in weights:
            _check_weight(weight, self._callback, self._wrapped_with)
        if self._moves:
            training.evidence.check(weights, self._drop)
            training.evidence.check(weights, self._grow)
        if training.is_own_loop:
            self._last = self._last_step(self._total)
            self._exchanged = training.counter.step
            training.evidence.seek(self._exchanged // self._every)

    def begin(self, training):
        # Set when the first epoch begins, because another callback may restore a step before that.
        self._last = self._exchanged = None
        self._last_step(1 if self._total or training.params.get("steps") else None)

    def begin_epoch(self, training, epoch):
        if self._last is None:
            total, params = self._total, training.params
            if total is None and params.get("steps"):
                batches = (params["epochs"] - epoch) * params["steps"]
                total = training.counter.step + training.counter.clock.after(batches)
            self._last = self._last_step(total)

    def _last_step(self, total):
        if not self._moves or self._stop > 1:
            return self._stop
        if total is None:
            raise ValueError(
                check.message(
                    "a known length of training, for `stop` and `drop_fraction`",
                    f"stop={self._stop!r}, and data of unknown length",
                    "Give total_steps=..., in optimizer steps, or `stop` as a step.",
                )
            )
        return total * self._stop

    def asked(self, training, elapsed):
        if self._last is None:
            return
        counter = training.counter
        step = counter.step + elapsed
        if self._exchanged is None or step < self._exchanged:
            self._exchanged = step
            training.evidence.seek(step // self._every)
        if self._is_due(step):
            _keras.sync_state(training.model)
            self._exchange(training, counter.step + min(elapsed, counter.clock.elapsed()))

    def step(self, training, sync):
        step = training.counter.step
        if not self._is_due(step):
            return False
        if sync is not None:
            sync()
        self._exchange(training, step)
        return True

    def _is_due(self, step):
        latest = step // self._every * self._every
        return self._moves and self._exchanged < latest and latest <= self._last

    def _exchange(self, training, step):
        if not self._is_due(step):
            return
        update = training.updater.update
        fraction = self._fraction(min(1.0, step / self._last))
        drop, grow = self._drop.renewed(2 * step), self._grow.renewed(2 * step + 1)
        fractions = [fraction] * len(update.weights)
        changed = update.exchange(fractions, drop, grow, training.evidence)
        self._exchanged = step
        optimizer = getattr(training.model, "optimizer", None)
        if optimizer is None:
            return
        # Resets the optimizer state of new connections.
        for weight, grown in changed:
            for slot in _keras.slots(optimizer, weight.variable):
                if isinstance(grown, np.ndarray):
                    value = _keras.on_host(slot)
                    slot.assign(np.where(grown, np.zeros((), value.dtype), value))
                else:
                    value = ops.convert_to_tensor(slot)
                    slot.assign(ops.where(grown, ops.zeros_like(value), value))


def _check_weight(weight, callback, wrapped_with):
    method = weight.method
    if (method.schedule, method.scope) != wrapped_with:
        raise ValueError(
            check.message(
                f"a model that was wrapped for {callback!r}",
                f"{weight.name} with {method.schedule!r} and {method.scope!r}",
                "Wrap it with model = callback.prune(model).",
            )
        )
    if weight.coupled:
        raise ValueError(
            check.message(
                "independent filters in each layer",
                f"{weight.name}, whose filters are coupled with those of other layers",
                "Wrap the model with model = callback.prune(model), or with "
                "tfprune.Filter(coupled=False).",
            )
        )
    if isinstance(method.pattern, patterns.NOfM):
        raise ValueError(
            check.message(
                "a pattern whose units can move",
                f"{weight.name} with {method.pattern!r}",
                "Use single weights, blocks or slices.",
            )
        )
