"""The callback that asks the schedule and updates the masks."""

import warnings
from typing import Any

import keras
import numpy as np
from keras import ops

from tfprune import _keras_graph as graph
from tfprune import _validation as check
from tfprune.mask_update import compete, expected_zeros, update_masks
from tfprune.projection import Projection
from tfprune.wrapper import mask_owners, not_keras

_AHEAD = 1024


class UpdatePruningStep(keras.callbacks.Callback):
    """Counts optimizer steps and updates the masks when the schedule says so.

    `model.fit(..., callbacks=[tfprune.UpdatePruningStep()])` is all that a training with Keras
    needs; its place among the callbacks does not matter. The sparsity stands beside the loss in
    the progress bar, in `logs["sparsity"]` and in the history. Where training ends short of the
    schedule, the callback warns.

    In a training loop of your own, give it the model and call `step()` after each optimizer step.

    Args:
        model: The wrapped model, for a loop of your own only.

    Raises:
        ValueError: If the model has no wrapped layer, a weight turns NaN or infinite, or a second
            UpdatePruningStep stands among the callbacks.
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

    def __init__(self, model=None):
        super().__init__()
        # Not `self.model`: on JAX, Keras writes the state into the variables on each access.
        self._trained: Any = None
        self._owners: list = []
        self._schedules = _Lookahead()
        self._asked: dict = {}
        self._sparsity = 0.0
        self._projection: Projection | None = None
        self._clock = _Clock(model)
        self._in_epoch = (0, 1, 0)
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
        optimizer = getattr(model, "optimizer", None)
        self._clock = _Clock(model)
        for owner in self._owners:
            owner.mask_set.step = owner.mask_set.current_step()
            owner.mask_set.clock = self._clock
            owner._trained_by_callback = True
            for weight in owner.mask_set.weights:
                weight.forget_count()
        self._restore_seeds(model)
        if optimizer is not None and not optimizer.built:
            optimizer.build(model.trainable_variables)
        self._mask_averages(optimizer)
        if graph.backend() == "jax":
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

    def on_train_batch_end(self, batch, logs=None):
        if self._clock.was_reset:
            # A file was loaded in the middle of training: go on from what it says.
            self._sync()
            self._restore_seeds(self._trained)
            self._begin_counting(self._last_batch(batch) + 1)
        before, accumulation, first = self._in_epoch
        batches = self._last_batch(batch) + 1 - first
        elapsed = (before + batches) // accumulation - before // accumulation
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
        due = self._due(0)
        if due:
            if sync is not None:
                sync()
            self._update(due)
            self._asked = {}
        elif graph.backend() == "torch":
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
        before, accumulation = (0, 1) if optimizer is None else graph.batches_done(optimizer)
        self._in_epoch = (before, accumulation, first)
        self._clock.start(optimizer, before, accumulation)

    def _settle(self):
        """Takes the exact count from the optimizer, once an epoch."""
        if self._clock.running:
            self._sync()
            elapsed = self._clock.elapsed()
            for owner in self._owners:
                owner.mask_set.step += elapsed
            self._clock.stop()

    def _sync(self):
        if graph.backend() == "jax" and hasattr(self._trained, "jax_state_sync"):
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
        update_masks(compete(due))
        self._refresh_sparsity()

    def _refresh_sparsity(self):
        weights = self._weights()
        self._sparsity = sum(w.zeros for w in weights) / max(1, sum(w.size for w in weights))

    def _weights(self):
        return [weight for owner in self._owners for weight in owner.mask_set.weights]

    # -- What else has to stay exact -----------------------------------------------------------

    def _mask_averages(self, optimizer):
        known = {} if optimizer is None else graph.averages(optimizer)
        for weight in self._weights():
            weight.constraint.average = known.get(id(weight.variable))

    def _restore_seeds(self, model):
        """Random states that a file brought along go back into the model's generators."""
        for owner in self._owners:
            seeds, owner.mask_set.seeds = owner.mask_set.seeds, None
            generators = graph.seed_generators(model)
            if seeds and len(seeds) == len(generators):
                for generator, state in zip(generators, seeds, strict=True):
                    dtype = keras.backend.standardize_dtype(generator.state.dtype)
                    generator.state.assign(np.array(state).astype(dtype))

    def _warn_if_short(self):
        for schedule, pairs in self._by_schedule().items():
            step = pairs[0][0]
            weights = [weight for _, weight in pairs]
            schedule = weights[0].method.schedule
            held = self._schedules.held(schedule, step)
            pruned, expected, units = expected_zeros(compete([(held, w) for w in weights]))
            end = getattr(schedule, "end_step", -1)
            target = schedule.target_sparsity
            if pruned != expected:
                self._warn(
                    f"a sparsity of {expected / units:.4f}, the schedule's own at step {step}",
                    f"{pruned / units:.4f}",
                    "Something else wrote the masks or the schedule: look for callbacks that "
                    "restore earlier weights.",
                )
            elif step < end or (end < 0 and held < np.float32(target)):
                self._warn(
                    f"training to reach the schedule's sparsity of {target:g}"
                    + (f" at step {end}" if end >= 0 else ""),
                    f"sparsity {pruned / units:.4f} at step {step}, where training ended",
                    f"Train for {end - step} more optimizer steps, or lower end_step; "
                    "from_epochs(..., steps_per_epoch=...) counts in epochs."
                    if end >= 0
                    else "Train for longer.",
                )

    def _by_schedule(self):
        found: dict = {}
        for owner in self._owners:
            for weight in owner.mask_set.weights:
                key = (id(weight.method.schedule), owner.mask_set.step)
                for known in found:
                    other = found[known][0][1]
                    if known[1] == key[1] and other.method.same_competition(weight.method):
                        key = known
                        break
                found.setdefault(key, []).append((owner.mask_set.step, weight))
        return found

    @staticmethod
    def _warn(expected, received, mend):
        warnings.warn(check.message(expected, received, mend), stacklevel=4)


