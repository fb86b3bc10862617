"""Writes the commands' files: replaces none without --force, leaves none half-written."""

from tfprune._base import validation as check
from tfprune._base.files import check_target, written_atomically
from tfprune._deployment.exporting import export


def check_output(path, force, suffix=None):
    """Raises unless a file can be written. Call it before doing any work."""
    if suffix is not None and path.suffix != suffix:
        raise ValueError(
            check.message(
                f"a file that ends with {suffix}", f"{str(path)!r}", f"Use {path.stem + suffix!r}."
            )
        )
    if path.exists() and not force:
        raise ValueError(
            check.message(
                "a file that does not exist yet", f"{str(path)!r}", "Pass --force to replace it."
            )
        )
    is_folder = suffix is None and not path.suffix
    check_target(path, "saved_model" if is_folder else "file")


def save_plain(model, path):
    """Writes a stripped model, loads it again and compares the two; returns an `Exported`."""
    return export(model, path, format="keras", verbose=0)


def save_wrapped(model, path):
    """Writes a model with its wrappers."""
    with written_atomically(path) as unfinished:
        model.save(unfinished)
