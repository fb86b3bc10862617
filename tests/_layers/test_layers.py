"""Every weight layer of keras.layers goes through the wrapper unchanged and is pruned exactly."""

import keras
import numpy as np
import pytest
from keras import layers
from keras_support import outputs

import tfprune

pytestmark = pytest.mark.usefixtures("fresh")

# Classes of keras.layers that have no weight worth pruning, or none at all.
NOTHING = """
    Activation ActivityRegularization AdaptiveAveragePooling1D AdaptiveAveragePooling2D
    AdaptiveAveragePooling3D AdaptiveMaxPooling1D AdaptiveMaxPooling2D AdaptiveMaxPooling3D Add
    AdditiveAttention AlphaDropout Attention AugMix AutoContrast Average AveragePooling1D
    AveragePooling2D AveragePooling3D BatchNormalization CategoryEncoding CenterCrop Concatenate
    ContrastLimitedAdaptiveHistogramEqualization Cropping1D Cropping2D Cropping3D CutMix
    Discretization Dot Dropout ELU Equalization Flatten FlaxLayer GaussianDropout GaussianNoise
    GlobalAveragePooling1D GlobalAveragePooling2D GlobalAveragePooling3D GlobalMaxPooling1D
    GlobalMaxPooling2D GlobalMaxPooling3D GroupNormalization HashedCrossing Hashing Identity
    InputLayer IntegerLookup JaxLayer Lambda Layer LayerNormalization LeakyReLU Masking
    MaxNumBoundingBoxes MaxPooling1D MaxPooling2D MaxPooling3D Maximum MelSpectrogram Minimum MixUp
    Multiply Normalization PReLU Permute Pipeline RMSNormalization RandAugment RandomBrightness
    RandomColorDegeneration RandomColorJitter RandomContrast RandomCrop RandomElasticTransform
    RandomErasing RandomFlip RandomGaussianBlur RandomGrayscale RandomHue RandomInvert
    RandomPerspective RandomPosterization RandomRotation RandomSaturation RandomSharpness
    RandomShear RandomTranslation RandomZoom ReLU RepeatVector Rescaling Reshape Resizing
    STFTSpectrogram Softmax Solarization SpatialDropout1D SpatialDropout2D SpatialDropout3D
    StringLookup Subtract TFSMLayer TextVectorization TorchModuleWrapper UnitNormalization
    UpSampling1D UpSampling2D UpSampling3D Wrapper ZeroPadding1D ZeroPadding2D ZeroPadding3D
"""


@keras.saving.register_keras_serializable(package="tests")
class MinimalCell(layers.Layer):
    """A recurrent cell that tfprune knows nothing of, with a layer that it does know inside."""

    def __init__(self, units, **kwargs):
        super().__init__(**kwargs)
        self.units = self.state_size = self.output_size = units
        self.dense = layers.Dense(units, name="dense")

    def build(self, input_shape):
        self.dense.build((None, input_shape[-1] + self.units))
        self.built = True

    def call(self, inputs, states, training=False):
        output = self.dense(keras.ops.concatenate([inputs, states[0]], axis=-1))
        return output, [output]

    def get_config(self):
        return {**super().get_config(), "units": self.units}


@keras.saving.register_keras_serializable(package="tests")
class Residual(layers.Layer):
    """Layers in attributes, in a list, and one level further down."""

    def __init__(self, units, **kwargs):
        super().__init__(**kwargs)
        self.units = units
        self.first = layers.Dense(units, activation="relu", name="first")
        self.more = [layers.Dense(units, name=f"more_{i}") for i in range(2)]
        self.inner = layers.TimeDistributed(layers.Dense(units, name="deep"), name="inner")

    def build(self, input_shape):
        for layer in (self.first, *self.more):
            layer.build((*input_shape[:-1], self.units))
        self.inner.build((*input_shape[:-1], self.units))
        self.built = True

    def call(self, inputs, training=False):
        x = self.first(inputs)
        for layer in self.more:
            x = x + layer(x)
        return inputs + self.inner(x)

    def get_config(self):
        return {**super().get_config(), "units": self.units}


