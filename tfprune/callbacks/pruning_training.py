"""The training of a pruned model: counts steps, updates masks, keeps pruned weights at zero."""

import warnings
from contextlib import contextmanager
from typing import Any

import keras

from tfprune import _keras
from tfprune._base import validation as check
from tfprune._keras.checks import check_built, not_keras
from tfprune._updates.evidence import Evidence
from tfprune._updates.placement import checked_place
from tfprune._wrapping.owner import mask_owners, warn_unattended
from tfprune.callbacks.mask_updater import MaskUpdater
from tfprune.callbacks.projection import Projection, mask_averages
from tfprune.callbacks.resumption import Resumption
from tfprune.callbacks.shortfall import RESTORED, emptied, made_by_others, shortfalls
from tfprune.callbacks.step_count import StepCounter, steps_in


class TrainingPart:
    """An extension of a training; all methods do nothing unless a subclass overrides them.

    Attributes:
        follows_schedule: Whether the masks follow the schedules; if so, a training that ends
            before its schedules raises a warning.
    """

    follows_schedule = True

    def check(self, model):
        """Called before the model is changed; raises if the model does not fit."""

    def attach(self, training):
        """Called when the training is attached to its model."""

    def begin(self, training):
        """Called when `fit` begins."""

    def begin_epoch(self, training, epoch):
        """Called before the schedules are evaluated at the start of an epoch."""

    def asked(self, training, elapsed):
        """Called after the schedules are evaluated: at each batch and around each epoch."""

    def end_batch(self, training):
        """Called after each batch."""

    def end_epoch(self, training):
        """Called after each epoch."""

    def step(self, training, sync):
        """Called after each step of a custom loop; returns whether masks changed."""
        return False


class PruningTraining:
    """Counts optimizer steps and updates the masks according to the schedules.

    Each pruning callback holds one and forwards the events of `fit` to it.

    Args:
        part: A `TrainingPart`, or `None`.
        data, batches, batch_size, loss: For criteria, as in `Evidence`.
        masks_on: Where masks are computed: "auto", "host" or "device".

    Attributes:
        model: The model, or `None` before `attach`.
        counter: Its `StepCounter`.
        updater: Its `MaskUpdater`.
        evidence: Its `Evidence`.
        projection: The `Projection` of its weights onto their masks.
        params: Keras's parameters of the training: "steps", "epochs".
    """

    def __init__(self, part=None, data=None, batches=1, batch_size=32, loss=None, masks_on="auto"):
        self._masks_on = checked_place(masks_on)
        self._part = TrainingPart() if part is None else part
        self._evidence_from = {
            "data": data,
            "batches": batches,
            "batch_size": batch_size,
            "loss": loss,
        }
        self.evidence = Evidence(None, **self._evidence_from)
        # Not a callback's `model`, because on JAX, each access writes the state into the variables.
        self.model: Any = None
        self.counter: Any = None
        self.updater: Any = None
        self.params: dict = {}
        self.is_own_loop = False
        self.projection: Any = None
        self._resumption: Any = None
        # Whether the masks of a file disagree with the schedule.
        self._resumed_otherwise = False

    def attach(self, model, own_loop=False):
        """Attaches a model; pass `own_loop` if the user calls `step` instead of `fit`."""
        if own_loop and not isinstance(model, keras.layers.Layer):
            raise TypeError(not_keras(model, "model"))
        self.is_own_loop = self.is_own_loop or own_loop
        self._part.check(model)
        owners = mask_owners(model)
        _check_ready(model, owners)
        if not own_loop:
            _check_optimizer(model)
        self.model = model
        self.evidence = Evidence(model, **self._evidence_from)
        for owner in owners:
            for weight in owner.pruned_weights:
                weight.forget_count()
        self.counter = StepCounter(model, owners)
        self._resumption = Resumption(owners)
        self.updater = MaskUpdater(model, self.counter, self.evidence, self._masks_on)
        self.counter.take_over()
        self.counter.restore_seeds()
        _follow_state_trees(model)
        optimizer = getattr(model, "optimizer", None)
        if optimizer is not None and not optimizer.built:
            optimizer.build(model.trainable_variables)
        mask_averages(optimizer, self.updater.weights)
        self.projection = Projection(model)
        if _keras.backend() == "jax" and optimizer is not None:
            self.projection.install(model)
        with _left_if_refused(owners):
            self._part.attach(self)
        if own_loop:
            self.ask()

    def begin(self, params):
        """Begins a `fit`."""
        with _left_if_refused(self.updater.update.owners):
            self.params = params or {}
            if not self.counter.is_in_charge:
                raise ValueError(
                    check.message(
                        "one UpdatePruningStep among the callbacks",
                        "several, which would count each step several times",
                        "Keep only one of them. RigL, SET and SNFS take its place.",
                    )
                )
            self.counter.clock.stop()
            self.counter.measure_epoch(self.params.get("steps"))
            self.updater.forget()
            self._resumed_otherwise = False
            self._resumption.begin(self.model)
            self._part.begin(self)

    def begin_epoch(self, epoch):
        """Begins an epoch; another callback may have restored weights since `begin`."""
        self.counter.begin_epoch()
        steps = steps_in(self.model, self.params.get("steps"))
        resumed = self._resumption.begin_epoch(epoch, steps)
        self._part.begin_epoch(self, epoch)
        # A file that another callback loaded since `begin` brings its own masks.
        self.updater.refresh()
        self.ask()
        if resumed and self._part.follows_schedule:
            for said in made_by_others(self.updater.update, self.updater.schedules):
                self._resumed_otherwise = True
                _warn(*said)

    def ask(self, elapsed=None):
        """Evaluates the schedules.

        Args:
            elapsed: Optimizer steps of the epoch so far, derived from the number of batches; `None`
                evaluates the current step, even if it was evaluated before.
        """
        if elapsed is None:
            self.counter.restore_seeds()
            self.updater.forget()
        self.updater.ask(elapsed or 0)
        self._part.asked(self, elapsed or 0)

    def go_on(self, batch):
        """Restarts the count if a file was loaded, or another `fit` ran, during training."""
        if self.counter.clock.was_reset:
            _keras.sync_state(self.model)
            self.counter.restore_seeds()
            self.counter.begin_epoch(batch)

    def end_batch(self, batch):
        """Counts the batches up to this one."""
        # With several steps per execution, Keras may count beyond the epoch's last batch.
        steps = self.params.get("steps")
        last = batch if steps is None else min(batch, steps - 1)
        self.go_on(last + 1)
        self.ask(self.counter.saw(last))
        self._part.end_batch(self)

    def end_epoch(self):
        """Ends an epoch."""
        self.counter.end_epoch(self.params.get("steps"))
        self.ask()
        self._part.end_epoch(self)

    def end(self):
        """Ends a `fit`: projects once more, and warns if training ended before its schedules."""
        self.counter.end_epoch(self.params.get("steps"))
        self.counter.clock.stop()
        updater = self.updater
        updater.refresh(masks_changed=True)
        owners = updater.update.owners
        takes_steps = bool(self.model.trainable_variables)
        if self._part.follows_schedule:
            for said in shortfalls(
                updater.update, updater.schedules, takes_steps, self._resumed_otherwise
            ):
                _warn(*said)
            for said in emptied(updater.update, updater.schedules):
                _warn(*said)
        for owner in owners:
            owner.leave(self.is_own_loop)
        if isinstance(self.model, keras.Model):
            _keras.before_training(self.model, warn_if_unattended)
        _keras.after_training(self.model, _restored_check(self.counter, updater))

    def step(self, sync=None):
        """Counts one step of a custom loop; returns whether masks changed."""
        if self.model is None:
            raise ValueError(
                check.message(
                    "UpdatePruningStep to have a model",
                    "UpdatePruningStep().step()",
                    "Pass the model: UpdatePruningStep(model).",
                )
            )
        self.counter.add(1)
        due = self.updater.due(0)
        if due:
            if sync is not None:
                sync()
            self.updater.apply(due)
            self.updater.forget()
        elif _keras.backend() == "torch":
            # torch.optim does not apply constraints.
            self.updater.project()
        return self._part.step(self, sync) or bool(due)


