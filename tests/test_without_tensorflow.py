"""Keras and JAX alone: runs where TensorFlow is not installed.

python -m pytest --noconftest -o addopts= tests/test_without_tensorflow.py
"""

import importlib.util
import json
import sys

import numpy as np
import pytest

if importlib.util.find_spec("tensorflow"):
    pytest.skip("TensorFlow is installed", allow_module_level=True)

import keras
from keras import layers

import tfprune

RNG = np.random.default_rng(0)
DATA = (RNG.normal(size=(32, 8, 8, 3)).astype("float32"), np.arange(32) % 4)
LOSS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


@pytest.fixture(scope="module")
def model():
    keras.utils.set_random_seed(0)
    inputs = keras.Input((8, 8, 3))
    x = layers.Conv2D(8, 3, padding="same", use_bias=False, name="first")(inputs)
    x = layers.ReLU()(layers.BatchNormalization()(x))
    x = layers.Dropout(0.2)(layers.Conv2D(6, 3, padding="same", name="second")(x))
    outputs = layers.Dense(4, name="last")(layers.GlobalAveragePooling2D()(x))
    return keras.Model(inputs, outputs)


def trained(model, *callbacks, **arguments):
    schedule = tfprune.PolynomialDecay(0, 0.75, 0, 8)
    pruned = tfprune.prune_low_magnitude(model, schedule, **arguments)
    pruned.compile("adam", LOSS)
    step = tfprune.UpdatePruningStep(data=DATA)
    pruned.fit(*DATA, batch_size=8, epochs=2, verbose=0, callbacks=[step, *callbacks])
    return pruned


@pytest.fixture(scope="module")
def pruned(model):
    return trained(model)


def outputs(model):
    return model.predict(DATA[0], verbose=0)


def zeros(model):
    return {name: (model.get_layer(name).kernel.numpy() == 0).mean() for name in ("first", "last")}


def test_neither_tensorflow_nor_pytorch_is_imported():
    assert keras.backend.backend() == "jax"
    assert not {"tensorflow", "tf_keras", "torch"} & set(sys.modules)


def test_prunes_trains_and_strips(pruned):
    stripped = tfprune.strip_pruning(pruned)
    assert zeros(stripped) == {"first": 0.75, "last": 0.75}
    np.testing.assert_array_equal(
        stripped.predict(DATA[0], verbose=0), pruned.predict(DATA[0], verbose=0)
    )


def test_saves_and_goes_on(pruned, tmp_path):
    pruned.save(tmp_path / "pruned.keras")
    loaded = keras.models.load_model(tmp_path / "pruned.keras")
    assert [owner.pruning_step for owner in loaded.layers if hasattr(owner, "pruning_step")] == [
        8
    ] * 3
    step = tfprune.UpdatePruningStep()
    loaded.fit(*DATA, batch_size=8, epochs=3, initial_epoch=2, verbose=0, callbacks=[step])
    assert zeros(tfprune.strip_pruning(loaded)) == {"first": 0.75, "last": 0.75}
    tfprune.strip_pruning(pruned).save(tmp_path / "plain.keras")
    exported = tfprune.export(pruned, tmp_path / "exported.keras")
    assert exported.difference == 0


@pytest.mark.parametrize(
    ("criterion", "pattern"),
    [("taylor", "unstructured"), ("apoz", "filter"), ("batch_norm_scale", "filter")],
)
def test_criteria_that_need_evidence(model, criterion, pattern):
    rules = [tfprune.Rule(name, prune=False) for name in ("second", "last")]
    found = trained(model, criterion=criterion, pattern=pattern, rules=rules)
    assert zeros(tfprune.strip_pruning(found))["first"] == 0.75


def test_shrinks_folds_and_reports(model):
    pruned = tfprune.prune_low_magnitude(model, tfprune.ConstantSparsity(0.5, 0), pattern="filter")
    tfprune.UpdatePruningStep(pruned)
    smaller = tfprune.shrink(pruned)
    assert smaller.get_layer("first").filters == 4
    expected = outputs(tfprune.strip_pruning(pruned))
    np.testing.assert_allclose(outputs(smaller), expected, rtol=1e-4, atol=1e-5)
    folded = tfprune.fold_batch_norm(smaller)
    np.testing.assert_allclose(outputs(folded), expected, rtol=1e-4, atol=1e-5)
    report = tfprune.sparsity_report(pruned)
    assert "first" in str(report)
    # 8 x 8 places, 3 x 3 windows; half of 8 and of 6 channels; 4 outputs.
    assert tfprune.model_cost(smaller).macs == 64 * 9 * (3 * 4 + 4 * 3) + 3 * 4
    assert tfprune.measure_latency(smaller, runs=2).median > 0


def test_the_command(pruned, tmp_path, capsys):
    from tfprune.cli import main

    path = tmp_path / "pruned.keras"
    pruned.save(path)
    capsys.readouterr()
    assert main(["report", str(path), "--json"]) == 0
    assert "first" in json.dumps(json.loads(capsys.readouterr().out))
    assert main(["export", str(path), "-o", str(tmp_path / "saved")]) == 1
    assert 'pip install "tfprune[tensorflow]"' in capsys.readouterr().err


def test_what_needs_tensorflow_says_so(pruned, tmp_path):
    for name, extra in (("saved", "tensorflow"), ("m.tflite", "litert"), ("m.onnx", "onnx")):
        with pytest.raises(ImportError, match=rf'pip install "tfprune\[{extra}\]"'):
            tfprune.export(pruned, tmp_path / name)
    with pytest.raises(ImportError, match=r'pip install "tfprune\[tensorflow\]"'):
        tfprune.PruningSummaries(tmp_path / "logs")
    with pytest.raises(ImportError, match=r'pip install "tfprune\[tfmot\]"'):
        tfprune.interop.from_tfmot(__file__)
    assert list(tmp_path.iterdir()) == []