@keras.saving.register_keras_serializable(package="tests")
class Scale(layers.Layer, tfprune.PrunableLayer):
    """Says itself that two of its three weights can be pruned."""

    def build(self, input_shape):
        width = input_shape[-1]
        self.scale = self.add_weight(shape=(width,), initializer="random_normal", name="scale")
        self.mix = self.add_weight(shape=(width, 5), initializer="random_normal", name="mix")
        self.shift = self.add_weight(shape=(5,), initializer="random_normal", name="shift")

    def call(self, inputs):
        return keras.ops.matmul(inputs * self.scale, self.mix) + self.shift

    def get_prunable_weights(self):
        return [self.scale, self.mix]


@keras.saving.register_keras_serializable(package="tests")
class Gate(layers.Layer):
    """Made prunable from outside, with `register_prunable`."""

    def build(self, input_shape):
        self.gate = self.add_weight(shape=(input_shape[-1], 4), initializer="random_normal")

    def call(self, inputs):
        return keras.ops.sigmoid(keras.ops.matmul(inputs, self.gate))


tfprune.register_prunable(Gate, ["gate"])


@keras.saving.register_keras_serializable(package="tests")
class LoudDense(layers.Dense):
    """A subclass of a known layer is known."""

    def call(self, inputs, training=None):
        return 2 * super().call(inputs)


def cell_layers():
    return [layers.LSTMCell(4), layers.GRUCell(3)]


