"""A tiny language model whose padding mask and embedding scale reach its blocks."""

import keras
import numpy as np
from keras import layers, ops

from tfprune import pruners

VOCABULARY, LENGTH, WIDTH = 29, 12, 16


@keras.saving.register_keras_serializable(package="post_training")
class Block(layers.Layer):
    """Attention and a feed-forward part, each with a residual."""

    def __init__(self, width=WIDTH, heads=2, **kwargs):
        super().__init__(**kwargs)
        self.width, self.heads = width, heads
        self.norm = layers.LayerNormalization()
        self.attention = layers.MultiHeadAttention(heads, width // heads)
        self.norm_2 = layers.LayerNormalization()
        self.up = layers.Dense(2 * width, activation="gelu")
        self.down = layers.Dense(width)

    def build(self, shape):
        self.norm.build(shape)
        self.attention.build(shape, shape)
        self.norm_2.build(shape)
        self.up.build(shape)
        self.down.build((*shape[:-1], 2 * self.width))

    def call(self, x, padding=None):
        normed = self.norm(x)
        mask = None if padding is None else ops.cast(padding, "bool")[:, None, :]
        x = x + self.attention(normed, normed, attention_mask=mask, use_causal_mask=True)
        return x + self.down(self.up(self.norm_2(x)))

    def get_config(self):
        return {**super().get_config(), "width": self.width, "heads": self.heads}


def language_model(blocks=3, seed=0):
    """Inputs, outputs and padding as in KerasHub's models."""
    keras.utils.set_random_seed(seed)
    tokens = keras.Input((LENGTH,), dtype="int32", name="token_ids")
    padding = keras.Input((LENGTH,), dtype="int32", name="padding_mask")
    x = layers.Embedding(VOCABULARY, WIDTH, name="embedding")(tokens)
    x = layers.Rescaling(WIDTH**0.5)(x)
    for number in range(blocks):
        x = Block(name=f"block_{number}")(x, padding=padding)
    x = layers.LayerNormalization(name="final")(x)
    outputs = layers.Dense(VOCABULARY, name="head")(x)
    return keras.Model({"token_ids": tokens, "padding_mask": padding}, outputs, name="lm")


def tokens(rows=8, seed=1):
    return np.random.default_rng(seed).integers(0, VOCABULARY, (rows, LENGTH)).astype("int32")


def calibration(rows=8, **kwargs):
    given = {"num_samples": rows, "sequence_length": LENGTH, "batch_size": 3, **kwargs}
    return pruners.Calibration(tokens(rows), **given)


def correlated(rows, inputs, seed=0):
    """Inputs of different scale that depend on each other."""
    random = np.random.default_rng(seed)
    mixing = random.normal(size=(inputs, inputs)) + 2 * np.diag(random.uniform(0, 2, inputs))
    return (random.normal(size=(rows, inputs)) @ mixing).astype("float32")


def values(model):
    return [ops.convert_to_numpy(weight) for weight in model.weights]
