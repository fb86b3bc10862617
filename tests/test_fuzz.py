"""Three hundred calls of benchmarks/fuzz.py, which makes 20,000."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))


@pytest.mark.parametrize("first", [0, 100, 200])
def test_calls_with_arguments_of_all_kinds(first, tmp_path, monkeypatch):
    from fuzz import Fuzzer

    monkeypatch.chdir(tmp_path)
    fuzzer = Fuzzer(first)
    for _ in range(100):
        fuzzer.call()
    assert fuzzer.findings == []
    assert fuzzer.counts["calls"] == 100 and fuzzer.counts["successes"] > 10
