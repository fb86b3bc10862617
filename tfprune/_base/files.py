"""Files and folders that appear whole or not at all."""

import errno
import hashlib
import os
import shutil
import socket
import uuid
import zipfile
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from tfprune._base import validation as check

_UNFINISHED = ".unfinished_"
_NO_WRITING = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.EFBIG)
# What file systems allow for one name.
_LONGEST = 255


@contextmanager
def written_atomically(path):
    """Yields a temporary path to write to, and moves the result to `path` at the end.

    Until then, `path` keeps its old content; an error inside leaves it unchanged. Leftovers of
    killed programs are removed first, or put back. If `path` is a symbolic link, its target is
    replaced.

    Args:
        path: `pathlib.Path` of a file or a folder. Its folder exists.

    Raises:
        OSError: If the disk is full or cannot be written to.
    """
    path = Path(os.path.realpath(path))
    remove_leftovers(path)
    unfinished, old = _free_names(path)
    try:
        yield unfinished
        if unfinished.is_file():
            _flush(unfinished)
        _put_in_place(unfinished, path, old)
    except BaseException as error:
        if old.exists() and not path.exists():
            os.replace(old, path)
        if _is_refusal(error):
            raise OSError(
                check.message(
                    "a folder with room that can be written to",
                    f"{str(path.parent)!r}: {error}"[:300],
                    f"Free some room or choose another folder; {path.name} has not changed.",
                )
            ) from error
        raise
    finally:
        for leftover in (unfinished, old):
            _remove(leftover)


def _free_names(path):
    """Returns names for a new file or folder, and for the one that it replaces.

    Nothing has these names yet: a writer would follow a symbolic link that somebody put there.
    """
    while True:
        mark = f"{_UNFINISHED}{_name_mark(path)}_{_process_mark()}_{uuid.uuid4().hex[:12]}"
        names = path.with_name(f"{mark}{_suffix(path)}"), path.with_name(f"{mark}-old")
        if not any(map(os.path.lexists, names)):
            return names


def _put_in_place(unfinished, path, old):
    """Puts a finished file or folder in the place of another; a folder needs two steps."""
    for attempt in range(10):
        if path.is_dir():
            os.replace(path, old if not old.exists() else old.with_name(f"{old.name}{attempt}"))
        try:
            os.replace(unfinished, path)
            break
        except OSError as error:
            # Another process put its own folder there in between.
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST) or attempt == 9:
                raise
    for more in path.parent.glob(f"{old.name}?"):
        _remove(more)


def _is_refusal(error):
    if not isinstance(error, OSError):
        return False
    # HDF5 gives the reason in its text alone.
    return error.errno in _NO_WRITING or "No space left" in str(error)


def _remove(path):
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def _suffix(path):
    # Keras looks at both parts of this one.
    return ".weights.h5" if path.name.endswith(".weights.h5") else path.suffix


def _name_mark(path):
    return hashlib.sha256(os.fsencode(path.name)).hexdigest()[:8]


def _process_mark():
    host = hashlib.sha256(socket.gethostname().encode()).hexdigest()[:6]
    return f"{host}-{os.getpid()}"


def remove_leftovers(path):
    """Puts back or removes the unfinished files that killed programs left of a file or folder."""
    for leftover in path.parent.glob(f"{_UNFINISHED}{_name_mark(path)}_*"):
        owner = leftover.name.split("_")[2]
        host, _, process = owner.partition("-")
        if host != _process_mark().partition("-")[0] or _is_running(process):
            continue
        if leftover.name.endswith("-old") and not path.exists():
            os.replace(leftover, path)
        else:
            _remove(leftover)


def _is_running(process):
    if not process.isdigit():
        return True
    try:
        os.kill(int(process), 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True


def read_arrays(path):
    """Returns `{name: array}` of a file that `np.savez` wrote.

    Raises:
        ValueError: If it cannot be read, or would fill the memory with more than the file holds.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            whole = sum(entry.file_size for entry in archive.infolist())
        if whole > path.stat().st_size:
            raise ValueError(f"{whole} bytes in a file of {path.stat().st_size}")
        with np.load(path, allow_pickle=False) as file:
            return {key: file[key] for key in file.files}
    except Exception as error:
        # NumPy's readers raise errors of many kinds for files that are damaged.
        raise ValueError(f"{type(error).__name__}: {error}") from error


def _flush(path):
    """Flushes the bytes to disk, so that no name survives a crash without its content."""
    with open(path, "rb") as file:
        os.fsync(file.fileno())


def is_leftover(path):
    """Whether this file or folder is an unfinished one that a killed program left."""
    return path.name.startswith(_UNFINISHED)


def check_name(path):
    """Raises ValueError for a name that no file can have."""
    name = os.path.basename(os.fspath(path))
    length = len(os.fsencode(name))
    if not name or length > _LONGEST or "\0" in name:
        raise ValueError(
            check.message(
                f"the name of a file, with at most {_LONGEST} bytes",
                f"{name[:40]!r}, with {length}",
                "Choose another name.",
            )
        )


def check_target(path, format=None):
    """Raises ValueError unless a file, or for "saved_model" a folder, can be written at a path."""
    check_name(path)
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
