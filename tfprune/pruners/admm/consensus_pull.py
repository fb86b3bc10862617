"""The part of a training that pulls weights towards their pattern."""

from typing import Any

import numpy as np

from tfprune import _keras
from tfprune._base import validation as check
from tfprune.callbacks.pruning_training import TrainingPart


class ConsensusPull(TrainingPart):
    """Updates Z, U and rho every few optimizer steps, and ends the pull when masks are made.

    Args:
        sparsity: Fraction of pruned units on the pattern.
        end_step: Optimizer step at which the schedule makes the masks.
        rho: Strength of the pull at first.
        growth: `rho` is multiplied by it at each update.
        every: Optimizer steps between updates.

    Attributes:
        residuals: `{"admm_primal", "admm_dual"}` of the latest update.
    """

    def __init__(self, sparsity, end_step, rho, growth, every):
        self._sparsity, self._end = sparsity, end_step
        self._rho, self._growth, self._every = rho, growth, every
        self._updated: Any = None
        self.residuals: dict = {}

    def attach(self, training):
        for weight in self._weights(training):
            schedule = weight.method.schedule
            if weight.consensus is None or schedule.end_step != self._end:
                raise ValueError(
                    check.message(
                        f"a model that was wrapped for ADMM with end_step={self._end}",
                        f"{weight.name} with {schedule!r} and {weight.method.criterion!r}",
                        "Wrap it with model = callback.prune(model).",
                    )
                )
        self._updated = None

    @staticmethod
    def _weights(training):
        update = training.updater.update
        return [w for w in update.weights if update.competitor(w) is not None]

    def begin(self, training):
        self._updated = None

    def asked(self, training, elapsed):
        counter = training.counter
        if self._is_due(training, counter.step + elapsed):
            _keras.sync_state(training.model)
            self._update(training, counter.step + min(elapsed, counter.clock.elapsed()))

    def step(self, training, sync):
        step = training.counter.step
        if not self._is_due(training, step):
            return False
        if sync is not None:
            sync()
        return self._update(training, step)

    def _is_due(self, training, step):
        if self._updated is None or step < self._updated:
            # Training begins, or resumes from a file with the Z and U of the previous step.
            started = self._started(training)
            self._updated = step if started and step else -1
            if started and step >= self._end:
                self._updated = self._end
        latest = min(step // self._every * self._every, self._end)
        latest = self._end if step >= self._end else latest
        return self._updated < latest

    def _started(self, training):
        return any(float(_keras.host_array(w.consensus.rho)) for w in self._weights(training)) or (
            training.counter.step >= self._end
        )

    def _update(self, training, step):
        if not self._is_due(training, step):
            return False
        weights = self._weights(training)
        if step >= self._end:
            for weight in weights:
                weight.consensus.rho.assign(0.0)
        else:
            self._project(training, weights, self._updated < 0)
        self._updated = step
        return True

    def _project(self, training, weights, first):
        """Makes Z of W + U by the pattern, and adds W - Z to U."""
        aims = [(self._sparsity, weight) for weight in weights]
        masks = training.updater.update.proposed(aims, training.evidence)
        totals = np.zeros(3)
        for weight in weights:
            kept = weight.consensus
            value = np.asarray(_keras.host_array(weight.variable), "float32")
            dual = np.array(_keras.host_array(kept.dual))
            rho = self._rho if first else float(_keras.host_array(kept.rho))
            before = dual + _keras.host_array(kept.aim)
            nearest = np.where(masks[id(weight)], value + dual, np.float32(0))
            away = value - nearest
            if not first:
                # U is scaled by rho, so it shrinks by the factor by which rho grows.
                dual = (dual + away) / np.float32(self._growth)
                totals[1] += rho**2 * float(np.sum(np.square(nearest - before), dtype="float64"))
                rho *= self._growth
            kept.aim.assign(nearest - dual)
            kept.dual.assign(dual)
            kept.rho.assign(rho)
            totals[0] += float(np.sum(np.square(away), dtype="float64"))
        primal, dual, _ = np.sqrt(totals)
        self.residuals = {"admm_primal": float(primal), "admm_dual": float(dual)}