K, KR = "kernel", "kernel recurrent_kernel"
SEPARABLE = "depthwise_kernel pointwise_kernel"
# name: (class tested, factory, input shapes without the batch, names of the pruned weights).
# A shape that ends in "int" takes whole numbers from 0 to 6.
CASES = {
    "dense": (layers.Dense, lambda: layers.Dense(5), [(6,)], K),
    "dense no bias": (layers.Dense, lambda: layers.Dense(5, use_bias=False), [(3, 6)], K),
    "einsum ab,bc": (
        layers.EinsumDense,
        lambda: layers.EinsumDense("ab,bc->ac", output_shape=5, bias_axes="c"),
        [(6,)],
        K,
    ),
    "einsum heads": (
        layers.EinsumDense,
        lambda: layers.EinsumDense("abc,cde->abde", output_shape=(None, 2, 3)),
        [(4, 6)],
        K,
    ),
    "einsum join": (
        layers.EinsumDense,
        lambda: layers.EinsumDense("abcd,cde->abe", output_shape=(None, 5)),
        [(4, 2, 3)],
        K,
    ),
    "einsum dots": (
        layers.EinsumDense,
        lambda: layers.EinsumDense("...x,xy->...y", output_shape=5),
        [(4, 6)],
        K,
    ),
    "conv1d": (layers.Conv1D, lambda: layers.Conv1D(5, 3), [(8, 3)], K),
    "conv2d": (layers.Conv2D, lambda: layers.Conv2D(5, 3), [(8, 8, 3)], K),
    "conv2d groups": (layers.Conv2D, lambda: layers.Conv2D(4, 3, groups=2), [(8, 8, 4)], K),
    "conv3d": (layers.Conv3D, lambda: layers.Conv3D(5, 2), [(4, 4, 4, 3)], K),
    "conv1d transpose": (layers.Conv1DTranspose, lambda: layers.Conv1DTranspose(5, 3), [(6, 3)], K),
    "conv2d transpose": (
        layers.Conv2DTranspose,
        lambda: layers.Conv2DTranspose(5, 3, strides=2),
        [(5, 5, 3)],
        K,
    ),
    "conv3d transpose": (
        layers.Conv3DTranspose,
        lambda: layers.Conv3DTranspose(5, 2),
        [(3, 3, 3, 3)],
        K,
    ),
    "depthwise1d": (layers.DepthwiseConv1D, lambda: layers.DepthwiseConv1D(3), [(8, 4)], K),
    "depthwise2d": (
        layers.DepthwiseConv2D,
        lambda: layers.DepthwiseConv2D(3, depth_multiplier=2),
        [(8, 8, 4)],
        K,
    ),
    "separable1d": (
        layers.SeparableConv1D,
        lambda: layers.SeparableConv1D(5, 3),
        [(8, 4)],
        SEPARABLE,
    ),
    "separable2d": (
        layers.SeparableConv2D,
        lambda: layers.SeparableConv2D(5, 3),
        [(8, 8, 4)],
        SEPARABLE,
    ),
    "embedding": (layers.Embedding, lambda: layers.Embedding(7, 5), [(4, "int")], "embeddings"),
    "reversible tied": (
        layers.ReversibleEmbedding,
        lambda: layers.ReversibleEmbedding(7, 5),
        [(4, "int")],
        "embeddings",
    ),
    "reversible untied": (
        layers.ReversibleEmbedding,
        lambda: layers.ReversibleEmbedding(7, 5, tie_weights=False),
        [(4, "int")],
        "embeddings reverse_embeddings",
    ),
    "simple rnn": (layers.SimpleRNN, lambda: layers.SimpleRNN(4), [(5, 3)], KR),
    "lstm": (layers.LSTM, lambda: layers.LSTM(4, return_sequences=True), [(5, 3)], KR),
    "gru": (layers.GRU, lambda: layers.GRU(4), [(5, 3)], KR),
    "rnn simple cell": (
        layers.SimpleRNNCell,
        lambda: layers.RNN(layers.SimpleRNNCell(4)),
        [(5, 3)],
        KR,
    ),
    "rnn lstm cell": (layers.LSTMCell, lambda: layers.RNN(layers.LSTMCell(4)), [(5, 3)], KR),
    "rnn gru cell": (layers.GRUCell, lambda: layers.RNN(layers.GRUCell(4)), [(5, 3)], KR),
    "rnn list": (layers.RNN, lambda: layers.RNN(cell_layers()), [(5, 3)], f"{KR} {KR}"),
    "rnn stacked": (
        layers.StackedRNNCells,
        lambda: layers.RNN(layers.StackedRNNCells(cell_layers())),
        [(5, 3)],
        f"{KR} {KR}",
    ),
    "rnn custom cell": (layers.RNN, lambda: layers.RNN(MinimalCell(4)), [(5, 3)], K),
    "bidirectional": (
        layers.Bidirectional,
        lambda: layers.Bidirectional(layers.LSTM(4)),
        [(5, 3)],
        f"{KR} {KR}",
    ),
    "time distributed": (
        layers.TimeDistributed,
        lambda: layers.TimeDistributed(layers.Conv2D(3, 2)),
        [(3, 4, 4, 2)],
        K,
    ),
    "conv lstm 1d": (layers.ConvLSTM1D, lambda: layers.ConvLSTM1D(3, 2), [(3, 5, 2)], KR),
    "conv lstm 2d": (layers.ConvLSTM2D, lambda: layers.ConvLSTM2D(3, 2), [(3, 4, 4, 2)], KR),
    "conv lstm 3d": (layers.ConvLSTM3D, lambda: layers.ConvLSTM3D(2, 2), [(2, 3, 3, 3, 2)], KR),
    "attention": (
        layers.MultiHeadAttention,
        lambda: layers.MultiHeadAttention(2, 3),
        [(4, 6), (5, 6)],
        f"{K} {K} {K} {K}",
    ),
    "group query attention": (
        layers.GroupQueryAttention,
        lambda: layers.GroupQueryAttention(3, 4, 2),
        [(4, 6), (5, 6)],
        f"{K} {K} {K} {K}",
    ),
    "spectral": (
        layers.SpectralNormalization,
        lambda: layers.SpectralNormalization(layers.Dense(5)),
        [(6,)],
        K,
    ),
    "holds layers": (Residual, lambda: Residual(6), [(4, 6)], f"{K} {K} {K} {K}"),
    "says itself": (Scale, Scale, [(6,)], "scale mix"),
    "registered": (Gate, Gate, [(6,)], "gate"),
    "subclass": (LoudDense, lambda: LoudDense(5), [(6,)], K),
}


