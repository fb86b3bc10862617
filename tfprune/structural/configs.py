"""Edits the entries of configs that count the parts of a model."""


def edit_counts(config, names, old, new):
    """Changes what entries of a config, and of the configs inside it, count.

    Args:
        config: A config; it is changed.
        names: Names of the entries.
        old: The number that they hold now. Entries with another number stay.
        new: The number to set.

    Returns:
        How many entries were changed.
    """
    found = [(part, name) for part in parts(config) for name in names if part.get(name) == old]
    for part, name in found:
        part[name] = new
    return len(found)


def parts(config):
    """Yields a config and those inside it."""
    if isinstance(config, (list, tuple)):
        for item in config:
            yield from parts(item)
    elif isinstance(config, dict):
        yield config
        yield from parts(list(config.values()))
