"""Parameters, multiplications and bytes, against formulas and published numbers."""

import keras
import numpy as np
import pytest
from keras import layers

import tfprune


@pytest.mark.parametrize(
    ("shape", "layer", "macs"),
    [
        ((8, 8, 3), layers.Conv2D(4, 3), 6 * 6 * 3 * 3 * 3 * 4),
        ((8, 8, 3), layers.Conv2D(4, 3, strides=2, padding="same"), 4 * 4 * 3 * 3 * 3 * 4),
        ((8, 8, 4), layers.Conv2D(6, 3, groups=2), 6 * 6 * 3 * 3 * 2 * 6),
        ((8, 8, 4), layers.DepthwiseConv2D(3, depth_multiplier=2), 6 * 6 * 3 * 3 * 4 * 2),
        ((8, 8, 4), layers.SeparableConv2D(5, 3), 6 * 6 * (3 * 3 * 4 + 4 * 5)),
        ((4, 4, 2), layers.Conv2DTranspose(3, 2, strides=2), 4 * 4 * 2 * 2 * 2 * 3),
        ((9, 2), layers.Conv1D(3, 3), 7 * 3 * 2 * 3),
        ((5, 5, 5, 2), layers.Conv3D(3, 3), 27 * 27 * 2 * 3),
        ((7, 6), layers.Dense(5), 7 * 6 * 5),
        ((7, 6), layers.EinsumDense("abc,cd->abd", (None, 5)), 7 * 6 * 5),
        ((7, 6), layers.EinsumDense("...c,cd->...d", 5), 7 * 6 * 5),
        ((7, 6), layers.EinsumDense("abc,cde->abde", (7, 2, 5)), 7 * 6 * 2 * 5),
        ((7, 6), layers.EinsumDense("abc,bcd->abd", (7, 5)), 7 * 6 * 5),
        ((7, 6), layers.EinsumDense("ab...,bc->ac...", (5, 6)), 7 * 6 * 5),
        ((7, 6), layers.LSTM(5), 7 * 4 * (6 * 5 + 5 * 5)),
        ((7, 6), layers.GRU(5, return_sequences=True), 7 * 3 * (6 * 5 + 5 * 5)),
        ((7, 6), layers.SimpleRNN(5), 7 * (6 * 5 + 5 * 5)),
        ((7, 6), layers.Bidirectional(layers.LSTM(5)), 2 * 7 * 4 * (6 * 5 + 5 * 5)),
        ((7, 6), layers.TimeDistributed(layers.Dense(5)), 7 * 6 * 5),
        ((7, 8, 8, 3), layers.TimeDistributed(layers.Conv2D(4, 3)), 7 * 6 * 6 * 3 * 3 * 3 * 4),
        ((7, 5, 3), layers.TimeDistributed(layers.LSTM(2)), 7 * 5 * 4 * (3 * 2 + 2 * 2)),
        (
            (7, 6),
            layers.TimeDistributed(keras.Sequential([keras.Input((6,)), layers.Dense(5)])),
            7 * 6 * 5,
        ),
        ((7, 6), layers.BatchNormalization(), 0),
    ],
)
def test_multiplications_of_one_layer(shape, layer, macs):
    model = keras.Sequential([keras.Input(shape), layer])
    cost = tfprune.model_cost(model)
    assert (cost.macs, cost.uncounted) == (macs, ())
    assert cost.parameters == model.count_params()
    assert cost.bytes == 4 * cost.parameters


def test_published_numbers():
    """MobileNetV2 (Sandler et al. 2018): 300 million; VGG16 (Simonyan 2014): 15.5 billion."""
    mobile = tfprune.model_cost(keras.applications.MobileNetV2(weights=None))
    assert round(mobile.macs / 1e6) == 301 and mobile.parameters == 3_538_984


def test_shared_layers_multiply_at_each_call_and_models_inside_count():
    dense = layers.Dense(3)
    inner = keras.Sequential([keras.Input((3,)), dense, layers.Dense(2, name="two")])
    inputs = keras.Input((3,))
    cost = tfprune.model_cost(keras.Model(inputs, inner(dense(inputs))))
    assert (cost.macs, cost.parameters) == (9 + 9 + 6, 12 + 8)


def test_wrapped_models_multiply_as_the_plain_ones():
    inner = keras.Sequential([keras.Input((6, 6, 4)), layers.Conv2D(5, 3, name="conv")])
    inputs = keras.Input((8, 8, 3))
    x = inner(layers.Conv2D(4, 3, name="first")(inputs))
    model = keras.Model(inputs, layers.Dense(2, name="last")(layers.Flatten()(x)))
    wrapped = tfprune.prune_low_magnitude(model)
    plain, found = tfprune.layer_costs(model), tfprune.layer_costs(wrapped)
    assert found == plain
    assert [row.macs for row in found] == [36 * 27 * 4, 16 * 36 * 5, 80 * 2]
    assert tfprune.model_cost(wrapped).macs == tfprune.model_cost(model).macs
    assert tfprune.model_cost(wrapped).uncounted == ()


