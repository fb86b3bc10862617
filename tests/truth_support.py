"""Runs the scripts that ask tfmot, in separate processes."""

import importlib.util
import os
import subprocess
import sys

import pytest


def run_without_backend(script, *arguments):
    """Runs a script that needs TensorFlow, with any backend of the tests.

    Skips the test where tfmot, which all of them ask, is not installed.
    """
    if importlib.util.find_spec("tensorflow_model_optimization") is None:
        pytest.skip("needs tfmot")
    environment = {k: v for k, v in os.environ.items() if k != "KERAS_BACKEND"}
    done = subprocess.run(
        [sys.executable, script, *map(str, arguments)],
        capture_output=True,
        text=True,
        env=environment,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(done.stderr)
