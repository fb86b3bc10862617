"""Wrappers: a layer, or a subclassed model, together with the masks of the weights inside it."""

import warnings
from contextlib import contextmanager

import keras
from keras import tree

from tfprune import _keras, schedules
from tfprune._base import validation as check
from tfprune._keras.checks import not_keras, nothing_to_prune
from tfprune._wrapping.mask_set import MaskSet, find_prunable, tensorflow_state
from tfprune._wrapping.methods import Method
from tfprune._wrapping.tfmot_arguments import pattern_of

_ADD = "Add callbacks=[tfprune.UpdatePruningStep()] to model.fit(...)"


class MaskOwner:
    """What `PruneLowMagnitude` and `PrunedModel` share: it holds `self.inner` and its masks.

    Masks are made in `build`, when the inner layer has its weights. Without the masks, the owner
    does nothing that the inner layer would not do: same output, masks of padding, dtypes, losses.
    """

    supports_masking = True
    # Walks through a model's graph go on with `inner`.
    is_transparent = True
    name: str
    built: bool

    def _init_masks(self, method, overrides, followers=None):
        self._method = method
        # `None` where filters are pruned layer by layer.
        self._followers = None if followers is None else [tuple(pair) for pair in followers]
        self._overrides = dict(overrides or {})
        # In a list, Keras would try to track what it holds.
        self._mask_set = None
        # Whether an UpdatePruningStep counts the steps now, whether its absence was told, and
        # whether a training step runs that projects its result by itself (JAX).
        self.attended = False
        self.warned = False
        self.projected = False
        _keras.adopt_call_arguments(self, self.inner)

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

    def __call__(self, *args, **kwargs):
        if not self.built and not self.inner.built:
            # Keras builds the inner layer by its own rules, whatever arguments it takes.
            symbolic_args, symbolic_kwargs = tree.map_structure(_as_symbolic, (args, kwargs))
            self.inner(*symbolic_args, **symbolic_kwargs)
        return super().__call__(*args, **kwargs)  # type: ignore[misc]

    def build(self, input_shape=None):
        if not self.inner.built:
            self.inner.build(input_shape)
        if self._mask_set is None:
            self._mask_set = MaskSet(
                self, self.inner, self._method, self._overrides, self._followers or ()
            )
            for position, weight in enumerate(self._mask_set.weights):
                # tf.train.Checkpoint finds variables by attributes alone.
                setattr(self, f"_mask_{position}", weight.mask)
                if weight.initial is not None:
                    setattr(self, f"_initial_{position}", weight.initial)
            if _keras.backend() == "tensorflow":
                self._checkpoint_state = tensorflow_state(self._mask_set)
        self.built = True

    def get_build_config(self):
        return {"inner": self.inner.get_build_config()} if self.inner.built else None

    def build_from_config(self, config):
        if config and config.get("inner"):
            if not self.inner.built:
                _keras.build_from_config(self.inner, config["inner"])
            if self.inner.built and not self.built:
                self.build()

    def call(self, *args, **kwargs):
        for weight in self.pruned_weights:
            weight.check_in_place()
        self._check_attended()
        return self.inner(*args, **kwargs)

    def _check_attended(self):
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

    def compute_mask(self, inputs, previous_mask=None):
        if not self.inner.supports_masking:
            return None
        return self.inner.compute_mask(inputs, previous_mask)

    def compute_output_shape(self, *args, **kwargs):
        return self.inner.compute_output_shape(*args, **kwargs)

    def compute_output_spec(self, *args, **kwargs):
        return self.inner.compute_output_spec(*args, **kwargs)

    def save_own_variables(self, store):
        if self._mask_set is not None:
            self._mask_set.save(store)

    def load_own_variables(self, store):
        if self._mask_set is None:
            raise ValueError(
                check.message(
                    f"'{self.name}' to be built before its masks are loaded",
                    "an unbuilt layer",
                    "Call the model once on data first.",
                )
            )
        self._mask_set.load(store, self.name)

    def reset_state(self):
        """Resets the states of stateful recurrent layers, as those layers do themselves."""
        for layer in _keras.flatten(self.inner):
            if isinstance(layer, keras.layers.RNN) and layer.stateful:
                layer.reset_state()

    def reset_states(self):
        """The older name of `reset_state`."""
        self.reset_state()

    def enable_lora(self, *args, **kwargs):
        """Not possible while wrapped: the effective weight would be dense."""
        raise self._strip_first("enable_lora()")

    def quantize(self, *args, **kwargs):
        """Not possible while wrapped: it replaces the weight that the mask belongs to."""
        raise self._strip_first("quantize()")

    def _strip_first(self, call):
        return ValueError(
            check.message(
                "a layer without masks",
                f"{call} on '{self.name}', whose weights are masked",
                f"Call tfprune.strip_pruning(model) first, then {call}.",
            )
        )

    def get_config(self):
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
        # dtype and the like are the inner layer's; what is written here is the owner's own.
        config = super().get_config()  # type: ignore[misc]
        method = self._method.get_config()
        config.update(
            pruning_schedule=method["schedule"],
            pattern=method["pattern"],
            scope=method["scope"],
            criterion=method["criterion"],
            overrides=[
                [place, None if method is None else method.get_config()]
                for place, method in self._overrides.items()
            ],
        )
        if self._followers is not None:
            config["followers"] = [list(pair) for pair in self._followers]
        return config