def classes_of_keras():
    found = [getattr(layers, name) for name in dir(layers)]
    return {c for c in found if isinstance(c, type) and issubclass(c, layers.Layer)}


def test_every_class_of_keras_layers_is_accounted_for():
    tested = {entry[0] for entry in CASES.values()}
    unknown = {c.__name__ for c in classes_of_keras() - tested} - set(NOTHING.split())
    assert not unknown, f"new in keras.layers: registry.py, CASES or NOTHING has to know {unknown}"
    assert not {c.__name__ for c in tested} & set(NOTHING.split())


def model_of(case, layer):
    inputs = [
        keras.Input(shape[:-1], dtype="int32") if shape[-1] == "int" else keras.Input(shape)
        for shape in case[2]
    ]
    # Between layers whose order in the model is not that of the calls.
    outputs = layers.Activation("linear")(layer(*inputs))
    return keras.Model(inputs, outputs)


def data_of(case, number=4):
    random = np.random.default_rng(0)
    return [
        random.integers(0, 7, (number, *shape[:-1])).astype("int32")
        if shape[-1] == "int"
        else random.normal(size=(number, *shape)).astype("float32")
        for shape in case[2]
    ]


def check_zeros(model, sparsity, names):
    """Counts, signs and names of what is pruned in the one wrapper of a model."""
    (owner,) = [x for x in model.layers if isinstance(x, tfprune.PruneLowMagnitude)]
    assert sorted(w.path.split("/")[-1] for w in owner.pruned_weights) == sorted(names.split())
    for weight in owner.pruned_weights:
        value, mask = weight.variable.numpy(), weight.mask.numpy()
        zeros = value.size - max(1, round(value.size * (1 - sparsity)))
        assert mask.dtype == bool
        assert np.count_nonzero(~mask) == zeros
        np.testing.assert_array_equal(value == 0, ~mask)
        assert not np.signbit(value[~mask]).any()


def masks_of(model):
    (owner,) = [x for x in model.layers if isinstance(x, tfprune.PruneLowMagnitude)]
    return [weight.mask.numpy() for weight in owner.pruned_weights]


def is_plain(model):
    constraints = {type(v.constraint).__module__ for v in model.variables}
    return "tfprune" not in model.to_json() and not any("tfprune" in m for m in constraints)


@pytest.mark.parametrize("name", CASES)
def test_built_layer(name, tmp_path):
    case = CASES[name]
    plain, x = model_of(case, case[1]()), data_of(case)
    schedule = tfprune.PolynomialDecay(0.0, 0.75, begin_step=0, end_step=2, frequency=1)
    # Depthwise kernels are exempt unless a rule names them.
    rules = [tfprune.Rule(case[0])] if name.startswith(("depthwise", "separable")) else None
    pruned = tfprune.prune_low_magnitude(plain, schedule, rules=rules)
    expected = outputs(plain, x)
    assert np.ptp(expected) > 0
    np.testing.assert_array_equal(outputs(pruned, x), expected)

    pruned.compile("adam", "mse")
    pruned.fit(x, np.ones_like(expected), 2, verbose=0, callbacks=[tfprune.UpdatePruningStep()])
    check_zeros(pruned, 0.75, case[3])
    trained = outputs(pruned, x)
    assert (trained != expected).any()

    stripped = tfprune.strip_pruning(pruned)
    assert is_plain(stripped) and not is_plain(pruned)
    assert [type(i) for i in stripped.layers] == [type(i) for i in plain.layers]
    np.testing.assert_array_equal(outputs(stripped, x), trained)

    pruned.save(tmp_path / "pruned.keras")
    loaded = keras.saving.load_model(tmp_path / "pruned.keras")
    np.testing.assert_array_equal(outputs(loaded, x), trained)
    check_zeros(loaded, 0.75, case[3])
    for mask, same in zip(masks_of(pruned), masks_of(loaded), strict=True):
        np.testing.assert_array_equal(mask, same)
    np.testing.assert_array_equal(outputs(plain, x), expected)


