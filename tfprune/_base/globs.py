"""Patterns of names, as in file names: "conv_*", "encoder/*", "block_[12]/dense"."""

import fnmatch
import glob


def matches(pattern, path):
    """Whether a pattern matches the path of a layer, or any end of it.

    "encoder/block/dense" is matched by "encoder/block/dense", "block/dense", "dense", "encoder/*"
    and "*".

    Args:
        pattern: The pattern; upper and lower case differ.
        path: Names of the layers from the outermost to the innermost, joined by slashes.
    """
    parts = path.split("/")
    ends = ("/".join(parts[start:]) for start in range(len(parts)))
    return any(fnmatch.fnmatchcase(end, pattern) for end in ends)


def exactly(by_path):
    """Returns `{pattern: value}` for paths, each of which has its own pattern as its last match.

    The end of a path means a layer too, so shorter paths come first.

    Args:
        by_path: `{path: value}`.
    """
    ordered = sorted(by_path.items(), key=lambda item: item[0].count("/"))
    return {glob.escape(path): value for path, value in ordered}


def matches_within(pattern, path):
    """Whether a pattern matches the layer at a path, or one of the layers around it."""
    parts = path.split("/")
    return any(matches(pattern, "/".join(parts[:end])) for end in range(1, len(parts) + 1))


def matches_weight(pattern, name):
    """Whether a pattern matches a weight, or one of the layers around it.

    Args:
        pattern: The pattern.
        name: Path of the layer, a slash, and the name of the weight, as "encoder/dense/kernel".
            The name of the weight alone ("kernel") matches nothing.
    """
    path, _, _ = name.rpartition("/")
    if not path:
        return fnmatch.fnmatchcase(name, pattern)
    parts = name.split("/")
    ends = ("/".join(parts[start:]) for start in range(len(parts) - 1))
    return matches_within(pattern, path) or any(fnmatch.fnmatchcase(end, pattern) for end in ends)
