"""`.pt2` files: one call for all layers, in PyTorch without Keras."""

import keras
import numpy as np
import pytest
from keras import layers
from keras_support import outputs
from sparse_support import attention_model, inputs_of, with_zeros

import tfprune

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


@pytest.mark.skipif(BACKEND == "torch", reason="PyTorch can")
def test_other_backends_say_how_to_get_one(tmp_path):
    pytest.importorskip("torch")
    model = keras.Sequential([keras.Input((4,)), layers.Dense(2)])
    with pytest.raises(ValueError, match=r"PyTorch backend for a \.pt2 file.*KERAS_BACKEND=torch"):
        tfprune.export(model, tmp_path / "model.pt2")
    assert list(tmp_path.iterdir()) == []
