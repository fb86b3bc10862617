"""Wrappers, which hold a layer together with the masks of its weights."""

from contextlib import nullcontext

import keras
from keras import ops

from tfprune import _keras, schedules
from tfprune._base import validation as check
from tfprune._keras.checks import not_keras, nothing_to_prune
from tfprune._layers import registry
from tfprune._wrapping.mask_set import tensorflow_state
from tfprune._wrapping.methods import Method
from tfprune._wrapping.owner import Owner, followers_from, overrides_from
from tfprune._wrapping.owner import mask_owners as mask_owners
from tfprune._wrapping.prunable import KNOWN_TO_0_1, find_prunable
from tfprune._wrapping.pruned_weight import refusal
from tfprune._wrapping.tfmot_arguments import pattern_of


class MaskWrapper(_keras.WrapperBase, Owner):
    """The base of `PruneLowMagnitude` and `PrunedModel`: a layer around `self.inner`.

    `build` makes the masks once the inner layer has its weights. Apart from the masks, the owner
    behaves like the inner layer: same outputs, padding masks, dtypes and losses.
    """

    # Its part of a file holds masks next to its weights.
    saves_masks = True

    def _init_masks(self, method, overrides, followers=None, weights=None, reasons=None):
        super()._init_masks(method, overrides, followers, weights, reasons)
        _keras.adopt_call_arguments(self, self.inner)

    def add_state(self, name, shape):
        """Adds a variable that is in `variables`, and not in `weights`."""
        return _keras.add_state(self, name, shape)

    def build(self, input_shape=None):
        if not self.inner.built:
            self.inner.build(input_shape)
        if self._mask_set is None:
            self.make_masks()
            for position, weight in enumerate(self.pruned_weights):
                # tf.train.Checkpoint finds variables only through attributes.
                setattr(self, f"_mask_{position}", weight.mask)
                if weight.initial is not None:
                    setattr(self, f"_initial_{position}", weight.initial)
                if weight.consensus is not None:
                    for number, variable in enumerate(weight.consensus.variables):
                        setattr(self, f"_consensus_{position}_{number}", variable)
            if _keras.backend() == "tensorflow":
                self._checkpoint_state = tensorflow_state(self._mask_set)
        self.built = True

    def call(self, *args, **kwargs):
        self.check_call()
        return self.inner(*args, **kwargs)

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
        """Resets the states of stateful recurrent layers."""
        for layer in _keras.flatten(self.inner):
            if isinstance(layer, keras.layers.RNN) and layer.stateful:
                layer.reset_state()

    def reset_states(self):
        """Older name of `reset_state`."""
        self.reset_state()

    def enable_lora(self, *args, **kwargs):
        """Adds LoRA weights to the inner layer, which train under the masks."""
        self.inner.enable_lora(*args, **kwargs)

    def quantize(self, *args, **kwargs):
        """Raises ValueError, because quantizing would replace the masked weight."""
        refusal("quantize()", self.name)()

    def get_config(self):
        # The inner layer serializes its own dtype and other settings.
        return {**super().get_config(), **self.pruning_config()}  # type: ignore[misc]


def _wrap_around(outer, layer):
    return ValueError(
        check.message(
            f"a pruning wrapper around {outer}",
            f"'{layer.name}', a {type(layer).__name__} that is wrapped inside it",
            f"Wrap the outer layer: prune_low_magnitude({outer}({type(layer).__name__}(...))). "
            "It prunes the layers inside too.",
        )
    )


def scope_of(custom_objects):
    """An empty scope would hide the objects of the one around it."""
    if not custom_objects:
        return nullcontext()
    return keras.saving.custom_object_scope(custom_objects)