@pytest.mark.parametrize("name", CASES)
def test_unbuilt_layer(name):
    case = CASES[name]
    layer = case[1]()
    plain, x = model_of(case, layer), data_of(case)
    schedule = tfprune.ConstantSparsity(0.5, begin_step=0)
    pruned = model_of(case, tfprune.prune_low_magnitude(case[1](), schedule))
    tfprune.load_plain_weights(pruned, plain)
    np.testing.assert_array_equal(
        keras.ops.convert_to_numpy(pruned(x)), keras.ops.convert_to_numpy(plain(x))
    )
    tfprune.UpdatePruningStep(pruned)
    check_zeros(pruned, 0.5, case[3])
    stripped = tfprune.strip_pruning(pruned)
    assert is_plain(stripped)
    np.testing.assert_array_equal(
        keras.ops.convert_to_numpy(stripped(x)), keras.ops.convert_to_numpy(pruned(x))
    )


@pytest.mark.parametrize(
    ("layer", "shape", "parameters"),
    [
        (layers.BatchNormalization(), (6,), 24),
        (layers.LayerNormalization(), (6,), 12),
        (layers.GroupNormalization(2), (6,), 12),
        (layers.RMSNormalization(), (6,), 6),
        (layers.PReLU(), (6,), 6),
    ],
    ids=lambda value: type(value).__name__,
)
def test_weights_that_are_not_pruned(layer, shape, parameters):
    inputs = keras.Input(shape)
    model = keras.Model(inputs, layers.Dense(3)(layer(inputs)))
    pruned = tfprune.prune_low_magnitude(model)
    assert type(pruned.layers[1]) is type(layer)
    row = tfprune.sparsity_report(pruned).rows[0]
    assert (row.parameters, row.status) == (parameters, "nothing to prune")
    with pytest.raises(
        ValueError, match=f"Expected '{layer.name}'.*Received: a {type(layer).__name__}"
    ):
        tfprune.prune_low_magnitude(layer)


# -- Attributes and calls of wrappers --------------------------------------------------------------


def pair(layer, *symbolic, **kwargs):
    """The layer, called on symbolic inputs, and a wrapped copy with the same weights."""
    plain = layer(*symbolic, **kwargs)
    wrapper = tfprune.prune_low_magnitude(layer)
    return plain, wrapper(*symbolic, **kwargs), wrapper


def same(left, right):
    left, right = keras.tree.flatten(left), keras.tree.flatten(right)
    assert len(left) == len(right) > 0
    for one, other in zip(left, right, strict=True):
        one, other = map(keras.ops.convert_to_numpy, (one, other))
        assert one.dtype == other.dtype
        np.testing.assert_array_equal(one, other)


def test_padding_reaches_the_next_layer():
    tokens = keras.Input((5,), dtype="int32")
    embedding, lstm = layers.Embedding(7, 4, mask_zero=True), layers.LSTM(3)
    plain = keras.Model(tokens, lstm(embedding(tokens)))
    pruned = tfprune.prune_low_magnitude(plain)
    x = np.array([[3, 1, 2, 0, 0], [4, 5, 1, 2, 3]], "int32")
    same(pruned(x), plain(x))
    same(pruned.predict(x, verbose=0), plain.predict(x, verbose=0))
    # A padded sequence gives what the short one gives.
    short = np.array([[3, 1, 2]], "int32")
    wrapped_embedding, wrapped_lstm = pruned.layers[1:]
    np.testing.assert_allclose(
        wrapped_lstm(wrapped_embedding(x))[0], wrapped_lstm(wrapped_embedding(short))[0], atol=1e-6
    )
    np.testing.assert_array_equal(
        wrapped_embedding.compute_mask(x), [[1, 1, 1, 0, 0], [1, 1, 1, 1, 1]]
    )