def test_what_is_not_counted_is_named():
    inputs = keras.Input((5, 6, 6, 2))
    x = layers.ConvLSTM2D(3, 3, name="recurrent")(inputs)
    own = keras.layers.RNN([layers.LSTMCell(2), layers.LSTMCell(3)], name="stack")
    y = layers.TimeDistributed(layers.Bidirectional(own, name="both"), name="steps")
    y = y(layers.Reshape((5, 6, 12))(inputs))
    y = layers.Dense(2)(layers.Flatten()(y))
    cost = tfprune.model_cost(keras.Model(inputs, [layers.Dense(2)(x), y]))
    assert cost.macs == 4 * 4 * 3 * 2 + 5 * 6 * 2
    inside = "steps/both/forward_stack", "steps/both/backward_stack"
    assert set(cost.uncounted) == {"recurrent", *inside}


def macs(inputs, outputs):
    cost = tfprune.model_cost(keras.Model(inputs, outputs))
    assert cost.uncounted == ()
    return cost.macs


def test_attention_multiplies_places_with_places():
    query, value = keras.Input((5, 4)), keras.Input((7, 6))
    x = layers.MultiHeadAttention(2, 3, value_dim=8, output_shape=9)(query, value)
    projections = 5 * 4 * 2 * 3 + 7 * 6 * 2 * 3 + 7 * 6 * 2 * 8 + 5 * 2 * 8 * 9
    assert macs([query, value], x) == projections + 2 * 5 * 7 * (3 + 8)
    x = layers.MultiHeadAttention(2, 3, use_gate=True)(query, value=value, key=value)
    projections = 2 * 5 * 4 * 2 * 3 + 2 * 7 * 6 * 2 * 3 + 5 * 2 * 3 * 4
    assert macs([query, value], x) == projections + 2 * 5 * 7 * (3 + 3)
    x = layers.GroupQueryAttention(3, 4, 2)(query, query)
    projections = 5 * 4 * 4 * 3 + 2 * 5 * 4 * 2 * 3 + 5 * 4 * 3 * 4
    assert macs(query, x) == projections + 4 * 5 * 5 * (3 + 3)
    rows = keras.Input((2, 5, 4))
    x = layers.MultiHeadAttention(2, 3, attention_axes=2)(rows, rows)
    assert macs(rows, x) == 2 * (4 * 5 * 4 * 2 * 3 + 2 * 5 * 5 * (3 + 3))
    long = keras.Input((None, 4))
    assert macs(long, layers.MultiHeadAttention(2, 3)(long, long)) is None


def test_unknown_lengths_leave_the_multiplications_open():
    model = keras.Sequential([keras.Input((None, None, 3)), layers.Conv2D(4, 3)])
    assert tfprune.model_cost(model).macs is None


def test_half_precision_takes_half_the_bytes():
    model = keras.Sequential([keras.Input((3,)), layers.Dense(4, dtype="float16")])
    assert tfprune.model_cost(model).bytes == 2 * 16


def test_models_that_cannot_be_counted_are_refused():
    class Own(keras.Model):
        def call(self, inputs):
            return inputs

    own = Own()
    own(np.zeros((1, 2)))
    with pytest.raises(ValueError, match="Own"):
        tfprune.model_cost(own)
    with pytest.raises(TypeError, match="Keras 3"):
        tfprune.model_cost(3)


class Attending(layers.Layer):
    """A layer with code: three products with weights, and two of tensors."""

    def build(self, shape):
        self.project = layers.Dense(4, name="project")
        self.project.build(shape)
        self.table = self.add_weight(shape=(4, 6), name="table")

    def call(self, x):
        y = self.project(x)
        weights = keras.ops.softmax(keras.ops.einsum("bqc,bkc->bqk", y, y))
        z = keras.ops.matmul(weights, y)
        return keras.ops.einsum("blc,cd->bld", z, self.table)


def test_products_in_code_are_counted():
    inputs = keras.Input((5, 3))
    cost = tfprune.model_cost(keras.Model(inputs, Attending(name="attending")(inputs)))
    # 5 places: 3 to 4 channels, scores of 5 by 5, sums of them, 4 to 6 channels.
    expected = 5 * 3 * 4 + 2 * 5 * 5 * 4 + 5 * 4 * 6
    assert (cost.macs, cost.uncounted) == (expected, ())
    unknown = keras.Input((None, 3))
    cost = tfprune.model_cost(keras.Model(unknown, Attending()(unknown)))
    assert (cost.macs, cost.uncounted) == (None, ())