@keras.saving.register_keras_serializable(package="tfprune")
class PruneLowMagnitude(MaskWrapper, keras.layers.Wrapper):
    """A layer with masks on its prunable weights, including those of layers inside it.

    `prune_low_magnitude` creates it for most users. The wrapper takes the name of its layer, so
    that output names, losses by name and `get_layer` keep working.

    Args:
        layer: The layer to prune. It is not copied, in contrast to `prune_low_magnitude`.
        pruning_schedule: A `PruningSchedule`.
        block_size: `(height, width)` of blocks, as in tfmot.
        block_pooling_type: "AVG" or "MAX", as in tfmot.
        sparsity_m_by_n: `(zeros, group)`, as in tfmot: (2, 4) means 2 zeros in 4.
        pattern: A pattern or its name, instead of the three arguments above.
        scope: A scope or its name.
        criterion: A criterion or its name.
        overrides: Methods for single layers inside `layer`, in the form of `get_config`.
        followers: Weights whose masks follow from those of coupled filters, in the form of
            `get_config`; `None` if the layer's filters are not coupled.
        weights: The weights to mask, in the form of `get_config`; by default, all prunable
            weights.
        reasons: Reasons why other layers of the model are not pruned, in the form of
            `get_config`.
        **kwargs: Arguments of `keras.layers.Layer`.

    Raises:
        ValueError: If the layer has nothing to prune, or is already wrapped.

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
        criterion=None,
        scope=None,
        overrides=None,
        followers=None,
        weights=None,
        reasons=None,
        **kwargs,
    ):
        if pruning_schedule is None:
            pruning_schedule = schedules.ConstantSparsity(0.5, begin_step=0)
        check_wrappable(layer)
        if "go_backwards" in kwargs:
            raise _wrap_around("Bidirectional", layer)
        pattern = pattern_of(block_size, block_pooling_type, sparsity_m_by_n, pattern)
        method = Method.of(pruning_schedule, pattern, criterion, scope)
        overrides, followers = overrides_from(overrides), followers_from(followers)
        if layer.built and not followers and not find_prunable(layer, method, overrides, weights):
            raise ValueError(nothing_to_prune(layer))
        kwargs.setdefault("name", layer.name)
        if not isinstance(kwargs["name"], str) or "/" in kwargs["name"]:
            raise ValueError(
                check.message(
                    '`name` to be a text without "/"',
                    f"name={kwargs['name']!r:.80}",
                    "Leave it out.",
                )
            )
        kwargs.setdefault("trainable", layer.trainable)
        # The inner layer casts its inputs.
        kwargs.setdefault("autocast", False)
        kwargs.setdefault("dtype", layer.dtype_policy)
        super().__init__(layer, **kwargs)
        self._init_masks(method, overrides, followers, weights, reasons)

    @property
    def inner(self):
        return self.layer

    # -- As in tfmot ---------------------------------------------------------------------------

    @property
    def pruning_schedule(self):
        """The `PruningSchedule`."""
        return self._method.schedule

    @property
    def block_size(self):
        """`(height, width)` of blocks; (1, 1) for other patterns."""
        return getattr(self._method.pattern, "block_size", (1, 1))

    @property
    def block_pooling_type(self):
        """ "AVG" or "MAX" of the magnitudes in a block; "AVG" for other patterns."""
        return getattr(self._method.pattern, "pooling", "AVG")

    @property
    def pruning_vars(self):
        """List of `(weight, mask, threshold)`, as in tfmot; the threshold is a tensor."""
        return [
            (w.variable, w.mask, ops.convert_to_tensor(float(w.threshold or 0), "float32"))
            for w in self.pruned_weights
        ]

    @property
    def masks(self):
        """`{path of a weight: its mask}`, bool variables, True = keep."""
        return {weight.path: weight.mask for weight in self.pruned_weights}

    def build(self, input_shape=None):
        super().build(input_shape)
        if not registry.lists_own_weights(self.layer):
            _keras.set_untracked(self.layer, "get_prunable_weights", self._own_weights)

    def _own_weights(self):
        return [weight.variable for weight in self.pruned_weights if not weight.follows]

    def get_weights(self):
        """Returns the weights of the layer inside, as arrays: `[kernel, bias]` of a Dense layer.

        The masks are in `masks`. They also belong to `weights` and to `get_weights` of the whole
        model, so that callbacks that restore the weights of an epoch restore its masks.
        """
        return self.layer.get_weights()

    def set_weights(self, weights):
        """Sets the weights of the layer inside; pruned weights become zero.

        Args:
            weights: List of arrays as `get_weights` returns it, or with the masks, in the order of
                `self.weights`.
        """
        if len(weights) == len(self.weights) != len(self.layer.weights):
            super().set_weights(weights)
        else:
            self.layer.set_weights(weights)
        for weight in self.pruned_weights:
            weight.forget_count()
            weight.project()

    @property
    def state_size(self):
        """Not available for a cell: wrap the recurrent layer around it instead."""
        if isinstance(self.layer, keras.layers.RNN) or not hasattr(self.layer, "state_size"):
            raise AttributeError("state_size")
        raise _wrap_around("RNN", self.layer)

    @classmethod
    def from_config(cls, config, custom_objects=None):
        config = dict(config)
        # The old .h5 format also passes on the arguments of the schedule and the other parts.
        with scope_of(custom_objects), check.reading_config(cls.__name__):
            layer = keras.saving.deserialize_keras_object(config.pop("layer"))
            config["pruning_schedule"]  # The default is for calls, not for files.
            return cls(layer, **{"weights": KNOWN_TO_0_1, **config})


def pruned_weights(model):
    """Returns the `PrunedWeight`s of all wrappers in a model, in the same order."""
    return [weight for owner in mask_owners(model) for weight in owner.pruned_weights]


def plain_path(chain):
    """Returns the path in the plain model of the layer at the end of a chain.

    Args:
        chain: A chain from `_keras.walk`. Wrappers have the names of their layers and are left
            out of the path.
    """
    return "/".join(layer.name for _, layer in chain if not _keras.is_transparent(layer))


def check_wrappable(layer, kept=()):
    """Raises unless a layer or model can be pruned.

    Args:
        layer: The layer or model.
        kept: Wrappers that may be in it, and stay.
    """
    if not isinstance(layer, keras.layers.Layer):
        raise TypeError(not_keras(layer, "layer"))
    if any(owner not in kept for owner in mask_owners(layer)):
        raise ValueError(
            check.message(
                "a layer without pruning wrappers",
                f"'{layer.name}', which is wrapped already or holds a wrapped layer",
                "Strip it first with tfprune.strip_pruning, or use it without wrapping it again.",
            )
        )


def _check_unmasked(model):
    if mask_owners(model):
        refusal("quantize()", model.name)()


# Keras quantizes layer by layer, and a loaded model may have plain layers before the first wrapper.
_keras.check_before(keras.Model, "quantize", _check_unmasked)
