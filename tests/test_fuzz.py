"""Three hundred calls of benchmarks/fuzz.py, which makes 20,000."""

import sys
from pathlib import Path

import pytest
from keras import layers

import tfprune
from tfprune._layers import registry

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


# Each was a finding of a long run, of a kind that no other test holds.
@pytest.mark.parametrize("number", [400405, 400556, 403947, 406299, 410369, 411390, 419929])
def test_a_finding_stays_mended(number, tmp_path, monkeypatch):
    from fuzz import Fuzzer

    monkeypatch.chdir(tmp_path)
    fuzzer = Fuzzer(number)
    fuzzer.call()
    assert fuzzer.findings == []


def test_a_call_leaves_no_registration_behind():
    from fuzz import registrations_undone

    class Layer(layers.Layer):
        pass

    with registrations_undone():
        tfprune.register_prunable(layers.Dense, ["missing"])
        tfprune.register_prunable(Layer, ["kernel"])
    assert [w.name for w in registry.own_prunable_weights(layers.Dense(2))] == ["kernel"]
    assert registry.own_prunable_weights(Layer()) is None
