"""Layers and models with zeros, for the tests of sparse layers."""

import os
import subprocess
import sys

import keras
import numpy as np
from keras import layers
from structural_support import randomize

from tfprune import _keras


def with_zeros(layer, share=0.9, seed=0):
    """Sets a share of each kernel of a layer or model to zero; the other weights count."""
    randomize(layer)
    random = np.random.default_rng(seed)
    for part in _keras.flatten(layer):
        kernel = getattr(part, "kernel", None)
        if kernel is not None:
            value = keras.ops.convert_to_numpy(kernel)
            kernel.assign(np.where(random.random(value.shape) < share, 0, value))
    return layer


def attention_model(name=None):
    """A small model that has every kind of layer that can become sparse."""
    inputs = keras.Input((6, 6, 3))
    x = layers.Conv2D(8, 3, strides=2, padding="same", activation="relu", name="patches")(inputs)
    x = layers.Conv2D(8, 1, name="pointwise")(x)
    x = layers.DepthwiseConv2D(3, padding="same", name="depthwise")(x)
    x = layers.Reshape((9, 8))(x)
    x = layers.Add()([x, layers.MultiHeadAttention(2, 4, name="attention")(x, x)])
    x = layers.EinsumDense("...x,xy->...y", 12, bias_axes="y", name="einsum")(x)
    x = layers.LSTM(5, name="memory")(x)
    outputs = layers.Dense(3, activation="tanh", name="out")(x)
    return with_zeros(keras.Model(inputs, outputs, name=name), 0.8)


def inputs_of(batch, shape=(6, 6, 3)):
    return np.random.default_rng(batch).normal(size=(batch, *shape)).astype("float32")


_IN_A_NEW_PROCESS = """
import sys, importlib, keras, numpy as np, tfprune
for name in sys.argv[4:]:
    importlib.import_module(name)
model = keras.saving.load_model(sys.argv[1])
np.save(sys.argv[2], keras.ops.convert_to_numpy(model(np.load(sys.argv[3]), training=False)))
"""


def run_elsewhere(path, folder, x, backend, *modules):
    """What a file computes in a new process that imports modules, on any backend."""
    np.save(folder / "x.npy", x)
    words = [sys.executable, "-c", _IN_A_NEW_PROCESS, path, folder / "y.npy", folder / "x.npy"]
    words += modules
    paths = os.pathsep.join([os.path.dirname(__file__), *sys.path])
    environment = {**os.environ, "KERAS_BACKEND": backend, "PYTHONPATH": paths}
    subprocess.run(list(map(str, words)), check=True, capture_output=True, env=environment)
    return np.load(folder / "y.npy")