@contextmanager
def _left_if_refused(owners):
    """Context in which an error ends the training before it begins: a later one is warned."""
    try:
        yield
    except Exception:
        for owner in owners:
            owner.leave()
        raise


def _follow_state_trees(model):
    """Makes a model's state trees hold the pruning step, and takes it over from others."""

    def before_reading():
        for owner in mask_owners(model):
            owner.mask_set.write_variable()

    def after_writing():
        for owner in mask_owners(model):
            owner.mask_set.read_variable(earlier_too=True)

    _keras.around_state_trees(model, before_reading, after_writing)


def _check_ready(model, owners):
    """Raises unless a model has wrappers, and masks in all of them."""
    if not owners:
        check_built(model)
        raise ValueError(
            check.message(
                "a model with wrapped layers",
                f"model '{model.name}' without any",
                "Call model = tfprune.prune_low_magnitude(model, schedule) before fit.",
            )
        )
    if _keras.is_fully_sharded(model):
        raise ValueError(
            check.message(
                "a model whose layers compute with the parameters that train",
                f"model '{model.name}' after fully_shard",
                "fully_shard puts new, sharded parameters in place of those that Keras's variables "
                "hold, so training does not reach the layers' variables, masks among them. Use "
                "DistributedDataParallel, or shard weights on the JAX backend with "
                "keras.distribution.ModelParallel.",
            )
        )
    unbuilt = [owner.name for owner in owners if owner.mask_set is None]
    if unbuilt:
        raise ValueError(
            check.message(
                "a built model",
                f"'{unbuilt[0]}' without weights yet",
                "Give the model a keras.Input, or call it on data once.",
            )
        )


def _check_optimizer(model):
    """Raises if the optimizer cannot train the weights of its model."""
    optimizer = getattr(model, "optimizer", None)
    if optimizer is None or not model.trainable_variables:
        return
    if _keras.is_built_for_nothing(optimizer):
        raise ValueError(
            check.message(
                f"an optimizer that knows the weights of '{model.name}'",
                f"{type(optimizer).__name__} that knows none, as Keras loads it from the old .h5 "
                "format",
                "Call model.compile again, for a new optimizer. A .keras file keeps the optimizer "
                'and the pruning step: model.save("model.keras").',
            )
        )


def _restored_check(counter, updater):
    """Returns a final check to run after the other callbacks, which may restore earlier masks."""
    zeros = [weight.zeros for weight in updater.weights]

    def check_restored():
        if not counter.is_in_charge:
            return
        before = updater.sparsity
        updater.refresh(masks_changed=True)
        if [weight.zeros for weight in updater.weights] != zeros:
            _warn(
                f"the sparsity that training ended with, {before:.4f}",
                f"{updater.sparsity:.4f}, from a callback that restored an earlier epoch",
                RESTORED,
            )

    return check_restored


def _warn(expected, received, mend):
    warnings.warn(check.message(expected, received, mend), stacklevel=5)


def warn_if_unattended(model):
    """Warns of a training without UpdatePruningStep that follows one with it.

    Its train function is already compiled, so no wrapper is called that could warn.
    """
    unattended = any(not owner.attended for owner in mask_owners(model))
    if unattended and _keras.backend() == "jax":
        # Compiling may have moved the variables to other positions.
        Projection(model).install(model)
    warn_unattended(model)