def _as_symbolic(value):
    if hasattr(value, "shape") and hasattr(value, "dtype"):
        return keras.KerasTensor(value.shape, dtype=keras.backend.standardize_dtype(value.dtype))
    return value


def _overrides_from(overrides):
    pairs = overrides.items() if isinstance(overrides, dict) else (overrides or [])
    return {
        place: Method.of(**method) if isinstance(method, dict) else method
        for place, method in pairs
    }


def _wrap_around(outer, layer):
    return ValueError(
        check.message(
            f"a pruning wrapper around {outer}",
            f"'{layer.name}', a {type(layer).__name__} that is wrapped inside of it",
            f"Wrap the outer layer: prune_low_magnitude({outer}({type(layer).__name__}(...))). "
            "It prunes the layers inside too.",
        )
    )


@keras.saving.register_keras_serializable(package="tfprune")
class PruneLowMagnitude(MaskOwner, keras.layers.Wrapper):
    """A layer with masks on its prunable weights, those of layers inside it included.

    Most users get it from `prune_low_magnitude`. It has the name of the layer that it holds, so
    that output names, losses by name and `get_layer` stay as they were.

    Args:
        layer: The layer to prune. It is used as it is; `prune_low_magnitude` makes a copy.
        pruning_schedule: A `PruningSchedule`.
        block_size: `(height, width)` of blocks, as in tfmot.
        block_pooling_type: "AVG" or "MAX", as in tfmot.
        sparsity_m_by_n: `(zeros, group)`, as in tfmot: (2, 4) means 2 zeros in 4.
        pattern: A pattern or the name of one, instead of the three above.
        scope: A scope or the name of one.
        criterion: A criterion or the name of one.
        overrides: Methods for single layers inside `layer`, as `get_config` gives them.
        followers: Weights whose masks follow from those of coupled filters, as `get_config` gives
            them; `None` if the layer's filters stand for themselves.
        **kwargs: Arguments of `keras.layers.Layer`.

    Raises:
        ValueError: If the layer has nothing to prune, or is a wrapper already.

    Example:

    >>> layer = tfprune.PruneLowMagnitude(
    ...     keras.layers.Dense(4), tfprune.ConstantSparsity(0.5, begin_step=0))
    >>> layer(np.ones((1, 8))).shape[1]
    4
    """

    def __init__(
        self,
        layer,
        pruning_schedule=None,
        block_size=(1, 1),
        block_pooling_type="AVG",
        sparsity_m_by_n=None,
        *,
        pattern=None,
        scope=None,
        criterion=None,
        overrides=None,
        followers=None,
        **kwargs,
    ):
        if pruning_schedule is None:
            pruning_schedule = schedules.ConstantSparsity(0.5, begin_step=0)
        check_wrappable(layer)
        if "go_backwards" in kwargs:
            raise _wrap_around("Bidirectional", layer)
        pattern = pattern_of(block_size, block_pooling_type, sparsity_m_by_n, pattern)
        method = Method.of(pruning_schedule, pattern, criterion, scope)
        overrides = _overrides_from(overrides)
        if layer.built and not followers and not find_prunable(layer, method, overrides):
            raise ValueError(nothing_to_prune(layer))
        kwargs.setdefault("name", layer.name)
        kwargs.setdefault("trainable", layer.trainable)
        # Inputs are the inner layer's to cast.
        kwargs.setdefault("autocast", False)
        kwargs.setdefault("dtype", layer.dtype_policy)
        super().__init__(layer, **kwargs)
        self._init_masks(method, overrides, followers)

    @property
    def inner(self):
        return self.layer

    @property
    def state_size(self):
        """Not there: a cell is pruned by the recurrent layer that holds it."""
        if isinstance(self.layer, keras.layers.RNN) or not hasattr(self.layer, "state_size"):
            raise AttributeError("state_size")
        raise _wrap_around("RNN", self.layer)

    @classmethod
    def from_config(cls, config, custom_objects=None):
        config = dict(config)
        layer = keras.saving.deserialize_keras_object(
            config.pop("layer"), custom_objects=custom_objects
        )
        return cls(layer, **config)


