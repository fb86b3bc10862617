"""Runs tutorials as a user runs them."""

import os
import subprocess
import sys
from pathlib import Path

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


def assert_one_line_of_error(done, name, expected):
    """That a tutorial said what is wrong in one line, before it trained anything."""
    assert done.returncode != 0
    line = done.stderr.rstrip().splitlines()[-1]
    assert line.startswith(f"{name}: ") and expected in line
    assert "Traceback" not in done.stderr
