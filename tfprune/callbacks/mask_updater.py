"""Mask updates by schedule, independent of Keras's callbacks."""

from tfprune import _keras
from tfprune._updates.mask_update import MaskUpdate
from tfprune.callbacks.lookahead import Lookahead


class MaskUpdater:
    """Evaluates the schedules of a model's weights, and updates the masks that are due.

    Args:
        model: A built model with wrappers.
        counter: The `StepCounter` of the model.
        evidence: The `Evidence` for the criteria.
        masks_on: Where masks are computed: "auto", "host" or "device".

    Attributes:
        update: The `MaskUpdate` of the model.
        schedules: The `Lookahead` that evaluates the schedules.
        sparsity: Fraction of zeros over all pruned weights together.
    """

    def __init__(self, model, counter, evidence, masks_on="auto"):
        self.update = MaskUpdate(model, masks_on)
        self.schedules = Lookahead()
        self._model = model
        self._counter = counter
        self._evidence = evidence
        self._asked: dict = {}
        self._owner = {id(w): owner for owner in self.update.owners for w in owner.pruned_weights}
        self._evidence.check([w for w in self.update.weights if self._is_still_due(w)])
        self.refresh()

    @property
    def weights(self):
        """List of all `PrunedWeight`s of the model."""
        return self.update.weights

    def _is_still_due(self, weight):
        """Whether a weight has further mask updates; true if its schedule has no known end."""
        if self.update.competitor(weight) is None:
            return False
        end = getattr(weight.method.schedule, "end_step", -1)
        return not 0 <= end < self._owner[id(weight)].pruning_step

    def _step_of(self, weight):
        return self._owner[id(weight)].mask_set.step

    def forget(self):
        """Evaluates all schedules again, including past steps."""
        self._asked = {}

    def ask(self, elapsed):
        """Updates the masks that are due.

        Args:
            elapsed: Optimizer steps of the epoch so far, derived from the number of batches.
        """
        due = self.due(elapsed)
        if not due:
            return
        _keras.sync_state(self._model)
        # Batches may be ahead of the optimizer, which skips steps whose gradients overflow and
        # takes none if the model has no trainable weights.
        exact = min(elapsed, self._counter.clock.elapsed())
        if exact < elapsed:
            due = self.due(exact)
        if due:
            self.apply(due)
        for weight in self.weights:
            self._asked[id(weight)] = self._step_of(weight) + exact

    def due(self, elapsed):
        """Returns `(sparsity, weight)` for all weights that became due since the last call."""
        due = []
        for weight in self.weights:
            step = self._step_of(weight) + elapsed
            since = self._asked.get(id(weight), step - 1)
            if since >= step:
                continue
            sparsity = self.schedules.latest_due(weight.method.schedule, since + 1, step)
            if sparsity is not None:
                due.append((sparsity, weight))
            else:
                self._asked[id(weight)] = step
        return due

    def apply(self, aims):
        """Updates masks to a new sparsity; `aims` are `(sparsity, weight)` pairs."""
        self.update.apply(aims, self._evidence)
        self.refresh()

    def project(self):
        """Sets all pruned weights to zero, in case other code changed them."""
        for weight in self.weights:
            weight.project()

    def refresh(self, masks_changed=False):
        """Counts the zeros; pass `masks_changed` if other code may have changed the masks."""
        if masks_changed:
            for weight in self.weights:
                weight.forget_count()
            self.project()
        weights = [weight for weight in self.weights if not weight.follows]
        self.sparsity = sum(w.zeros for w in weights) / max(1, sum(w.size for w in weights))
