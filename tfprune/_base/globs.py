"""Patterns of names, as in file names: "conv_*", "encoder/*", "block_[12]/dense"."""

import fnmatch


def means(pattern, path):
    """Whether a pattern means the layer at a path.

    It does if it matches the path or any end of it: "encoder/block/dense" is meant by
    "encoder/block/dense", "block/dense", "dense", "encoder/*" and "*".

    Args:
        pattern: The pattern; upper and lower case differ.
        path: Names of the layers from the outermost to the innermost, joined by slashes.
    """
    parts = path.split("/")
    ends = ("/".join(parts[start:]) for start in range(len(parts)))
    return any(fnmatch.fnmatchcase(end, pattern) for end in ends)


def means_within(pattern, path):
    """Whether a pattern means the layer at a path, or one of the layers around it."""
    parts = path.split("/")
    return any(means(pattern, "/".join(parts[:end])) for end in range(1, len(parts) + 1))


def means_weight(pattern, name):
    """Whether a pattern means a weight: a layer that it is in, or the weight itself.

    Args:
        pattern: The pattern.
        name: Path of the layer, a slash, and the name of the weight, as "encoder/dense/kernel".
            The last name alone is no layer's, and means nothing.
    """
    path, _, _ = name.rpartition("/")
    if not path:
        return fnmatch.fnmatchcase(name, pattern)
    parts = name.split("/")
    ends = ("/".join(parts[start:]) for start in range(len(parts) - 1))
    return means_within(pattern, path) or any(fnmatch.fnmatchcase(end, pattern) for end in ends)
