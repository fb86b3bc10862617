"""28 kills of benchmarks/kill_and_resume.py, which makes a hundred of each way to train."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
KILLS = 4
WAYS = [
    "PruningBackup",
    "RigL with PruningBackup",
    "ADMM with PruningBackup",
    "PruningCheckpoint",
    "LotteryTicket",
    "sensitivity",
    "NetAdapt",
]


@pytest.mark.slow
def test_killed_trainings_end_bit_equal(tmp_path):
    command = [sys.executable, str(BENCHMARKS / "kill_and_resume.py"), "--kills", str(KILLS)]
    done = subprocess.run(
        [*command, "--output", str(tmp_path), "--ways", *WAYS],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    found = json.loads((tmp_path / "kill_and_resume.json").read_text())
    assert {way: (found[way]["bit-equal"], found[way]["wrong"]) for way in WAYS} == {
        way: (KILLS, []) for way in WAYS
    }
