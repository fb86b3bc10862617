"""Files and folders that appear whole or not at all."""

import os
import shutil
import uuid
from contextlib import contextmanager

from tfprune._base import validation as check

_UNFINISHED = ".unfinished_"


@contextmanager
def finished_at_once(path):
    """Yields a temporary path to write to, and moves the result to `path` at the end.

    Until then, `path` keeps its old content. If the block raises, `path` keeps it for good, and
    the temporary file or folder is removed.

    Args:
        path: `pathlib.Path` of a file or a folder. Its folder exists.
    """
    mark = uuid.uuid4().hex[:12]
    unfinished = path.with_name(f"{_UNFINISHED}{mark}{path.suffix}")
    old = path.with_name(f"{_UNFINISHED}{mark}-old{path.suffix}")
    try:
        yield unfinished
        if unfinished.is_file():
            _flush(unfinished)
        if path.is_dir():
            os.replace(path, old)
        os.replace(unfinished, path)
    except BaseException:
        if old.exists() and not path.exists():
            os.replace(old, path)
        raise
    finally:
        for leftover in (unfinished, old):
            if leftover.is_dir():
                shutil.rmtree(leftover)
            leftover.unlink(missing_ok=True)


def _flush(path):
    """Flushes the bytes to disk, so that no name survives a crash without its content."""
    with open(path, "rb") as file:
        os.fsync(file.fileno())


def is_leftover(path):
    """Whether this file or folder is an unfinished one that a killed program left."""
    return path.name.startswith(_UNFINISHED)


def check_target(path, format=None):
    """Raises ValueError unless a file, or for "saved_model" a folder, can be written at a path."""
    folder = path.parent
    if not folder.is_dir() or not os.access(folder, os.W_OK):
        raise ValueError(
            check.message(
                "a path in a folder that can be written to",
                f"{str(path)!r}",
                "Create the folder first, or choose another.",
            )
        )
    if format != "saved_model" and path.is_dir():
        received, mend = f"the folder {str(path)!r}", "Choose another name."
        raise ValueError(check.message("the name of a file", received, mend))
    occupied = path.is_file() or (path.is_dir() and any(path.iterdir()))
    if format == "saved_model" and occupied and not (path / "saved_model.pb").is_file():
        raise ValueError(
            check.message(
                "a new or empty folder, or an existing SavedModel to replace",
                f"{str(path)!r}, which holds something else",
                "Choose another name; existing files are not deleted.",
            )
        )


def size_on_disk(path):
    """Returns the bytes of a file, or of all files in a folder."""
    return sum(f.stat().st_size for f in [path, *path.rglob("*")] if f.is_file())
