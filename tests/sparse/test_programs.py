"""`.pt2` files: one call for all layers, in PyTorch without Keras."""

import importlib.util
import json
import os
import subprocess
import sys

import keras
import numpy as np
import pytest
from keras import layers
from keras_support import outputs
from sparse_support import attention_model, inputs_of, with_zeros

import tfprune
from tfprune.cli import main

BACKEND = keras.backend.backend()
needs_torch = pytest.mark.skipif(BACKEND != "torch", reason="PyTorch writes its own programs")


@needs_torch
def test_a_sparse_model_is_one_program_for_any_batch(tmp_path):
    import torch

    model = tfprune.to_sparse(attention_model(), prefer="size")
    done = tfprune.export(model, tmp_path / "model.pt2")
    assert (done.format, done.runtime) == ("torch", "PyTorch") and done.relative < 1e-5
    program = torch.export.load(tmp_path / "model.pt2")
    # PyTorch's own operators alone: the file needs neither Keras nor tfprune.
    targets = [node.target for node in program.graph.nodes if node.op == "call_function"]
    named = [target for target in targets if isinstance(target, torch._ops.OpOverload)]
    assert named and {target.namespace for target in named} == {"aten"}
    assert torch.ops.aten.embedding_bag.padding_idx in named
    for batch in (1, 2, 5):
        x = inputs_of(batch)
        with torch.no_grad():
            (found,) = program.module()(torch.as_tensor(x))
        np.testing.assert_allclose(found, outputs(model, x), rtol=1e-4, atol=1e-5)


@needs_torch
def test_a_program_stores_its_weights_once(tmp_path):
    model = with_zeros(keras.Sequential([keras.Input((256,)), layers.Dense(512)]), 0.9)
    tfprune.export(model, tmp_path / "dense.pt2")
    assert (tmp_path / "dense.pt2").stat().st_size < 1.2 * 4 * 256 * 512
    tfprune.export(tfprune.to_sparse(model, prefer="size"), tmp_path / "sparse.pt2")
    assert (tmp_path / "sparse.pt2").stat().st_size < 1.2 * 8 * 0.1 * 256 * 512 + 20_000


def compiled(model):
    model.compile("sgd", "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


def classifier():
    stack = [keras.Input((40,)), layers.Dense(30, "relu"), layers.Dense(5, "softmax")]
    return with_zeros(compiled(keras.Sequential(stack)))


def examples():
    return inputs_of(24, (40,)), np.arange(24) % 5


@needs_torch
def test_a_program_takes_inputs_one_by_one_and_returns_a_tuple(tmp_path):
    import torch

    b, a = keras.Input((6,), name="b"), keras.Input((3,), name="a")
    joined = layers.Concatenate()([layers.Dense(4)(b), a])
    model = keras.Model(
        {"b": b, "a": a}, {"z": layers.Dense(2)(joined), "y": layers.Dense(1)(joined)}
    )
    tfprune.export(model, tmp_path / "model.pt2")
    program = torch.export.load(tmp_path / "model.pt2").module()
    x = {"b": inputs_of(4, (6,)), "a": inputs_of(4, (3,))}
    assert [given.name for given in model.inputs] == ["a", "b"]
    found = program(torch.as_tensor(x["a"]), torch.as_tensor(x["b"]))
    truth = model(x)
    assert isinstance(found, tuple) and len(found) == 2
    for name, tensor in zip("yz", found, strict=True):
        expected = keras.ops.convert_to_numpy(truth[name])
        np.testing.assert_allclose(tensor.detach(), expected, rtol=1e-5, atol=1e-6)


@needs_torch
def test_comparisons_write_and_measure_programs(tmp_path):
    import torch

    model = classifier()
    sparse = compiled(tfprune.to_sparse(model, prefer="size"))
    x, y = data = examples()
    found = tfprune.compare(model, sparse, data, formats=["torch"], batch_size=[1, 4], runs=2)
    for side, file in zip((model, sparse), found.files["torch"], strict=True):
        path = tmp_path / "model.pt2"
        tfprune.export(side, path)
        assert file.note == "" and abs(file.raw - path.stat().st_size) < 100
        assert {size: each.runtime for size, each in file.latency.items()} == dict.fromkeys(
            (1, 4), "PyTorch"
        )
        (outputs_of_file,) = torch.export.load(path).module()(torch.as_tensor(x))
        outputs_of_file = outputs_of_file.detach().numpy()
        assert file.metrics["accuracy"] == pytest.approx(np.mean(outputs_of_file.argmax(1) == y))
        loss = -np.log(outputs_of_file[np.arange(24), y]).mean()
        assert file.metrics["loss"] == pytest.approx(loss, rel=1e-4)


@needs_torch
def test_programs_that_the_user_has(tmp_path):
    model, (x, y) = classifier(), examples()
    path = tmp_path / "model.pt2"
    tfprune.export(model, path)
    assert tfprune.measure_latency(path, batch_size=3, runs=2).runtime == "PyTorch"
    timed = tfprune.compare_latency({"live": model, "program": str(path)}, [1, 2], runs=2)
    assert [timed["program"][size].batch_size for size in (1, 2)] == [1, 2]
    # Arrays that PyTorch would warn of, or refuse.
    x.setflags(write=False)
    found = tfprune.compare(model, path, (x[::-1], y[::-1]), formats=["torch"], latency=False)
    before, after = found.files["torch"]
    assert after.raw == path.stat().st_size and after.metrics == pytest.approx(before.metrics)
    assert found.metrics["accuracy"][0] == pytest.approx(after.metrics["accuracy"])


@needs_torch
def test_another_backend_measures_programs(tmp_path):
    other = "jax" if importlib.util.find_spec("jax") else "tensorflow"
    pytest.importorskip(other)
    tfprune.export(classifier(), tmp_path / "model.pt2")
    code = "import sys, tfprune; print(tfprune.measure_latency(sys.argv[1], 2, runs=2).runtime)"
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "model.pt2")],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "KERAS_BACKEND": other, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.strip() == "PyTorch"


