"""Errors of LiteRT name the Keras layer at fault."""

import re

import keras
import numpy as np
import pytest
from keras import layers

import tfprune
from tfprune._deployment.layers_of_nodes import layer_of
from tfprune._formats.litert_nodes import Node

X = np.random.default_rng(0).normal(size=(40, 64)).astype("float32")

LAYERS = ["wide", "inner/deep", "head"]


def nested():
    keras.utils.set_random_seed(0)
    inner = [keras.Input((64,)), layers.Dense(64, "relu", name="deep")]
    inputs = keras.Input((64,))
    x = layers.Dense(64, "relu", name="wide")(inputs)
    x = keras.Sequential(inner, name="inner")(x)
    return keras.Model(inputs, layers.Dense(16, name="head")(x))


def test_the_layer_is_named_and_leaving_it_dense_helps(tmp_path):
    given = {"quantize": "int8", "sparse": True, "data": X, "tolerance": 0.5}
    for number, path in enumerate(LAYERS):
        rules = [tfprune.Rule(name, prune=False) for name in LAYERS[:number]]
        pruned = tfprune.pruners.one_shot(nested(), 0.8, rules=rules)
        with pytest.raises(ValueError, match="Expected a file that LiteRT can run") as caught:
            tfprune.export(pruned, tmp_path / "small.tflite", **given)
        text = str(caught.value)
        assert re.search(r"failed to delegate FULLY_CONNECTED node #\d+, Node number \d+", text)
        assert f"in layer '{path}'" in text and f"tfprune.Rule('{path}', prune=False)" in text
        assert not list(tmp_path.iterdir())
    assert tfprune.export(nested(), tmp_path / "small.tflite", **given).path.exists()


def test_layers_are_found_by_the_names_of_tensors():
    model = nested()
    for name, expected in [
        ("functional_1/wide_1/MatMul", "wide"),
        ("functional/wide/Relu", "wide"),
        ("functional_1/inner_1/deep_1/MatMul", "inner/deep"),
        ("functional_1/head_1/BiasAdd", "head"),
        ("functional_1/deep_1/BiasAdd", None),
        ("functional_1/wide/MatMul", None),
    ]:
        name = name.replace("functional", model.name)
        assert layer_of(Node("FULLY_CONNECTED", (name,), ((1, 64), (1, 1))), model) == expected


def test_the_output_layer_is_found_by_its_size():
    output = ("StatefulPartitionedCall_1:0",)
    assert layer_of(Node("FULLY_CONNECTED", output, ((1, 64), (16, 64))), nested()) == "head"
    assert layer_of(Node("FULLY_CONNECTED", output, ((1, 64), (64, 64))), nested()) is None
