"""Pruning settings and masks in the folder of a KerasHub preset."""

import json
import os
from pathlib import Path

import numpy as np

from tfprune._base import validation as check
from tfprune._base.damage import damaged
from tfprune._base.files import read_arrays, written_atomically

_CONFIG, _MASKS = "pruning.json", "pruning.npz"


def write_preset(folder, class_name, owner):
    """Writes the pruning settings and the masks of a model.

    Args:
        folder: Folder of the preset.
        class_name: Name of the model's class.
        owner: The `Owner` of the model's masks.
    """
    config = {"class_name": class_name, "config": owner.pruning_config()}
    with written_atomically(Path(folder, _CONFIG)) as unfinished:
        unfinished.write_text(json.dumps(config, indent=1), encoding="utf-8")
    store: dict = {}
    owner.mask_set.save(store)
    with written_atomically(Path(folder, _MASKS)) as unfinished:
        np.savez(unfinished, **store)


def read_preset(folder):
    """Reads the files of `write_preset`.

    Returns:
        The name of the model's class, its pruning config, and a store of masks.

    Raises:
        ValueError: If the folder has no masks.
        DamagedFileError: If its files are damaged.
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
    try:
        with open(path, encoding="utf-8") as file:
            config = json.load(file)
        name, parts = str(config["class_name"]), dict(config["config"])
        store = read_arrays(Path(folder, _MASKS))
    except (OSError, ValueError, LookupError, TypeError, RecursionError) as error:
        raise damaged(
            f"a preset as save_to_preset of a pruned model writes it in {folder!r}",
            f"{_CONFIG} or {_MASKS} with another content ({error})"[:200],
            "Load the model without masks with from_preset of its class.",
        ) from error
    return name, parts, store
