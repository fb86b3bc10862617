"""The machine and the versions that a measurement was made with."""

import datetime
import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import keras

_PACKAGES = (
    "tfprune",
    "keras",
    "tensorflow",
    "jax",
    "torch",
    "ai-edge-litert",
    "onnxruntime",
    "numpy",
)


def machine():
    """Returns `{property: text}`: host, processor, system, backend, date, and versions."""
    found = {
        "host": platform.node() or "unknown",
        "processor": f"{_processor()}, {os.cpu_count()} cores",
        "system": f"{platform.system()} {platform.release()}, Python {platform.python_version()}",
        "backend": keras.backend.backend(),
        "date": datetime.datetime.now().astimezone().isoformat(" ", "minutes"),
    }
    for name in _PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def _processor():
    known = Path("/proc/cpuinfo")
    if known.is_file():
        for line in known.read_text(errors="replace").splitlines():
            name, _, value = line.partition(":")
            if name.strip() == "model name":
                return value.strip()
    return platform.processor() or platform.machine()
