"""Pruning settings and masks in the folder of a KerasHub preset."""

import json
import os

import numpy as np

from tfprune._base import validation as check

_CONFIG, _MASKS = "pruning.json", "pruning.npz"


def write_preset(folder, class_name, owner):
    """Writes the pruning settings and the masks of a model.

    Args:
        folder: Folder of the preset.
        class_name: Name of the model's class.
        owner: The `Owner` of the model's masks.
    """
    config = {"class_name": class_name, "config": owner.pruning_config()}
    with open(os.path.join(folder, _CONFIG), "w", encoding="utf-8") as file:
        json.dump(config, file, indent=1)
    store: dict = {}
    owner.mask_set.save(store)
    np.savez(os.path.join(folder, _MASKS), **store)


def read_preset(folder):
    """Reads the files of `write_preset`.

    Returns:
        The name of the model's class, its pruning config, and a store of masks.

    Raises:
        ValueError: If the folder has no masks.
    """
    path = os.path.join(folder, _CONFIG)
    if not os.path.exists(path):
        raise ValueError(
            check.message(
                f"a preset with masks in {folder!r}",
                f"a folder without {_CONFIG}",
                "Save the pruned model with model.save_to_preset(folder). Load a model without "
                "masks with from_preset of its class.",
            )
        )
    with open(path, encoding="utf-8") as file:
        config = json.load(file)
    with np.load(os.path.join(folder, _MASKS)) as arrays:
        store = {name: arrays[name] for name in arrays.files}
    return config["class_name"], config["config"], store
