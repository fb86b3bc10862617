"""The base of all small configurable parts: frozen fields that double as the config."""

from dataclasses import fields
from typing import Any

from tfprune._base import validation as check


class Frozen:
    """Base of frozen dataclasses whose fields are the constructor's arguments."""

    def get_config(self):
        """Returns the constructor's own arguments as a dictionary."""
        own: Any = self
        return {item.name: getattr(self, item.name) for item in fields(own)}

    @classmethod
    def from_config(cls, config):
        """Makes the object from `get_config()`."""
        return cls(**config)


def get(value, kind, base, by_name, default):
    """Returns an object of class `base`.

    Args:
        value: Such an object, the name of one, its serialized form, or `None`.
        kind: Name of the argument, for messages.
        base: The class that the object must have.
        by_name: `{name: class}`.
        default: The class to use for `None`.

    Raises:
        ValueError: For an unknown name.
        TypeError: For anything else.
    """
    if value is None:
        return default()
    if isinstance(value, str):
        check.choice(kind, value, tuple(by_name))
        return by_name[value]()
    if isinstance(value, dict):
        value = check.deserialized(kind, value, f"Known names: {', '.join(by_name)}.")
    if isinstance(value, base):
        return value
    home = ".".join(base.__module__.split(".")[:2])
    raise TypeError(
        check.message(
            f"`{kind}` to be a {home}.{base.__name__} or the name of one",
            f"{kind}={value!r}",
            f"Known names: {', '.join(by_name)}.",
        )
    )
