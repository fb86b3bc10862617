"""Searches with a budget of latency, whose candidates run as LiteRT files to the end."""

import json
import types

import keras
import numpy as np
import pytest
from keras import layers
from sklearn.datasets import load_digits

import tfprune
from tfprune import pruners
from tfprune._formats.litert import LiteRTFile
from tfprune.cli import main

pytestmark = pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="TensorFlow writes LiteRT files"
)


def digits():
    x, y = load_digits(return_X_y=True)
    return (x / 16).astype("float32").reshape(-1, 8, 8, 1), y


def cnn(width, size=8, channels=1):
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            keras.Input((size, size, channels)),
            layers.Conv2D(width, 3, padding="same", activation="relu", name="one"),
            layers.Conv2D(width, 3, padding="same", activation="relu", name="two"),
            layers.GlobalAveragePooling2D(),
            layers.Dense(10, activation="softmax"),
        ]
    )
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


@pytest.fixture
def seconds_are_bytes(monkeypatch):
    """A machine on which a LiteRT file runs for a second for each megabyte that it has."""
    now, opened = [0.0], LiteRTFile.open

    def opening(self, path, threads=None):
        session = opened(self, path, threads)
        run, seconds = session.run, path.stat().st_size / 1e6

        def timed(inputs):
            now[0] += seconds
            return run(inputs)

        session.run = timed
        return session

    monkeypatch.setattr(LiteRTFile, "open", opening)
    clock = types.SimpleNamespace(perf_counter=lambda: now[0])
    monkeypatch.setattr("tfprune._reports.latency.time", clock)


@pytest.mark.usefixtures("seconds_are_bytes")
def test_the_reported_latency_is_that_of_the_file_that_is_shipped(tmp_path):
    x, y = digits()
    model = cnn(32)
    model.fit(x[:1200], y[:1200], verbose=0)
    search = pruners.SensitivitySearch(model, {"latency": 0.7}, runtime="litert", levels=3)

    def evaluate(candidate):
        return candidate.evaluate(x[1200:], y[1200:], verbose=0, return_dict=True)

    result = search.run(evaluate, verbose=0)
    sizes = {
        name: tfprune.export(shipped, tmp_path / f"{name}.tflite", verbose=0).bytes
        for name, shipped in (("dense", model), ("small", result.model))
    }
    assert result.dense["latency"] == pytest.approx(sizes["dense"] / 1e6, rel=0.01)
    assert result.costs["latency"] == pytest.approx(sizes["small"] / 1e6, rel=0.01)
    assert 0.6 < result.costs["latency"] / result.dense["latency"] <= 0.7
    assert result.to_dict()["costs"] == result.costs and "Latency" in str(result)
    assert result.best.metrics == pytest.approx(evaluate(result.model), abs=1e-4)


@pytest.mark.slow
def test_the_command_searches_in_litert_itself(tmp_path, capsys):
    """On this machine's own clock, so the times themselves are not asserted."""
    random = np.random.default_rng(0)
    x, y = random.normal(size=(64, 32, 32, 8)).astype("float32"), random.integers(0, 10, 64)
    np.savez(tmp_path / "data.npz", x_train=x, y_train=y, x_test=x[:8], y_test=y[:8])
    cnn(64, 32, 8).save(tmp_path / "dense.keras")
    words = ["search", "netadapt", str(tmp_path / "dense.keras"), "--steps", "2", "--json"]
    words += ["--data", str(tmp_path / "data.npz"), "-o", str(tmp_path / "small.keras")]
    assert main([*words, "--latency", "0.7", "--runtime", "litert"]) == 0
    found = json.loads(capsys.readouterr().out)["search"]
    assert found["budget"] == {"latency": 0.7} and found["method"] == "NetAdapt"
    assert 0 < found["costs"]["latency"] <= 0.7 * found["dense"]["latency"]
    small = keras.saving.load_model(tmp_path / "small.keras")
    assert tfprune.model_cost(small).macs == found["costs"]["macs"] < found["dense"]["macs"]
    tfprune.export(small, tmp_path / "small.tflite", verbose=0)
    (latency,) = tfprune.compare_latency({"small": tmp_path / "small.tflite"}, verbose=0).values()
    assert latency.runtime == "LiteRT" and latency.threads == 1
