"""A file that holds the weights of a training and the epoch that comes next."""

import json

import keras

from tfprune._base import damage
from tfprune._base import validation as check
from tfprune._base.files import written_atomically

_ENTRY = "tfprune_backup"
_OTHER = "Choose another path, or delete the file to start from the beginning."


def write_backup(model, path, epoch):
    """Writes all variables of a model and its optimizer together with an epoch, at once.

    Args:
        model: The model.
        path: `pathlib.Path` that ends with ".weights.h5".
        epoch: Number of the epoch that comes next.
    """
    import h5py

    with written_atomically(path) as unfinished:
        model.save_weights(unfinished, overwrite=True)
        with h5py.File(unfinished, "r+") as file:
            content = {"epoch": epoch, **_shapes(model), "arrays": _checksum(file)}
            content["checksum"] = damage.checksum_of_data(content)
            # As text, because attributes end at 64 KB.
            file[_ENTRY] = json.dumps(content)


def read_backup(model, path):
    """Restores a model and its optimizer from a file; returns the epoch that comes next.

    Raises:
        DamagedFileError: If the file is damaged; the model does not change.
        ValueError: If it is of another model, or none that `write_backup` wrote.
    """
    content = _content(path)
    for name, here in _shapes(model).items():
        if content[name] != here:
            raise ValueError(
                check.message(
                    f"{str(path)!r} to hold a backup of this model",
                    f"one of a model with other {name}: {_difference(content[name], here)}",
                    _OTHER,
                )
            )
    model.load_weights(path)
    return content["epoch"]


def _content(path):
    import h5py

    try:
        with h5py.File(path) as file:
            text = file[_ENTRY][()] if _ENTRY in file else None
            arrays = None if text is None else _checksum(file)
    except (OSError, RuntimeError, KeyError, ValueError, TypeError) as error:
        raise _damaged(path) from error
    if text is None:
        raise ValueError(
            check.message(
                f"{str(path)!r} to be a new file, or one that PruningBackup wrote",
                "an HDF5 file of something else",
                "Choose another path; existing files are not replaced.",
            )
        )
    try:
        content = json.loads(text)
        expected = content.pop("checksum")
        whole = damage.checksum_of_data(content) == expected and content["arrays"] == arrays
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise _damaged(path) from error
    if not whole:
        raise _damaged(path)
    return content


def _damaged(path):
    return damage.damaged(
        f"a backup as PruningBackup wrote it at {str(path)!r}",
        "one that is damaged",
        "Delete it to start from the beginning.",
    )


def _checksum(file):
    """The checksum of all arrays of an open file."""
    found = {}

    def visit(name, item):
        if name != _ENTRY and hasattr(item, "shape"):
            found[name] = item[()]

    file.visititems(visit)
    return damage.checksum_of_entries(found)


def _shapes(model):
    optimizer = model.optimizer
    return {
        "weights": [_shape(variable) for variable in model.weights],
        "optimizer": [type(optimizer).__name__],
        "optimizer values": [_shape(variable) for variable in optimizer.variables],
    }


def _shape(variable):
    return f"{keras.backend.standardize_dtype(variable.dtype)} {list(variable.shape)}"


def _difference(found, here):
    if len(found) != len(here):
        return f"{len(found)} arrays where this one has {len(here)}"
    return next(f"{a} where this one has {b}" for a, b in zip(found, here, strict=True) if a != b)
