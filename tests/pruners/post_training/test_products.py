"""Layers as products of matrices, against the layers themselves."""

import keras
import numpy as np
import pytest
from keras import layers, ops

from tfprune._layers import registry
from tfprune.pruners.post_training.experts import watched_experts
from tfprune.pruners.post_training.products import product_of
from tfprune.pruners.post_training.statistics import InputStatistics

CASES = {
    "dense": (layers.Dense(5, use_bias=False), (3, 4)),
    "dense of sequences": (layers.Dense(5, use_bias=False), (2, 7, 4)),
    "btd,ndh->btnh": (layers.EinsumDense("btd,ndh->btnh", (None, 2, 3)), (2, 7, 4)),
    "btnh,nhd->btd": (layers.EinsumDense("btnh,nhd->btd", (None, 4)), (2, 7, 2, 3)),
    "abc,acd->abd": (layers.EinsumDense("abc,acd->abd", (7, 5)), (2, 7, 4)),
    "...x,xy->...y": (layers.EinsumDense("...x,xy->...y", (5,)), (2, 3, 7, 4)),
    "Conv1D": (layers.Conv1D(6, 3, strides=2, use_bias=False), (2, 9, 4)),
    "Conv1D causal": (
        layers.Conv1D(6, 3, padding="causal", dilation_rate=2, use_bias=False),
        (2, 9, 4),
    ),
    "Conv2D": (layers.Conv2D(6, (3, 2), use_bias=False), (2, 7, 8, 4)),
    "Conv2D same": (
        layers.Conv2D(6, 3, strides=2, padding="same", use_bias=False),
        (2, 7, 8, 4),
    ),
    "Conv2D dilated": (layers.Conv2D(6, 3, dilation_rate=2, use_bias=False), (2, 7, 8, 4)),
    "Conv2D grouped": (layers.Conv2D(6, 3, groups=2, use_bias=False), (2, 7, 8, 4)),
}


@pytest.mark.parametrize("name", CASES)
def test_the_product_is_what_the_layer_computes(name):
    layer, shape = CASES[name]
    random = np.random.default_rng(0)
    x = random.normal(size=shape).astype("float32")
    if name == "abc,acd->abd":
        layer.build((7, 7, 4))
        x = random.normal(size=(7, 7, 4)).astype("float32")
    expected = ops.convert_to_numpy(layer(x))
    (entry,) = registry.own_prunable_weights(layer)
    product = product_of(layer, entry)
    kernel = ops.convert_to_numpy(layer.kernel)
    matrices = product.matrices(kernel)
    np.testing.assert_array_equal(product.kernel(matrices), kernel)
    rows = ops.convert_to_numpy(product.rows(ops.convert_to_tensor(x)))
    found = np.broadcast_to(rows, (len(matrices), *rows.shape[1:])) @ matrices
    # The same numbers, whichever order groups and outputs have.
    np.testing.assert_allclose(
        np.sort(found, axis=None), np.sort(expected, axis=None), rtol=1e-4, atol=1e-5
    )
    if len(matrices) == 1:
        np.testing.assert_allclose(found.reshape(expected.shape), expected, rtol=1e-4, atol=1e-5)


def test_others_are_left_out():
    for layer, shape in (
        (layers.DepthwiseConv2D(3), (1, 8, 8, 2)),
        (layers.Embedding(4, 3), (1, 2)),
        (layers.Conv3D(2, 2), (1, 4, 4, 4, 2)),
    ):
        layer.build(shape)
        (entry,) = registry.own_prunable_weights(layer)
        assert product_of(layer, entry) is None


def test_it_needs_no_particular_data_format():
    if keras.backend.backend() == "tensorflow":
        pytest.skip("TensorFlow has no convolution of channels first on a CPU")
    layer = layers.Conv2D(6, 3, use_bias=False, data_format="channels_first")
    x = np.random.default_rng(0).normal(size=(2, 4, 7, 8)).astype("float32")
    expected = np.moveaxis(ops.convert_to_numpy(layer(x)), 1, -1)
    (entry,) = registry.own_prunable_weights(layer)
    product = product_of(layer, entry)
    found = ops.convert_to_numpy(product.rows(ops.convert_to_tensor(x))) @ product.matrices(
        ops.convert_to_numpy(layer.kernel)
    )
    np.testing.assert_allclose(found.reshape(expected.shape), expected, rtol=1e-4, atol=1e-5)


def test_a_bank_of_experts_counts_the_tokens_that_were_sent_to_each():
    """Against a loop over experts; the last one gets no token."""
    experts, inputs, outputs = 3, 4, 5
    random = np.random.default_rng(0)
    x = random.normal(size=(8, inputs)).astype("float32")
    scores = random.normal(size=(8, experts)).astype("float32")
    scores[:, 2] = -9
    keep = np.arange(8) < 6
    weight = keras.Variable(random.normal(size=(experts, inputs, outputs)), dtype="float32")

    class Bank:
        variable = weight
        shape = tuple(weight.shape)

    for hessian in (False, True):
        statistics = InputStatistics(Bank(), hessian)
        with watched_experts({id(weight): statistics}, keep.reshape(2, 4)):
            ops.top_k(ops.convert_to_tensor(scores), k=1)
            ops.einsum("th,ehm->etm", ops.convert_to_tensor(x), weight)
        assert statistics.unseen == [2]
        for expert in range(experts):
            rows = x[keep & (scores.argmax(1) == expert)]
            np.testing.assert_allclose(
                statistics.norms()[expert], np.linalg.norm(rows, axis=0), rtol=1e-5, atol=1e-6
            )
            if hessian:
                np.testing.assert_allclose(
                    statistics.hessian()[expert], rows.T @ rows, rtol=1e-4, atol=1e-5
                )
    hidden = random.normal(size=(experts, 8, inputs)).astype("float32")
    statistics = InputStatistics(Bank(), True)
    with watched_experts({id(weight): statistics}, None):
        ops.einsum("eti,eih->eth", ops.convert_to_tensor(hidden), weight)
    np.testing.assert_allclose(
        statistics.hessian(), hidden.transpose(0, 2, 1) @ hidden, rtol=1e-4, atol=1e-5
    )
