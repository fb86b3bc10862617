"""Registries of built-in parts: one decorator names a class, makes it saveable and exports it."""

import keras

from tfprune._base import frozen
from tfprune._base import validation as check
from tfprune._base.names import in_lower_case


class PartRegistry:
    """The built-in parts of one kind, by name.

    A part is a class with `@PARTS.part(...)` above it. The decorator registers the class with
    Keras under the package name `tfprune` if parts of this kind are saved, gives it the names by
    which `get` and the command line find it, and marks it for export. `.ci/generate` writes the
    export lists from these marks.

    Args:
        kind: Name of an argument of this kind, for instance "pattern".
        exported: Module that exports the parts: "tfprune", or "tfprune.criteria".
        default: Name of the part that `None` selects, if any.
        saved: Whether the parts have configs that files hold.
    """

    def __init__(self, kind, exported="tfprune", default=None, saved=True):
        self.kind = kind
        self.default = default
        self.exported = exported
        self.saved = saved
        self._by_name: dict = {}

    def part(self, *names, arguments=""):
        """Returns a decorator that registers a class as a part.

        Args:
            *names: The names of the part; by default the class name in lower case with
                underscores.
            arguments: Text that replaces `{arguments}` in the docstring: the sections that
                several parts share.
        """

        def decorate(cls):
            if cls.__doc__ and arguments:
                cls.__doc__ = cls.__doc__.replace("\n    {arguments}\n", arguments)
            for name in names or (in_lower_case(cls.__name__),):
                if name in self._by_name:
                    raise ValueError(
                        check.message(
                            f"a new name for a {self.kind}",
                            f"{name!r}, which names {self._by_name[name].__name__} already",
                            "Choose another name.",
                        )
                    )
                self._by_name[name] = cls
            if not self.saved:
                return cls
            return keras.saving.register_keras_serializable(package="tfprune")(cls)

        return decorate

    def by_name(self):
        """Returns `{name: class}`, the default first; a class with two names comes twice."""
        return dict(sorted(self._by_name.items(), key=lambda item: item[0] != self.default))

    def classes(self):
        """Returns the classes, each once, in the order in which they were defined."""
        return tuple(dict.fromkeys(self._by_name.values()))

    def get(self, value, base):
        """Returns a part of class `base`; see `tfprune._base.frozen.get`."""
        return frozen.get(value, self.kind, base, self.by_name(), self._by_name[self.default])