@keras.saving.register_keras_serializable(package="tfprune")
class PrunedModel(MaskOwner, keras.Model):
    """A subclassed model beside the masks of its weights.

    The layers of a subclassed model cannot be replaced, so this model holds the untouched model
    and the masks. `prune_low_magnitude` makes it, `strip_pruning` takes it apart again.

    Args:
        model: The model to prune.
        pruning_schedule: A `PruningSchedule`.
        pattern: A pattern or the name of one.
        scope: A scope or the name of one.
        criterion: A criterion or the name of one.
        overrides: Methods for single layers inside `model`, as `get_config` gives them.
        **kwargs: Arguments of `keras.Model`.

    Raises:
        ValueError: If the model trains itself with a `train_step` of its own.
    """

    def __init__(
        self,
        model,
        pruning_schedule,
        *,
        pattern=None,
        scope=None,
        criterion=None,
        overrides=None,
        **kwargs,
    ):
        own = _keras.own_loop(model)
        if own:
            raise ValueError(
                check.message(
                    f"a subclassed model without a {own[0]}() of its own",
                    f"{type(model).__name__} with {', '.join(own)}",
                    "Wrap the layers in its constructor with prune_low_magnitude(layer, ...) "
                    "instead; then its own methods stay in force.",
                )
            )
        method = Method.of(pruning_schedule, pattern, criterion, scope)
        kwargs.setdefault("name", model.name)
        kwargs.setdefault("trainable", model.trainable)
        super().__init__(**kwargs)
        self.model = model
        self._init_masks(method, _overrides_from(overrides))

    @property
    def inner(self):
        return self.model

    def get_config(self):
        config = MaskOwner.get_config(self)
        return {
            "name": self.name,
            "model": keras.saving.serialize_keras_object(self.model),
            **{
                name: config[name]
                for name in ("pruning_schedule", "pattern", "scope", "criterion", "overrides")
            },
        }

    @classmethod
    def from_config(cls, config, custom_objects=None):
        config = dict(config)
        model = keras.saving.deserialize_keras_object(
            config.pop("model"), custom_objects=custom_objects
        )
        return cls(model, **config)


def mask_owners(model):
    """Returns all wrappers in a model, itself included, each once, in a fixed order."""
    return [layer for layer in _keras.flatten(model) if isinstance(layer, MaskOwner)]


def pruned_weights(model):
    """Returns the `PrunedWeight`s of all wrappers in a model, in the same order."""
    return [weight for owner in mask_owners(model) for weight in owner.pruned_weights]


def plain_path(chain):
    """Returns the path that the layer at the end of a chain has in the plain model.

    Args:
        chain: As `_keras.walk` yields it. Wrappers have the names of the layers in them, and are
            no part of the path.
    """
    return "/".join(layer.name for _, layer in chain if not isinstance(layer, MaskOwner))


def check_wrappable(layer):
    """Raises unless a layer can be wrapped in `PruneLowMagnitude`."""
    if not isinstance(layer, keras.layers.Layer):
        raise TypeError(not_keras(layer, "layer"))
    if any(isinstance(inner, MaskOwner) for inner in _keras.flatten(layer)):
        raise ValueError(
            check.message(
                "a layer without pruning wrappers",
                f"'{layer.name}', which is wrapped already or holds a wrapped layer",
                "Strip it first with tfprune.strip_pruning, or use it as it is.",
            )
        )
