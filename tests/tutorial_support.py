"""Runs tutorials as a user runs them."""

import contextlib
import io
import os
import runpy
import subprocess
import sys
from pathlib import Path
from unittest.mock import patch

import pytest

ROOT = Path(__file__).parents[1]


def run_tutorial(name, *arguments):
    environment = dict(os.environ, PYTHONPATH=str(ROOT), COLUMNS="120")
    environment.pop("KERAS_BACKEND", None)
    return subprocess.run(
        [sys.executable, str(ROOT / "tutorials" / name), *map(str, arguments)],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


def assert_refused(name, arguments, expected):
    """That a tutorial says what is wrong in one line, before it trains anything.

    In this process: a separate one would spend most of its time importing TensorFlow.
    """
    printed = io.StringIO()
    with (
        patch.object(sys, "argv", [name, *map(str, arguments)]),
        patch.object(sys, "path", [str(ROOT / "tutorials"), *sys.path]),
        contextlib.redirect_stdout(printed),
        pytest.raises(SystemExit) as raised,
    ):
        runpy.run_path(str(ROOT / "tutorials" / name), run_name="__main__")
    # Python prints it and exits with 1.
    (line,) = raised.value.code.splitlines()
    assert line.startswith(f"{name}: ") and expected in line
    assert "Train" not in printed.getvalue() and "Epoch" not in printed.getvalue()