@needs_torch
def test_the_command_compares_programs(tmp_path, capsys):
    classifier().save(tmp_path / "model.keras")
    tfprune.export(classifier(), tmp_path / "model.pt2")
    words = ["compare", str(tmp_path / "model.keras"), str(tmp_path / "model.pt2"), "--json"]
    options = ["--formats", "torch", "--runs", "2"]
    assert main([*words, *options]) == 1
    said = " ".join(capsys.readouterr().err.split())
    assert "a file without code of its own" in said and "--unsafe" in said
    assert main([*words, *options, "--unsafe"]) == 0
    files = json.loads(capsys.readouterr().out)["files"]["torch"]
    assert [file["latency"]["1"]["runtime"] for file in files] == ["PyTorch", "PyTorch"]


def test_a_program_is_measured_where_pytorch_is_installed(tmp_path, monkeypatch):
    path = tmp_path / "model.pt2"
    path.touch()
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    for measure in (
        lambda: tfprune.measure_latency(path),
        lambda: tfprune.compare_latency({"program": path}),
        lambda: tfprune.compare(path, path),
    ):
        with pytest.raises(ImportError, match=r"Expected torch to be installed.*tfprune\[torch\]"):
            measure()


@pytest.mark.skipif(BACKEND == "torch", reason="PyTorch can")
def test_comparisons_on_other_backends_note_why_there_is_no_program():
    pytest.importorskip("torch")
    model = keras.Sequential([keras.Input((4,)), layers.Dense(2)])
    found = tfprune.compare(model, model, formats=["keras", "torch"], latency=False)
    for file in found.files["torch"]:
        assert file.raw is None
        assert "the PyTorch backend for a .pt2 file" in file.note
        assert f"KERAS_BACKEND={BACKEND}" in file.note
    assert found.files["keras"][0].raw > 0


class Deciding(layers.Layer):
    """Decides by the values of its inputs, which a program cannot."""

    def call(self, x):
        return x if keras.ops.sum(x) > 0 else -x

    def compute_output_shape(self, shape):
        return shape


class Converting(Deciding):
    """Computes in NumPy, which a program cannot."""

    def call(self, x):
        return keras.ops.convert_to_tensor(np.cumsum(keras.ops.convert_to_numpy(x), axis=-1))


@needs_torch
@pytest.mark.parametrize("kind", [Deciding, Converting])
def test_a_layer_that_no_program_can_follow_is_named(kind, tmp_path, capfd):
    stack = [layers.Dense(3), kind(name="culprit"), layers.Dense(2)]
    model = keras.Sequential([keras.Input((4,)), *stack])
    with pytest.raises(ValueError, match=f"Received: 'culprit', a {kind.__name__}, which") as told:
        tfprune.export(model, tmp_path / "model.pt2", verbose=0)
    said = str(told.value)
    assert "\n" not in said and len(said) < 900 and "Nothing was written" in said
    assert "graph" not in capfd.readouterr().err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(BACKEND == "torch", reason="PyTorch can")
def test_other_backends_say_how_to_get_one(tmp_path):
    pytest.importorskip("torch")
    model = keras.Sequential([keras.Input((4,)), layers.Dense(2)])
    with pytest.raises(ValueError, match=r"PyTorch backend for a \.pt2 file.*KERAS_BACKEND=torch"):
        tfprune.export(model, tmp_path / "model.pt2")
    assert list(tmp_path.iterdir()) == []
