"""Owners of masks: for a layer inside a wrapper, or for a model pruned in place."""

import warnings
from contextlib import contextmanager
from typing import Any

from tfprune import _keras
from tfprune._base import validation as check
from tfprune._wrapping.mask_set import MaskSet
from tfprune._wrapping.methods import Method
from tfprune._wrapping.prunable import KNOWN_TO_0_1

_ADD = "Add callbacks=[tfprune.UpdatePruningStep()] to model.fit(...)"


class Owner:
    """Holds `self.inner` and the masks of its weights, made once the weights exist."""

    name: Any

    def _init_masks(self, method, overrides, followers=None, weights=None, reasons=None):
        self._method = method
        # `None` where filters are pruned layer by layer.
        self._followers = followers_from(followers)
        self._overrides = dict(overrides or {})
        self._chosen = weights
        self._reasons = dict(reasons or {})
        # Keras tracks the contents of lists.
        self._mask_set: Any = None
        # Whether an UpdatePruningStep counts the steps now, whether its absence was told, and
        # whether a training step runs that projects its own result (JAX).
        self.attended = False
        self.warned = False
        self.projected = False

    @property
    def inner(self):
        """The layer or model whose weights are pruned."""
        raise NotImplementedError(f"{type(self).__name__} must define which layer it wraps.")

    def mask_owner(self):
        """Returns itself, as `mask_owners` finds it."""
        return self

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
        """The `MaskSet`, or `None` before the layer is built."""
        return self._mask_set

    @property
    def pruning_step(self):
        """Optimizer steps completed since pruning began."""
        return 0 if self._mask_set is None else self._mask_set.current_step()

    @property
    def reasons(self):
        """`{path: reason}` for layers that are not pruned; one owner stores them per model."""
        return dict(self._reasons)

    def remember_reasons(self, reasons):
        """Stores the reasons why layers of the model are not pruned, for reports."""
        self._reasons = dict(reasons)

    def name_of(self, path):
        """Returns the name of a weight of `inner` in messages and reports."""
        return f"{self.name}/{path}"

    def make_masks(self):
        """Makes the masks. Call it once `inner` has its weights."""
        self._mask_set = MaskSet(
            self, self.inner, self._method, self._overrides, self._followers or (), self._chosen
        )

    def check_call(self):
        """Raises or warns if a call would compute or train without the masks."""
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
                    f"{_ADD}, or call tfprune.UpdatePruningStep(model) before a custom loop.",
                )
            )
        if not self.warned:
            called = _keras.outermost_called()
            warn_unattended(self if called is None else called, self)

    def attend(self):
        """Records that a callback now counts the steps and updates the masks."""
        self.attended = True

    def leave(self, attended=False):
        """Records that training has ended; pass `attended` if a custom loop continues."""
        self.attended, self.warned = attended, False

    @contextmanager
    def attending(self):
        """Context for running layers in training mode without training, and without a callback."""
        before = self.attended
        self.attended = True
        try:
            yield
        finally:
            self.attended = before

    @contextmanager
    def projecting(self):
        """Context for a training step that projects its own result, as on JAX."""
        self.projected = True
        try:
            yield
        finally:
            self.projected = False

    def pruning_config(self):
        """Returns the pruning settings in serialized form, for a config."""
        if _keras.is_legacy_h5():
            warnings.warn(
                check.message(
                    "a model with wrapped layers to be saved as .keras or .weights.h5",
                    "the old .h5 format, which keeps the masks but neither the pruning step nor "
                    "the states of random generators: the schedule would start over",
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
        # A config without this list must stay without it: it means the weights known before
        # there were lists.
        if self._chosen != KNOWN_TO_0_1:
            made = self._mask_set is not None
            config["weights"] = self._mask_set.chosen() if made else self._chosen
        if self._reasons:
            config["reasons"] = self.reasons
        return config


def mask_owners(model):
    """Returns the owners of masks in a model, including the model, each once, in a fixed order."""
    # Methods, because Keras saves layers and variables in attributes.
    found = [getattr(layer, "mask_owner", None) for layer in _keras.flatten(model)]
    return [owner for owner in (find() for find in found if callable(find)) if owner is not None]


def warn_unattended(model, *others):
    """Warns once for a whole model that no callback updates its masks during training.

    Args:
        model: The model or layer that trains.
        *others: Owners that may be missing among those of the model.
    """
    waiting = [
        owner for owner in (*mask_owners(model), *others) if not (owner.attended or owner.warned)
    ]
    for owner in waiting:
        owner.warned = True
    if waiting:
        warnings.warn(
            check.message(
                f"'{model.name}' to be trained with UpdatePruningStep",
                "a training step without it: the sparsity will not change",
                f"{_ADD}. In a custom loop, call tfprune.UpdatePruningStep(model).step() "
                "after each optimizer step.",
            ),
            stacklevel=4,
        )


def overrides_from(overrides):
    """The methods of single layers, from objects or from serialized form."""
    if overrides is not None and not isinstance(overrides, (dict, list, tuple)):
        raise _not_overrides(f"overrides={overrides!r:.80}")
    pairs = overrides.items() if isinstance(overrides, dict) else (overrides or [])
    try:
        found = {
            place: Method.of(**method) if isinstance(method, dict) else method
            for place, method in pairs
        }
    except (TypeError, LookupError, AttributeError, RecursionError) as error:
        raise _not_overrides(f"{error}") from error
    except ValueError as error:
        if "Expected" in str(error):
            raise
        raise _not_overrides(f"{error}") from error
    for place, method in found.items():
        if not isinstance(place, str) or not (method is None or isinstance(method, Method)):
            raise _not_overrides(f"{place!r:.40}: {method!r:.40}")
    return found


def _not_overrides(received):
    return TypeError(
        check.message(
            "`overrides` as get_config() of a wrapper gives them, methods by place",
            received[:200],
            "Use rules=[tfprune.Rule(...)] of prune_low_magnitude.",
        )
    )


def followers_from(followers):
    """The weights whose masks follow from others', from a list of pairs."""
    if followers is None:
        return None
    pairs: list = list(followers) if isinstance(followers, (list, tuple)) else [None]
    for pair in pairs:
        fits = isinstance(pair, (list, tuple)) and len(pair) == 2
        if not fits or not isinstance(pair[0], str) or not isinstance(pair[1], int):
            raise TypeError(
                check.message(
                    "`followers` as get_config() of a wrapper gives them, pairs of place and index",
                    f"{followers!r:.80}",
                    "Leave it out: prune_low_magnitude finds them.",
                )
            )
    return [tuple(pair) for pair in pairs]
