"""The callback that asks the schedule and updates the masks."""

import warnings
from typing import Any

import keras
import numpy as np

from tfprune import _keras
from tfprune._base import validation as check
from tfprune._channels.coupling import couple
from tfprune._keras.checks import not_keras
from tfprune._updates.evidence import Evidence
from tfprune._updates.mask_update import compete, update_masks
from tfprune._wrapping.wrapper import mask_owners
from tfprune.callbacks.projection import Projection
from tfprune.callbacks.shortfall import RESTORED, shortfalls
from tfprune.callbacks.step_count import Clock, Lookahead


class UpdatePruningStep(keras.callbacks.Callback):
    """Counts optimizer steps and updates the masks when the schedule says so.

    `model.fit(..., callbacks=[tfprune.UpdatePruningStep()])` is all that a training with Keras
    needs; its place among the callbacks does not matter. The sparsity stands beside the loss in
    the progress bar, in `logs["sparsity"]` and in the history. Where training ends short of the
    schedule, the callback warns.

    Masks are weights of the model: what brings back the weights of an earlier epoch, as
    `EarlyStopping(restore_best_weights=True)` does, brings back its sparsity too. The callback
    warns of it, wherever it stands; `PruningCheckpoint` keeps the best model at target sparsity.

    In a training loop of your own, give it the model and call `step()` after each optimizer step.

    Args:
        model: The wrapped model, for a loop of your own only.
        data: For criteria on gradients or activations: a `tf.data.Dataset`, a
            `keras.utils.PyDataset`, a PyTorch `DataLoader`, or arrays as a tuple `(x, y)`. Each
            mask update runs the model on some batches of it.
        batches: Number of batches for each mask update.
        batch_size: Size of the batches that arrays are cut into.
        loss: For criteria on gradients where the model is not compiled: a Keras loss.

    Raises:
        ValueError: If the model has no wrapped layer, a weight turns NaN or infinite, a second
            UpdatePruningStep stands among the callbacks, or a criterion needs data and none is
            given.
        TypeError: If `model` is no Keras 3 model.

    Example:

    >>> model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(1)])
    >>> model = tfprune.prune_low_magnitude(
    ...     model, tfprune.PolynomialDecay(0.0, 0.75, begin_step=0, end_step=10, frequency=1))
    >>> model.compile("sgd", "mse")
    >>> history = model.fit(np.ones((80, 8)), np.ones((80, 1)), batch_size=8, verbose=0,
    ...     callbacks=[tfprune.UpdatePruningStep()])
    >>> history.history["sparsity"]
    [0.75]
    """

    def __init__(self, model=None, data=None, batches=1, batch_size=32, loss=None):
        super().__init__()
        self._evidence: Any = None
        self._evidence_from = {
            "data": data,
            "batches": batches,
            "batch_size": batch_size,
            "loss": loss,
        }
        Evidence(model, **self._evidence_from)
        # Not `self.model`: on JAX, Keras writes the state into the variables on each access.
        self._trained: Any = None
        self._owners: list = []
        self._schedules = Lookahead()
        self._asked: dict = {}
        self._sparsity = 0.0
        self._projection: Projection | None = None
        self._clock = Clock(model)
        self._in_epoch = (0, 1, 0)
        self._batches = 0
        self._in_own_loop = model is not None
        if model is not None:
            if not isinstance(model, keras.layers.Layer):
                raise TypeError(not_keras(model, "model"))
            self.set_model(model)
            self._ask_now()

    # -- Keras's side --------------------------------------------------------------------------

    def set_model(self, model):
        super().set_model(model)
        self._trained = model
        self._owners = mask_owners(model)
        if not self._owners:
            raise ValueError(
                check.message(
                    "a model with wrapped layers",
                    f"model '{model.name}' without any",
                    "Call model = tfprune.prune_low_magnitude(model, schedule) before fit.",
                )
            )
        unbuilt = [owner.name for owner in self._owners if owner.mask_set is None]
        if unbuilt:
            raise ValueError(
                check.message(
                    "a built model",
                    f"'{unbuilt[0]}' without weights yet",
                    "Give the model a keras.Input, or call it on data once.",
                )
            )
        couple(model)
        self._evidence = Evidence(model, **self._evidence_from)
        self._evidence.check([weight for owner in self._owners for weight in _still_due(owner)])
        optimizer = getattr(model, "optimizer", None)
        self._clock = Clock(model)
        for owner in self._owners:
            other = owner.mask_set.clock
            owner.mask_set.step = owner.mask_set.current_step()
            if other is not None:
                # A fit inside of a fit: the outer one has to count anew when it goes on.
                other.reset()
            owner.mask_set.clock = self._clock
            owner.attended = True
            for weight in owner.mask_set.weights:
                weight.forget_count()
        self._restore_seeds(model)
        if optimizer is not None and not optimizer.built:
            optimizer.build(model.trainable_variables)
        self._mask_averages(optimizer)
        if _keras.backend() == "jax":
            self._projection = Projection(model)
            if optimizer is not None:
                self._projection.install(model)
        self._refresh_sparsity()

    def on_train_begin(self, logs=None):
        if any(owner.mask_set.clock is not self._clock for owner in self._owners):
            raise ValueError(
                check.message(
                    "one UpdatePruningStep among the callbacks",
                    "several, which would count each step several times",
                    "Leave one of them out.",
                )
            )
        self._clock.stop()
        self._asked = {}

    def on_epoch_begin(self, epoch, logs=None):
        # Here, not in on_train_begin: another callback may restore weights there.
        self._begin_counting()
        self._ask_now()

    def on_train_batch_begin(self, batch, logs=None):
        self._go_on(batch)

    def on_train_batch_end(self, batch, logs=None):
        self._go_on(self._last_batch(batch) + 1)
        before, accumulation, first = self._in_epoch
        self._batches = self._last_batch(batch) + 1 - first
        elapsed = (before + self._batches) // accumulation - before // accumulation
        self._ask(elapsed)
        if logs is not None:
            logs["sparsity"] = self._sparsity

    def on_epoch_end(self, epoch, logs=None):
        self._settle()
        self._ask_now()
        if logs is not None:
            logs["sparsity"] = self._sparsity

    def on_train_end(self, logs=None):
        self._settle()
        self._clock.stop()
        for weight in self._weights():
            weight.forget_count()
            weight.project()
        self._refresh_sparsity()
        self._warn_if_short()
        for owner in self._owners:
            owner.attended, owner.warned = self._in_own_loop, False
        if isinstance(self._trained, keras.Model):
            _keras.before_training(self._trained, warn_if_unattended)
        clock, zeros = self._clock, [weight.zeros for weight in self._weights()]
        _keras.after_training(self._trained, lambda: self._check_restored(clock, zeros))

    def _check_restored(self, clock, zeros):
        """Looks once more, after the other callbacks: they may bring back earlier masks."""
        if any(owner.mask_set.clock is not clock for owner in self._owners):
            return
        weights = self._weights()
        for weight in weights:
            weight.forget_count()
            weight.project()
        before = self._sparsity
        self._refresh_sparsity()
        if [weight.zeros for weight in weights] != zeros:
            self._warn(
                f"the sparsity that training ended with, {before:.4f}",
                f"{self._sparsity:.4f}, from a callback that restored an earlier epoch",
                RESTORED,
            )

    def _last_batch(self, batch):
        # With several steps in one execution, Keras may count beyond the epoch's last batch.
        steps = (self.params or {}).get("steps")
        return batch if steps is None else min(batch, steps - 1)

    # -- A loop of one's own -------------------------------------------------------------------

    def step(self, sync=None):
        """Counts one optimizer step and updates the masks if one is due.

        Call it after each optimizer step of your own loop: after each *update*, if you accumulate
        gradients over several batches.

        Args:
            sync: For loops on values outside of the model's variables, as on JAX: a function
                that assigns the current values to the variables. It is called only when masks
                are to be updated; when `step` returns True, read the values anew.

        Returns:
            Whether a mask update was made.

        Example:

        >>> layer = tfprune.prune_low_magnitude(
        ...     keras.layers.Dense(1), tfprune.ConstantSparsity(0.5, begin_step=1))
        >>> model = keras.Sequential([keras.Input((8,)), layer])
        >>> pruning = tfprune.UpdatePruningStep(model)
        >>> pruning.step()   # after optimizer.apply(...)
        True
        """
        if not self._owners:
            raise ValueError(
                check.message(
                    "UpdatePruningStep to know its model",
                    "UpdatePruningStep().step()",
                    "Make it with the model: UpdatePruningStep(model).",
                )
            )
        for owner in self._owners:
            owner.mask_set.step += 1
        return self._step_once(sync)

    def _step_once(self, sync):
        due = self._due(0)
        if due:
            if sync is not None:
                sync()
            self._update(due)
            self._asked = {}
        elif _keras.backend() == "torch":
            # torch.optim knows no constraints.
            for weight in self._weights():
                weight.project()
        return bool(due)

    def project(self, trainable_variables, non_trainable_variables):
        """Puts pruned weights to zero in values outside of the model's variables.

        For stateless training steps on JAX; it can be compiled. Elsewhere the optimizer does it.

        Args:
            trainable_variables: Values in the order of `model.trainable_variables`.
            non_trainable_variables: Values in the order of `model.non_trainable_variables`.

        Returns:
            List of the new trainable values.
        """
        if self._projection is None:
            self._projection = Projection(self._trained)
        return self._projection(trainable_variables, non_trainable_variables)

    @property
    def sparsity(self):
        """Fraction of zeros over all pruned weights together."""
        return self._sparsity

    # -- Counting ------------------------------------------------------------------------------

    def _begin_counting(self, first=0):
        optimizer = getattr(self._trained, "optimizer", None)
        before, accumulation = (0, 1) if optimizer is None else _keras.batches_done(optimizer)
        self._in_epoch = (before, accumulation, first)
        self._batches = 0
        for owner in self._owners:
            if owner.mask_set.clock is not self._clock:
                owner.mask_set.step = owner.mask_set.current_step()
                owner.mask_set.clock = self._clock
            owner.attended = True
        self._clock.start(optimizer, before, accumulation)

    def _go_on(self, first):
        """Counts anew after a file was loaded, or a fit was run, in the middle of training."""
        if self._clock.was_reset:
            self._sync()
            self._restore_seeds(self._trained)
            self._begin_counting(first)

    def _settle(self):
        """Takes the exact count from the optimizer, once an epoch."""
        if self._clock.running:
            self._sync()
            elapsed = self._clock.elapsed(self._batches if self._ran_dry() else None)
            for owner in self._owners:
                owner.mask_set.step += elapsed
            self._clock.stop()

    def _ran_dry(self):
        """Whether the epoch went on until its data ended, for all that Keras knew beforehand."""
        steps = (self.params or {}).get("steps")
        return _keras.backend() == "tensorflow" and (steps is None or self._batches < steps)

    def _sync(self):
        if _keras.backend() == "jax" and hasattr(self._trained, "jax_state_sync"):
            self._trained.jax_state_sync()

    # -- Asking --------------------------------------------------------------------------------

    def _ask_now(self):
        self._restore_seeds(self._trained)
        self._asked = {}
        self._ask(0)

    def _ask(self, elapsed):
        due = self._due(elapsed)
        if not due:
            return
        self._sync()
        # Batches may be ahead of the optimizer: it skips a step whose gradients overflow, and
        # never takes one where nothing can be trained.
        exact = min(elapsed, self._clock.elapsed())
        if exact < elapsed:
            due = self._due(exact)
        if due:
            self._update(due)
        for owner in self._owners:
            for weight in owner.mask_set.weights:
                self._asked[id(weight)] = owner.mask_set.step + exact

    def _due(self, elapsed):
        """`(sparsity, weight)` for all weights with an update due since they were last asked."""
        due = []
        for owner in self._owners:
            step = owner.mask_set.step + elapsed
            for weight in owner.mask_set.weights:
                since = self._asked.get(id(weight), step - 1)
                if since >= step:
                    continue
                sparsity = self._schedules.latest_due(weight.method.schedule, since + 1, step)
                if sparsity is not None:
                    due.append((sparsity, weight))
                else:
                    self._asked[id(weight)] = step
        return due

    def _update(self, due):
        update_masks(compete(due), self._evidence)
        self._refresh_sparsity()

    def _refresh_sparsity(self):
        weights = [weight for weight in self._weights() if not weight.follows]
        self._sparsity = sum(w.zeros for w in weights) / max(1, sum(w.size for w in weights))

    def _weights(self):
        return [weight for owner in self._owners for weight in owner.mask_set.weights]

    # -- What else has to stay exact -----------------------------------------------------------

    def _mask_averages(self, optimizer):
        known = {} if optimizer is None else _keras.averages(optimizer)
        for weight in self._weights():
            weight.constraint.average = known.get(id(weight.variable))

    def _restore_seeds(self, model):
        """Random states that a file brought along go back into the model's generators."""
        for owner in self._owners:
            seeds, owner.mask_set.seeds = owner.mask_set.seeds, None
            generators = _keras.seed_generators(model)
            if seeds and len(seeds) == len(generators):
                for generator, state in zip(generators, seeds, strict=True):
                    dtype = keras.backend.standardize_dtype(generator.state.dtype)
                    generator.state.assign(np.array(state).astype(dtype))

    def _warn_if_short(self):
        steps_taken = bool(self._trained.trainable_variables)
        for said in shortfalls(self._owners, self._schedules, steps_taken):
            self._warn(*said)

    @staticmethod
    def _warn(expected, received, mend):
        warnings.warn(check.message(expected, received, mend), stacklevel=4)


def warn_if_unattended(model):
    """Warns of a training without UpdatePruningStep, after one with it.

    The train function is compiled then, so that no wrapper is called that could say so.
    """
    owners = [owner for owner in mask_owners(model) if not owner.attended]
    if owners and _keras.backend() == "jax":
        # Compiling again may have moved the variables to other positions.
        Projection(model).install(model)
    if owners:
        owners[0].warn_unattended()
    for owner in owners:
        owner.warned = True


def _still_due(owner):
    """Weights that get another mask update, as far as their schedules say when they end."""
    step = owner.mask_set.current_step()
    return [
        weight
        for weight in owner.mask_set.weights
        if not weight.follows and not (weight.coupled and weight.group is None)
        if not 0 <= getattr(weight.method.schedule, "end_step", -1) < step
    ]