class _Clock:
    """Says how many optimizer steps have passed in the running epoch, and the random states."""

    def __init__(self, model):
        self._model = model
        # The one that was counted when the clock was started: compiling again brings another.
        self._optimizer: Any = None
        self.running = False
        self.was_reset = False
        self._batches = 0
        self._accumulation = 1

    def start(self, optimizer, batches, accumulation):
        self._optimizer = optimizer
        self.running, self.was_reset = True, False
        self._batches, self._accumulation = batches, accumulation

    def stop(self):
        self.running, self.was_reset = False, False

    def reset(self):
        """Called when the step was loaded from a file."""
        self.was_reset = self.was_reset or self.running
        self.running = False

    def elapsed(self):
        """Optimizer steps since `start`; reads one number from the device."""
        if not self.running or self._optimizer is None:
            return 0
        batches, accumulation = graph.batches_done(self._optimizer)
        return batches // accumulation - self._batches // accumulation

    def seeds(self):
        return [
            ops.convert_to_numpy(generator.state).astype("int64").tolist()
            for generator in graph.seed_generators(self._model)
        ]


class _Lookahead:
    """Evaluates schedules for many steps ahead at once."""

    def __init__(self):
        self._known: dict = {}

    def _window(self, schedule, step):
        entry = self._known.get(id(schedule))
        if entry is None or not entry[1] <= step < entry[1] + _AHEAD:
            first = step // _AHEAD * _AHEAD
            due, sparsity = schedule.evaluate(np.arange(first, first + _AHEAD))
            # The schedule is kept too, so that its id stays its own.
            entry = (schedule, first, np.flatnonzero(due) + first, sparsity)
            self._known[id(schedule)] = entry
        return entry

    def latest_due(self, schedule, first, last):
        """Sparsity at the latest due step in [first, last], or `None`."""
        step = last
        while step >= first:
            _, start, due, sparsity = self._window(schedule, step)
            position = np.searchsorted(due, step, side="right") - 1
            if position >= 0 and due[position] >= first:
                return float(sparsity[due[position] - start])
            step = start - 1
        return None

    def held(self, schedule, step):
        """Sparsity at the latest due step up to `step`: what the masks hold then; 0 if none."""
        value = self.latest_due(schedule, 0, step)
        return 0.0 if value is None else value