def test_state_goes_in_and_comes_out():
    x, h, c = keras.Input((5, 3)), keras.Input((4,)), keras.Input((4,))
    layer = layers.LSTM(4, return_state=True, return_sequences=True)
    plain, pruned, wrapper = pair(layer, x, initial_state=[h, c])
    random = np.random.default_rng(0)
    data = [random.normal(size=(2, *i.shape[1:])).astype("float32") for i in (x, h, c)]
    same(keras.Model([x, h, c], pruned)(data), keras.Model([x, h, c], plain)(data))
    eager = wrapper(data[0], initial_state=data[1:])
    assert len(eager) == 3
    same(eager, layer(data[0], initial_state=data[1:]))
    # The state is used at all.
    assert (eager[0].numpy() != layer(data[0])[0].numpy()).any()


@keras.saving.register_keras_serializable(package="tests")
class Probe(layers.Dense):
    """Adds 1 in training, and takes more than one argument."""

    def call(self, inputs, other=None, *, factor=1.0, training=False):
        outputs = super().call(inputs) * factor
        if other is not None:
            outputs = outputs + other
        return outputs + 1.0 if training else outputs


@pytest.mark.parametrize("training", [False, True])
def test_training_argument(training):
    layer = Probe(2)
    inputs = keras.Input((3,))
    plain, pruned, wrapper = pair(layer, inputs, training=training)
    wrapper.attended = True
    x = np.ones((2, 3), "float32")
    same(keras.Model(inputs, pruned)(x), keras.Model(inputs, plain)(x))
    same(wrapper(x, training=training), layer(x, training=training))
    difference = wrapper(x, training=training) - wrapper(x, training=False)
    np.testing.assert_allclose(difference, float(training))


def test_several_arguments():
    layer = Probe(2)
    a, b = keras.Input((3,)), keras.Input((2,))
    plain, pruned, wrapper = pair(layer, a, b, factor=3.0)
    x, y = np.ones((2, 3), "float32"), np.full((2, 2), 5.0, "float32")
    same(keras.Model([a, b], pruned)([x, y]), keras.Model([a, b], plain)([x, y]))
    same(wrapper(x, other=y, factor=3.0), layer(x, y, factor=3.0))
    assert (wrapper(x, y, factor=3.0).numpy() != wrapper(x).numpy()).all()


@pytest.mark.parametrize(
    "layer",
    [lambda: layers.MultiHeadAttention(2, 3), lambda: layers.GroupQueryAttention(3, 4, 2)],
    ids=["multi head", "group query"],
)
def test_attention_arguments(layer):
    layer = layer()
    query, value = keras.Input((4, 6)), keras.Input((5, 6))
    allowed = keras.Input((4, 5), dtype="bool")
    kwargs = {"return_attention_scores": True}
    plain, pruned, wrapper = pair(layer, query, value, attention_mask=allowed, **kwargs)
    random = np.random.default_rng(0)
    q, v = (random.normal(size=(2, n, 6)).astype("float32") for n in (4, 5))
    mask = np.tile(np.tri(4, 5, dtype=bool), (2, 1, 1))
    inputs = [query, value, allowed]
    same(keras.Model(inputs, pruned)([q, v, mask]), keras.Model(inputs, plain)([q, v, mask]))
    output, scores = wrapper(q, v, attention_mask=mask, **kwargs)
    same((output, scores), layer(q, v, attention_mask=mask, **kwargs))
    assert np.array(scores)[0, :, ~mask[0]].max() < 1e-6


