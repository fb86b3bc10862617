"""Packages that are missing: what the library says, and that it says so before anything else."""

import importlib.util
import json
import os
import subprocess
import sys

import keras
import pytest

import tfprune

# Backends that are here are hidden from a new process, so Keras meets what its user would meet.
HIDDEN = """
import sys
for name in {hidden!r}:
    sys.modules[name] = None
import tfprune
"""
ALL = ["tensorflow", "jax", "torch"]


def failed_import(tmp_path, hidden, chosen=None, configured=None):
    """The last line that `import tfprune` prints in a process without some backends."""
    environment = {k: v for k, v in os.environ.items() if k != "KERAS_BACKEND"}
    environment["KERAS_HOME"] = str(tmp_path)
    if chosen:
        environment["KERAS_BACKEND"] = chosen
    if configured:
        (tmp_path / "keras.json").write_text(json.dumps({"backend": configured}))
    code = HIDDEN.format(hidden=hidden)
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment
    )
    assert done.returncode == 1
    return done.stderr.strip().splitlines()[-1]


def test_without_a_backend_the_extras_are_named(tmp_path):
    assert failed_import(tmp_path, ALL) == (
        "ImportError: Expected a backend for Keras: TensorFlow, JAX, PyTorch. Received: an "
        'environment without any of them. Run pip install "tfprune[tensorflow]"; or "tfprune[jax]" '
        'or "tfprune[torch]", and set KERAS_BACKEND to jax or torch.'
    )


@pytest.mark.parametrize(
    ("chosen", "configured", "place"),
    [("torch", "jax", "KERAS_BACKEND"), (None, "torch", "{}/keras.json")],
)
def test_the_backend_that_is_missing_is_named(tmp_path, chosen, configured, place):
    said = failed_import(tmp_path, ["jax", "torch"], chosen, configured)
    assert f"backend 'torch', from {place.format(tmp_path)}, which fails with" in said
    assert said.endswith(
        'Set KERAS_BACKEND=tensorflow, which is installed, or run pip install "tfprune[torch]".'
    )


def test_a_backend_that_does_not_exist(tmp_path):
    said = failed_import(tmp_path, ["jax", "torch"], "theano")
    assert "backend 'theano', from KERAS_BACKEND, which fails with: " in said
    assert said.endswith("Set KERAS_BACKEND=tensorflow, which is installed.")


def hide(monkeypatch, hidden):
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda n: None if n == hidden else find(n))


def test_summaries_without_tensorflow(monkeypatch):
    hide(monkeypatch, "tensorflow")
    with pytest.raises(ImportError, match=r"tensorflow to be installed.*tfprune\[tensorflow\]"):
        tfprune.PruningSummaries("logs")


@pytest.mark.parametrize(("name", "extra"), [("folder", "tensorflow"), ("model.tflite", "litert")])
def test_exports_without_tensorflow(monkeypatch, tmp_path, name, extra):
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
    hide(monkeypatch, "tensorflow")
    with pytest.raises(ImportError, match=rf"tensorflow to be installed.*tfprune\[{extra}\]"):
        tfprune.export(model, tmp_path / name)
    assert list(tmp_path.iterdir()) == []
