"""Taking wrappers off, and loading plain weights into wrapped models."""

import os

import keras

from tfprune import _keras
from tfprune._base import validation as check
from tfprune._keras.checks import check_built, not_keras
from tfprune._wrapping.wrapper import MaskOwner, mask_owners, pruned_weights


def strip_pruning(model):
    """Takes the wrappers off: same weights, exactly sparse, no trace of tfprune.

    Args:
        model: A wrapped layer or a model with wrapped layers. It is not changed and can be
            trained on.

    Returns:
        A plain copy; a model without wrappers is copied too. A model comes back uncompiled.

    Raises:
        TypeError: If it is no Keras 3 layer or model.
        ValueError: If the model is not built.

    Example:

    >>> model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(4)])
    >>> pruned = tfprune.prune_low_magnitude(model)
    >>> type(tfprune.strip_pruning(pruned).layers[0]).__name__
    'Dense'
    """
    if not isinstance(model, keras.layers.Layer):
        raise TypeError(not_keras(model, "model"))
    if isinstance(model, (keras.Model, MaskOwner)):
        check_built(model)
    for weight in pruned_weights(model):
        weight.check_in_place()
        weight.project()
    if isinstance(model, MaskOwner):
        model = model.inner
    if _keras.is_graph(model):
        return _keras.clone_graph(model, _without_wrapper, _mask_ids(model))
    if mask_owners(model):
        return _strip_subclassed(model)
    return _keras.clone_layer(model)


def _mask_ids(model):
    return {id(v) for weight in pruned_weights(model) for v in weight.own_variables}


def _without_wrapper(layer):
    source = layer.inner if isinstance(layer, MaskOwner) else layer
    clone = _bare_without_wrappers(source)
    return source, clone, clone


def _unwrapped(layer):
    if isinstance(layer, MaskOwner):
        # What holds it may have built it, masks and all, from its config.
        for weight in layer.pruned_weights:
            weight.detach()
        return layer.inner
    if _keras.is_graph(layer) and mask_owners(layer):
        return _keras.clone_graph(layer, _without_wrapper, _mask_ids(layer))
    return layer


def _bare_without_wrappers(model):
    """Clones a layer or model without its weights, and without wrappers that it makes itself."""
    clone = _keras.bare_clone(model)
    if mask_owners(clone):
        _keras.replace_inside(clone, _unwrapped)
    if mask_owners(clone):
        raise ValueError(
            check.message(
                "wrapped layers in attributes or lists of the model",
                f"{type(model).__name__}, which holds them in another way",
                "Keep wrapped layers in plain attributes.",
            )
        )
    return clone


def _strip_subclassed(model):
    """Strips a model or layer whose own constructor made the wrappers."""
    clone = _bare_without_wrappers(model)
    _keras.build_from_config(clone, model.get_build_config())
    _keras.copy_weights(model, clone, _mask_ids(model))
    return clone


def load_plain_weights(model, filepath):
    """Loads weights of the plain model into the wrapped one.

    The masks stay as they are and are applied to what was loaded. Before the first pruning step,
    criteria on initial weights take what was loaded as initial.

    Args:
        model: A wrapped model.
        filepath: A `.weights.h5` or `.keras` file that the plain model was saved to, or the
            plain model itself.

    Raises:
        TypeError: If `model` is no Keras 3 model, or `filepath` neither a path nor such a model.
        ValueError: If the file does not fit the model; then nothing is changed.

    Example:

    >>> plain = keras.Sequential([keras.Input((8,)), keras.layers.Dense(4)])
    >>> pruned = tfprune.prune_low_magnitude(plain)
    >>> tfprune.load_plain_weights(pruned, plain)
    """
    if not isinstance(model, keras.layers.Layer):
        raise TypeError(not_keras(model, "model"))
    if isinstance(filepath, keras.Model):
        plain = filepath
    elif isinstance(filepath, (str, os.PathLike)):
        plain = strip_pruning(model)
        plain.load_weights(filepath)
    else:
        raise TypeError(not_keras(filepath, "filepath"))
    masks = _mask_ids(model)
    targets = [variable for variable in model.weights if id(variable) not in masks]
    _keras.copy_variables(list(plain.weights), targets, model.name)
    _keras.refresh_constants(model)
    for owner in mask_owners(model):
        for weight in owner.pruned_weights:
            if owner.pruning_step == 0:
                weight.remember_initial()
            weight.project()