@keras.saving.register_keras_serializable(package="tests")
class Exact(layers.Dense):
    """Turns whole numbers into their last digit: a cast to floats on the way would show."""

    def call(self, inputs):
        digits = keras.ops.cast(keras.ops.mod(inputs, 10), self.compute_dtype)
        return super().call(digits)


@pytest.mark.parametrize("policy", ["float32", "mixed_float16", "bfloat16"])
def test_integers_stay_integers(policy):
    layer = Exact(2, dtype=policy)
    inputs = keras.Input((3,), dtype="int64")
    plain, pruned, wrapper = pair(layer, inputs)
    # 2**24 + 1 is the first whole number that float32 does not know.
    x = np.array([[2**24 + 1, 2**53 + 1, 7]], "int64")
    same(keras.Model(inputs, pruned)(x), keras.Model(inputs, plain)(x))
    same(wrapper(x), layer(x))
    same(wrapper(x), layer(x % 10))


@keras.saving.register_keras_serializable(package="tests")
class Joined(layers.Layer):
    """Takes its inputs as one dictionary."""

    def __init__(self, units, **kwargs):
        super().__init__(**kwargs)
        self.units = units
        self.dense = layers.Dense(units)

    def build(self, input_shape):
        self.dense.build((None, sum(shape[-1] for shape in input_shape.values())))

    def call(self, inputs):
        return self.dense(keras.ops.concatenate([inputs["a"], inputs["b"]], axis=-1))

    def get_config(self):
        return {**super().get_config(), "units": self.units}


def test_dictionary_of_inputs():
    layer = Joined(2)
    inputs = {"a": keras.Input((3,), name="a"), "b": keras.Input((2,), name="b")}
    plain, pruned, wrapper = pair(layer, inputs)
    x = {"a": np.ones((2, 3), "float32"), "b": np.full((2, 2), 2.0, "float32")}
    same(keras.Model(inputs, pruned)(x), keras.Model(inputs, plain)(x))
    same(wrapper(x), layer(x))


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16", "float64"])
def test_dtype_policy(policy):
    layer = layers.Dense(4, dtype=policy)
    inputs = keras.Input((3,))
    plain, pruned, wrapper = pair(layer, inputs)
    x = np.ones((2, 3), "float32")
    assert plain.dtype == pruned.dtype == layer.compute_dtype
    same(keras.Model(inputs, pruned)(x), keras.Model(inputs, plain)(x))
    assert wrapper.pruned_weights[0].variable.dtype == layer.variable_dtype


def test_output_shape_and_spec():
    layer = layers.LSTM(4, return_state=True)
    wrapper = tfprune.prune_low_magnitude(layer)
    assert wrapper.compute_output_shape((2, 5, 3)) == layer.compute_output_shape((2, 5, 3))
    assert [tuple(t.shape) for t in wrapper(keras.Input((5, 3), 2))] == [(2, 4)] * 3


@pytest.mark.parametrize("reset", ["reset_state", "reset_states"])
@pytest.mark.parametrize(
    "make",
    [
        lambda: layers.LSTM(2, stateful=True),
        lambda: layers.Bidirectional(layers.GRU(2, stateful=True)),
        lambda: layers.RNN(layers.SimpleRNNCell(2), stateful=True),
    ],
    ids=["lstm", "bidirectional", "cell"],
)
def test_states_of_recurrent_layers_are_reset(make, reset):
    x = np.ones((2, 3, 4), "float32")
    wrapper = tfprune.prune_low_magnitude(make(), tfprune.ConstantSparsity(0.5, 0))
    first, second = wrapper(x).numpy(), wrapper(x).numpy()
    assert (first != second).any()
    getattr(wrapper, reset)()
    np.testing.assert_array_equal(wrapper(x), first)
    # A layer without states has nothing to reset.
    getattr(tfprune.prune_low_magnitude(layers.Dense(2)), reset)()
