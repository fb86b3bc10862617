"""Strips wrappers, and loads plain weights into wrapped models."""

import os

import keras

from tfprune import _keras
from tfprune._base import validation as check
from tfprune._base.renamed import renamed
from tfprune._keras.checks import check_built, not_keras
from tfprune._wrapping.in_place import owner_of, remove_masks, without_masks
from tfprune._wrapping.wrapper import MaskWrapper, mask_owners, pruned_weights


def strip_pruning(model, copy=True):
    """Removes the masks. The result has the same weights, exactly sparse, and needs no tfprune.

    Args:
        model: A pruned layer or model. With `copy=True` it is not changed, and training can
            continue.
        copy: `False` removes the masks from `model` itself, which must have been pruned in place.
            This needs no memory for a second model and no `get_config`.

    Returns:
        A plain, uncompiled copy of the original class; a model without masks is copied too. With
        `copy=False`, the model itself.

    Raises:
        TypeError: If `model` is not a Keras 3 layer or model.
        ValueError: If the model is not built or cannot be copied, or if `copy` is `False` and the
            model contains wrappers.

    Example:

    >>> model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(4)])
    >>> pruned = tfprune.prune_low_magnitude(model)
    >>> type(tfprune.strip_pruning(pruned).layers[0]).__name__
    'Dense'
    """
    if not isinstance(model, keras.layers.Layer):
        raise TypeError(not_keras(model, "model"))
    if isinstance(model, (keras.Model, MaskWrapper)):
        check_built(model)
    for weight in pruned_weights(model):
        weight.check_in_place()
        weight.project()
    if not copy:
        return _strip_in_place(model)
    if isinstance(model, MaskWrapper):
        model = model.inner
    if _keras.keeps_class(model) and mask_owners(model) == [owner_of(model)]:
        with without_masks(model):
            plain = _keras.clone_as_it_is(model)
        _keras.merge_copied(model, plain)
        return plain
    if _keras.is_graph(model) and not _keras.keeps_class(model):
        with without_masks(model):
            return _strip_graph(model)
    if mask_owners(model):
        return _strip_subclassed(model)
    keeps_class = _keras.keeps_class(model)
    plain = _keras.clone_as_it_is(model) if keeps_class else _keras.clone_layer(model)
    _keras.merge_copied(model, plain)
    return plain


def _strip_graph(model):
    copies = []

    def make(layer):
        source, target, stand_in = _without_wrapper(layer)
        if source is not None:
            copies.append((source, target))
        return source, target, stand_in

    plain = _keras.clone_graph(model, make, _mask_ids(model))
    for source, target in copies:
        if not mask_owners(source):
            _keras.merge_copied(source, target)
    return plain


def _strip_in_place(model):
    """Removes all masks of a model that was pruned in place."""
    around = [owner for owner in mask_owners(model) if isinstance(owner, MaskWrapper)]
    if around:
        raise ValueError(
            check.message(
                "`copy=False` only for a model that was pruned in place",
                f"'{model.name}' with wrapped layers, for instance '{around[0].name}', which "
                "cannot be replaced in the model",
                "Call tfprune.strip_pruning(model) without `copy=False`.",
            )
        )
    for owner in mask_owners(model):
        remove_masks(owner.inner)
    return model


def _mask_ids(model):
    return {id(v) for weight in pruned_weights(model) for v in weight.own_variables}


def _without_wrapper(layer):
    if _keras.is_graph(layer):
        return None, None, strip_pruning(layer)
    source = layer.inner if isinstance(layer, MaskWrapper) else layer
    clone = _bare_without_wrappers(source)
    return source, clone, clone


def _unwrapped(layer):
    if isinstance(layer, MaskWrapper):
        # The enclosing layer may have built the wrapper, including masks, from its config.
        for weight in layer.pruned_weights:
            weight.detach()
        return layer.inner
    if _keras.is_graph(layer) and not _keras.keeps_class(layer) and mask_owners(layer):
        return _strip_graph(layer)
    return layer


def _bare_without_wrappers(model):
    """Clones a layer or model without its weights and without wrappers made in its constructor."""
    clone = _keras.bare_clone(model)
    if mask_owners(clone):
        _keras.replace_inside(clone, _unwrapped)
    if mask_owners(clone):
        raise ValueError(
            check.message(
                "wrapped layers in attributes or lists of the model",
                f"{type(model).__name__}, which stores them in another way",
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


@renamed(filepath="path")
def load_plain_weights(model, path):
    """Loads the weights of a plain model into the wrapped model.

    The masks do not change; they are applied to the loaded weights. Before the first pruning
    step, the loaded weights also become the initial weights for criteria that need them.

    Args:
        model: A wrapped model.
        path: A `.weights.h5` or `.keras` file saved from the plain model, or the plain model
            itself.

    Raises:
        TypeError: If `model` is not a Keras 3 model, or `path` is neither a path nor a model.
        ValueError: If the file does not fit the model, which then is not changed.

    Example:

    >>> plain = keras.Sequential([keras.Input((8,)), keras.layers.Dense(4)])
    >>> pruned = tfprune.prune_low_magnitude(plain)
    >>> tfprune.load_plain_weights(pruned, plain)
    """
    if not isinstance(model, keras.layers.Layer):
        raise TypeError(not_keras(model, "model"))
    if isinstance(path, (str, os.PathLike)) and not os.path.isfile(path):
        raise ValueError(
            check.message(
                "a file of the plain model's weights",
                f"{os.fspath(path)!r}, which is not there",
                "Give a .weights.h5 or .keras file.",
            )
        )
    if isinstance(path, keras.Model):
        plain = path
    elif isinstance(path, (str, os.PathLike)) and owner_of(model) is not None:
        _load_without_masks(model, path)
        plain = None
    elif isinstance(path, (str, os.PathLike)):
        plain = strip_pruning(model)
        plain.load_weights(path)
    else:
        raise TypeError(not_keras(path, "path"))
    masks = _mask_ids(model)
    targets = [variable for variable in model.weights if id(variable) not in masks]
    if plain is not None:
        _keras.copy_variables(list(plain.weights), targets, model.name)
    _keras.refresh_constants(model)
    for owner in mask_owners(model):
        for weight in owner.pruned_weights:
            if owner.pruning_step == 0:
                weight.remember_initial()
            weight.project()


def _load_without_masks(model, path):
    """Loads a file of the model's own class; restores the weights after an error."""
    with without_masks(model):
        kept = [_keras.host_array(variable).copy() for variable in model.weights]
        try:
            model.load_weights(path)
        except BaseException:
            for variable, array in zip(model.weights, kept, strict=True):
                variable.assign(array)
            raise
