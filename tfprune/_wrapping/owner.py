"""What holds masks: of a layer inside a wrapper, or of a model that is pruned as it is."""

import warnings
from contextlib import contextmanager
from typing import Any

from tfprune import _keras
from tfprune._base import validation as check
from tfprune._wrapping.mask_set import BEFORE_LISTS, MaskSet
from tfprune._wrapping.methods import Method

_ADD = "Add callbacks=[tfprune.UpdatePruningStep()] to model.fit(...)"


class Owner:
    """Holds `self.inner` and the masks of its weights, which are made when that has its weights."""

    name: Any

    def _init_masks(self, method, overrides, followers=None, weights=None, reasons=None):
        self._method = method
        # `None` where filters are pruned layer by layer.
        self._followers = None if followers is None else [tuple(pair) for pair in followers]
        self._overrides = dict(overrides or {})
        self._chosen = weights
        self._reasons = dict(reasons or {})
        # In a list, Keras would try to track what it holds.
        self._mask_set: Any = None
        # Whether an UpdatePruningStep counts the steps now, whether its absence was told, and
        # whether a training step runs that projects its result by itself (JAX).
        self.attended = False
        self.warned = False
        self.projected = False

    @property
    def inner(self):
        """The layer or model whose weights are pruned."""
        raise NotImplementedError(f"{type(self).__name__} has to say what it wraps.")

    @property
    def pruned_weights(self):
        """List of `PrunedWeight`, one for each mask; empty before the layer is built."""
        return [] if self._mask_set is None else list(self._mask_set.weights)

    @property
    def coupled(self):
        """Whether filters were wrapped together with those of other layers."""
        return self._followers is not None

    @property
    def mask_set(self):
        """The masks with what belongs to them, or `None` before the layer is built."""
        return self._mask_set

    @property
    def pruning_step(self):
        """Optimizer steps completed since pruning began."""
        return 0 if self._mask_set is None else self._mask_set.current_step()

    @property
    def reasons(self):
        """`{path: why a layer of the model is not pruned}`; one owner of a model keeps them."""
        return dict(self._reasons)

    def remember_reasons(self, reasons):
        """Keeps why layers of the model are not pruned, for reports."""
        self._reasons = dict(reasons)

    def name_of(self, path):
        """What messages and reports call the weight at a path inside `inner`."""
        return f"{self.name}/{path}"

    def make_masks(self):
        """Makes the masks; `inner` has its weights."""
        self._mask_set = MaskSet(
            self, self.inner, self._method, self._overrides, self._followers or (), self._chosen
        )

    def check_call(self):
        """Raises, or warns, if a call that begins now would compute or train without the masks."""
        for weight in self.pruned_weights:
            weight.check_in_place()
        if self.attended or not _keras.is_training():
            return
        if _keras.backend() == "jax" and _keras.is_tracing_without_state() and not self.projected:
            raise ValueError(
                check.message(
                    "training on the JAX backend to be run with UpdatePruningStep, which keeps "
                    "the pruned weights at zero",
                    f"'{self.name}' in a training step without it",
                    f"{_ADD}, or call tfprune.UpdatePruningStep(model) before a loop of your own.",
                )
            )
        self.warn_unattended()

    def attend(self):
        """Says that a callback counts the steps and updates the masks from now on."""
        self.attended = True

    def leave(self, attended=False):
        """Says that the training is over; `attended` if a loop of one's own goes on."""
        self.attended, self.warned = attended, False

    @contextmanager
    def projecting(self):
        """While a training step runs that projects its result by itself, as on JAX."""
        self.projected = True
        try:
            yield
        finally:
            self.projected = False

    def warned_elsewhere(self):
        """Says that the warning was given for another wrapper of the model."""
        self.warned = True

    def warn_unattended(self):
        """Warns, once, that nothing updates the masks in training."""
        if not self.warned:
            self.warned = True
            warnings.warn(
                check.message(
                    f"'{self.name}' to be trained with UpdatePruningStep",
                    "a training step without it: the sparsity will not change",
                    f"{_ADD}; in a loop of your own, call tfprune.UpdatePruningStep(model).step() "
                    "after each optimizer step.",
                ),
                stacklevel=3,
            )

    def pruning_config(self):
        """What a config says of the pruning, in serialized form."""
        if _keras.is_legacy_h5():
            warnings.warn(
                check.message(
                    "a model with wrapped layers to be saved as .keras or .weights.h5",
                    "the old .h5 format, which keeps the masks but neither the pruning step nor "
                    "the states of random generators: the schedule would begin anew",
                    'Use model.save("model.keras"), or strip the model first if it is trained.',
                ),
                stacklevel=2,
            )
        method = self._method.get_config()
        config = {
            "pruning_schedule": method["schedule"],
            "pattern": method["pattern"],
            "scope": method["scope"],
            "criterion": method["criterion"],
            "overrides": [
                [place, None if method is None else method.get_config()]
                for place, method in self._overrides.items()
            ],
        }
        if self._followers is not None:
            config["followers"] = [list(pair) for pair in self._followers]
        # A config without this list stays one without it: it stands for the weights that were
        # known when there was none.
        if self._chosen != BEFORE_LISTS:
            made = self._mask_set is not None
            config["weights"] = self._mask_set.chosen() if made else self._chosen
        if self._reasons:
            config["reasons"] = self.reasons
        return config


def overrides_from(overrides):
    """The methods of single layers, from objects or from serialized form."""
    pairs = overrides.items() if isinstance(overrides, dict) else (overrides or [])
    return {
        place: Method.of(**method) if isinstance(method, dict) else method
        for place, method in pairs
    }
