"""How a model is pruned, and its masks, in the folder of a KerasHub preset."""

import json
import os

import numpy as np

from tfprune._base import validation as check

_CONFIG, _MASKS = "pruning.json", "pruning.npz"


def write_preset(folder, class_name, owner):
    """Writes how a model is pruned, and its masks.

    Args:
        folder: Folder of the preset.
        class_name: Name of the model's class.
        owner: What holds the model's masks.
    """
    config = {"class_name": class_name, "config": owner.pruning_config()}
    with open(os.path.join(folder, _CONFIG), "w", encoding="utf-8") as file:
        json.dump(config, file, indent=1)
    store: dict = {}
    owner.mask_set.save(store)
    np.savez(os.path.join(folder, _MASKS), **store)


def read_preset(folder):
    """Reads what `write_preset` wrote.

    Returns:
        The name of the model's class, its pruning's config, and a store of masks.

    Raises:
        ValueError: If there is no such model in the folder.
    """
    path = os.path.join(folder, _CONFIG)
    if not os.path.exists(path):
        raise ValueError(
            check.message(
                f"a preset with masks in {folder!r}",
                f"a folder without {_CONFIG}",
                "Save the pruned model by model.save_to_preset(folder); a model without masks is "
                "loaded by from_preset of its class.",
            )
        )
    with open(path, encoding="utf-8") as file:
        config = json.load(file)
    with np.load(os.path.join(folder, _MASKS)) as arrays:
        store = {name: arrays[name] for name in arrays.files}
    return config["class_name"], config["config"], store
