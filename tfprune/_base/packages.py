"""Optional packages, and the errors that say which extra to install."""

import importlib.util
import json
import os
from pathlib import Path

from tfprune._base import validation as check

BACKENDS = {"tensorflow": "TensorFlow", "jax": "JAX", "torch": "PyTorch"}


def check_installed(names, extra, purpose):
    """Raises unless all the packages can be imported.

    Args:
        names: Names of modules.
        extra: The extra of tfprune that installs them.
        purpose: A phrase for the message, for instance "for litert".

    Raises:
        ImportError: If a package is missing; the message names it and the extra.
    """
    missing = [name for name in names if not _is_installed(name)]
    if missing:
        raise ImportError(
            check.message(
                f"{' and '.join(missing)} to be installed, {purpose}",
                "an environment without",
                f'Run pip install "tfprune[{extra}]".',
            )
        )


def check_backend():
    """Imports Keras, or explains why it cannot.

    Raises:
        ImportError: If Keras cannot import its configured backend; the message names the extra
            that installs it.
    """
    try:
        import keras  # noqa: F401
    except Exception as error:
        if isinstance(error, ModuleNotFoundError) and error.name == "keras":
            raise
        raise ImportError(_no_backend(error)) from error


def _is_installed(name):
    return importlib.util.find_spec(name) is not None


def _no_backend(error):
    installed = [name for name in BACKENDS if _is_installed(name)]
    chosen, place = _configured()
    if not installed:
        received = "an environment without any of them"
        mend = (
            'Run pip install "tfprune[tensorflow]"; or "tfprune[jax]" or "tfprune[torch]", and set '
            "KERAS_BACKEND to jax or torch."
        )
        expected = f"a backend for Keras: {', '.join(BACKENDS.values())}"
        return check.message(expected, received, mend)
    first = check.first_line(error).rstrip(".")
    received = f"backend {chosen!r}, from {place}, which fails with: {first}"
    others = [name for name in installed if name != chosen]
    ways = [f"set KERAS_BACKEND={name}, which is installed" for name in others[:1]]
    if chosen in BACKENDS:
        ways.append(f'run pip install "tfprune[{chosen}]"')
    elif not others:
        ways.append("set KERAS_BACKEND to tensorflow, jax or torch")
    mend = ", or ".join(ways)
    mend = f"{mend[0].upper()}{mend[1:]}."
    return check.message("a backend that Keras can import", received, mend)


def _configured():
    """Returns the backend that Keras is configured to use, and where that is set."""
    if name := os.environ.get("KERAS_BACKEND"):
        return name, "KERAS_BACKEND"
    home = os.environ.get("KERAS_HOME") or Path.home() / ".keras"
    path = Path(home) / "keras.json"
    try:
        return json.loads(path.read_text())["backend"], str(path)
    except (OSError, ValueError, LookupError, TypeError):
        return "tensorflow", "Keras's default"
