"""Loads KerasHub presets with masks."""

import os

from tfprune._base import validation as check
from tfprune._wrapping.in_place import owner_of, prune_from_config
from tfprune._wrapping.preset_files import read_preset


def load_preset(model_class, preset, **kwargs):
    """Loads a pruned KerasHub model with its masks from a preset.

    `from_preset` of the model's class loads the same folder without masks, exactly sparse, and
    does not need tfprune.

    Args:
        model_class: A KerasHub class with `from_preset`, for instance
            `keras_hub.models.CausalLM`.
        preset: Folder to which `model.save_to_preset(folder)` saved a pruned model.
        **kwargs: Further arguments of `from_preset`.

    Returns:
        The model, with its masks and its pruning step.

    Raises:
        TypeError: If the class has no `from_preset`, or `preset` is not a path.
        ValueError: If the folder has no masks, or the masks belong to another class.

    Example:

    >>> try:
    ...     tfprune.load_preset(keras.Model, "folder")
    ... except TypeError as error:
    ...     print(error)
    Expected a class of KerasHub. Received: Model. Pass one that has from_preset().
    """
    if not hasattr(model_class, "from_preset"):
        name = getattr(model_class, "__name__", repr(model_class))
        raise TypeError(
            check.message(
                "a class of KerasHub",
                name,
                "Pass one that has from_preset().",
            )
        )
    if not isinstance(preset, (str, os.PathLike)):
        raise TypeError(
            check.message(
                "`preset` to be a folder",
                f"preset={preset!r}",
                "Pass the folder that model.save_to_preset(folder) wrote.",
            )
        )
    class_name, config, store = read_preset(preset)
    model = model_class.from_preset(os.fspath(preset), **kwargs)
    found = [part for part in (model, getattr(model, "backbone", None)) if part is not None]
    pruned = [part for part in found if type(part).__name__ == class_name]
    if not pruned:
        raise ValueError(
            check.message(
                f"a preset of a pruned {type(model).__name__}",
                f"masks of a {class_name}",
                f"Call tfprune.load_preset with the class {class_name}.",
            )
        )
    prune_from_config(pruned[0], config)
    owner_of(pruned[0]).mask_set.load(store, pruned[0].name)
    return model
