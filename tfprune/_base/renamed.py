"""Renamed arguments: the old name still works, with a warning."""

import functools
import warnings

from tfprune._base import validation as check


def renamed(**names):
    """Returns a decorator that accepts arguments by their old names too.

    Args:
        **names: `old="new"`.
    """

    def decorate(function):
        @functools.wraps(function)
        def taking_both(*args, **kwargs):
            for old, new in names.items():
                if old not in kwargs:
                    continue
                if new in kwargs:
                    raise TypeError(
                        check.message(
                            f"`{new}` alone",
                            f"{new} and {old}",
                            f"Leave {old} out: {new} replaces it.",
                        )
                    )
                warn(f"`{function.__qualname__}({old}=)` is deprecated: use `{new}=`.")
                kwargs[new] = kwargs.pop(old)
            return function(*args, **kwargs)

        return taking_both

    return decorate


def warn(text):
    """Issues a DeprecationWarning at the line that calls the public function."""
    warnings.warn(text, DeprecationWarning, stacklevel=3)
