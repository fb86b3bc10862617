"""Wanda, SparseGPT and magnitude on whole models."""

import inspect

import keras
import numpy as np
import pytest
from keras import layers, ops
from post_training_support import (
    LENGTH,
    VOCABULARY,
    calibration,
    correlated,
    language_model,
    tokens,
    values,
)

import tfprune
from tfprune import pruners
from tfprune._keras import HeldTensor, intercepted_calls
from tfprune._wrapping.wrapper import mask_owners
from tfprune.pruners.post_training import methods
from tfprune.pruners.post_training.block_calls import BlockCalls

METHODS = [pruners.magnitude, pruners.wanda, pruners.sparse_gpt]
each_method = pytest.mark.parametrize("method", METHODS, ids=lambda method: method.__name__)
of_samples = {"num_samples": 64, "batch_size": 32}


def dense_network():
    keras.utils.set_random_seed(0)
    return keras.Sequential(
        [
            keras.Input((8,)),
            layers.Dense(16, activation="relu", name="one"),
            layers.Dense(12, activation="relu", name="two"),
            layers.Dense(4, name="three"),
        ]
    )


def convolutional_network():
    keras.utils.set_random_seed(0)
    return keras.Sequential(
        [
            keras.Input((8, 8, 4)),
            layers.Conv2D(8, 3, padding="same", use_bias=False, name="one"),
            layers.BatchNormalization(),
            layers.ReLU(),
            layers.DepthwiseConv2D(3, name="depthwise"),
            layers.Conv2D(6, 3, strides=2, name="two"),
            layers.GlobalAveragePooling2D(),
            layers.Dense(4, name="three"),
        ]
    )


def error(model, other, x):
    expected = ops.convert_to_numpy(model(x))
    return np.linalg.norm(ops.convert_to_numpy(other(x)) - expected) / np.linalg.norm(expected)


# -- Truths ----------------------------------------------------------------------------------------


@each_method
def test_the_methods_share_their_arguments(method):
    own = {"data": None, "damping": None}
    shared, other = (
        {name: p for name, p in inspect.signature(f).parameters.items() if name not in own}
        for f in (pruners.wanda, method)
    )
    assert list(shared.items()) == list(other.items())


def test_wanda_is_the_formula_on_the_pruned_inputs():
    model, x = dense_network(), correlated(64, 8)
    stripped = pruners.wanda(model, 0.5, pruners.Calibration(x, **of_samples), verbose=0).stripped()
    for old, new in zip(model.layers, stripped.layers, strict=True):
        kernel = ops.convert_to_numpy(old.kernel)
        scores = np.abs(kernel) * np.linalg.norm(x, axis=0)[:, None]
        expected = kernel.copy()
        for column in range(kernel.shape[1]):
            gone = np.argsort(scores[:, column])[: len(kernel) // 2]
            expected[gone, column] = 0
        np.testing.assert_array_equal(ops.convert_to_numpy(new.kernel), expected)
        # What the next layer sees comes from the pruned one.
        x = ops.convert_to_numpy(new(x))


@each_method
@pytest.mark.parametrize("make", [dense_network, convolutional_network])
def test_networks_without_blocks(method, make):
    model = make()
    x = correlated(64, int(np.prod(model.input_shape[1:]))).reshape(64, *model.input_shape[1:])
    before = values(model)
    result = method(model, 0.5, pruners.Calibration(x, **of_samples), verbose=0)
    assert [block.sparsity for block in result.blocks] == [0.5, 0.5, 0.5]
    assert [block.name for block in result.blocks] == ["one", "two", "three"]
    for old, new in zip(before, values(model), strict=True):
        np.testing.assert_array_equal(old, new)


def test_sparse_gpt_errs_less_than_masks_alone():
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((32,)), layers.Dense(8)])
    x = correlated(512, 32) * np.linspace(0.1, 3, 32, dtype="float32")
    data = pruners.Calibration(x, num_samples=512, batch_size=256)
    errors = {}
    for method in METHODS:
        result = method(model, 0.5, data, verbose=0)
        (block,) = result.blocks
        errors[method.__name__] = error(model, result.stripped(), x)
        assert block.error == pytest.approx(errors[method.__name__], rel=1e-4)
    assert errors["sparse_gpt"] < 0.9 * errors["wanda"] < 0.9 * errors["magnitude"]


@each_method
def test_2_of_4_in_every_group(method):
    result = method(language_model(2), 0.5, calibration(), pattern=tfprune.NOfM(2, 4), verbose=0)
    assert all(2 * weight.zeros == weight.size for weight in masked(result.model))
    block = result.stripped().get_layer("block_1")
    kernel = ops.convert_to_numpy(block.up.kernel)
    assert ((kernel.reshape(-1, 4, kernel.shape[1]) == 0).sum(axis=1) == 2).all()
    # Three axes: the inputs are heads and their values.
    kernel = ops.convert_to_numpy(block.attention.output_dense.kernel)
    flat = kernel.reshape(-1, 4, kernel.shape[-1])
    assert ((flat == 0).sum(axis=1) == 2).all()


# -- Capture ---------------------------------------------------------------------------------------


def block_inputs(model, block, batches):
    found = []

    def handle(layer, call, args, kwargs):
        found.append((args, kwargs))
        return call(*args, **kwargs)

    with intercepted_calls([block], handle):
        for batch in batches:
            model({name: ops.convert_to_tensor(a) for name, a in batch.items()}, training=False)
    return found


def test_blocks_get_what_the_model_gives_them():
    """With its padding and its embedding scale, and after a change of the blocks before."""
    model = language_model(3)
    ids = tokens()
    mask = (np.arange(LENGTH) < np.arange(4, 12)[:, None]).astype("int32")
    data = pruners.Calibration(
        {"token_ids": ids, "padding_mask": mask}, num_samples=8, batch_size=3
    )
    batches = data.batches(model)
    assert [len(batch["token_ids"]) for batch in batches] == [3, 3, 2]
    blocks = [model.get_layer(f"block_{number}") for number in range(3)]
    flow = BlockCalls(model, blocks[::-1], batches)
    assert flow.blocks == blocks
    for number, block in enumerate(blocks):
        calls = flow.calls(number)
        expected = block_inputs(model, block, batches)
        for call, (args, kwargs) in zip(calls, expected, strict=True):
            (x,), named = call.structure
            np.testing.assert_array_equal(x.array, ops.convert_to_numpy(args[0]))
            np.testing.assert_array_equal(
                named["padding"].array, ops.convert_to_numpy(kwargs["padding"])
            )
        block.up.kernel.assign(block.up.kernel * 0.5)
        flow.passed([[HeldTensor(t) for t in call.run(block)] for call in calls])


def test_padded_positions_do_not_count():
    model = language_model(blocks=1)
    ids = tokens()
    mask = np.ones_like(ids)
    mask[:, 8:] = 0
    other = ids.copy()
    other[:, 8:] = 0
    found = [
        values(
            pruners.sparse_gpt(
                model,
                0.5,
                pruners.Calibration({"token_ids": i, "padding_mask": mask}, num_samples=8),
                blocks=["block_0"],
                verbose=0,
            ).stripped()
        )
        for i in (ids, other)
    ]
    for one, two in zip(*found, strict=True):
        np.testing.assert_allclose(one, two, rtol=1e-5, atol=1e-6)


class Experts(layers.Layer):
    """Sends all tokens to the first expert."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.first = layers.Dense(8, name="first")
        self.second = layers.Dense(8, name="second")

    def build(self, shape):
        self.first.build(shape)
        self.second.build(shape)

    def call(self, x):
        return self.first(x) + ops.sum(self.second(x[:0])) * 0

    def get_config(self):
        return super().get_config()


@pytest.mark.parametrize("method", [pruners.wanda, pruners.sparse_gpt])
def test_an_expert_without_tokens_is_pruned_by_magnitude_and_listed(method):
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((8,)), Experts(name="a"), Experts(name="b")])
    data = pruners.Calibration(correlated(64, 8), **of_samples)
    with keras.saving.custom_object_scope({"Experts": Experts}):
        result = method(model, 0.5, data, verbose=0)
        stripped = result.stripped()
    assert list(result.notes) == ["a/second", "b/second"]
    assert "no sample reached it" in str(result)
    kernel = ops.convert_to_numpy(model.get_layer("a").second.kernel)
    zeros = ops.convert_to_numpy(stripped.get_layer("a").second.kernel) == 0
    assert zeros.sum() == 32
    if method is pruners.sparse_gpt:
        assert np.abs(kernel[zeros]).max() <= np.abs(kernel[~zeros]).min()


# -- Afterwards ------------------------------------------------------------------------------------


@pytest.mark.parametrize("sparsity", [0.5, 0.6])
def test_masks_stay_in_training_without_a_warning(sparsity, recwarn):
    """At 0.6 each output is rounded on its own, so the counts are not the usual ones."""
    model = dense_network()
    result = pruners.wanda(model, sparsity, dense_data(), verbose=0)
    model = result.model
    masks = [ops.convert_to_numpy(w.mask) for w in masked(model)]
    model.compile("adam", "mse")
    x = correlated(64, 8)
    model.fit(x, x[:, :4], verbose=0, callbacks=[tfprune.UpdatePruningStep()])
    for weight, mask in zip(masked(model), masks, strict=True):
        np.testing.assert_array_equal(ops.convert_to_numpy(weight.mask), mask)
        assert not ops.convert_to_numpy(weight.variable)[~mask].any()
    assert [w for w in recwarn if "sparsity" in str(w.message)] == []


def masked(model):
    return [weight for owner in mask_owners(model) for weight in owner.pruned_weights]


@pytest.mark.parametrize("mode", ["int8", "int4"])
def test_zeros_survive_keras_quantization(mode):
    stripped = pruners.sparse_gpt(dense_network(), 0.5, dense_data(), verbose=0).stripped()
    zeros = ops.convert_to_numpy(stripped.get_layer("one").kernel) == 0
    assert zeros.mean() == 0.5
    stripped.quantize(mode)
    layer = stripped.get_layer("one")
    inputs = np.eye(8, dtype="float32")
    # The weights multiplied with one input at a time, for any form of the kernel.
    found = ops.convert_to_numpy(layer(inputs) - layer(0 * inputs))
    bias = ops.convert_to_numpy(layer.bias)
    assert not bias.any()
    assert not found[zeros].any()
    assert found[~zeros].any()


def dense_data(**kwargs):
    return pruners.Calibration(correlated(64, 8), **{**of_samples, **kwargs})


def test_a_list_gives_each_block_its_sparsity():
    result = pruners.wanda(dense_network(), [0.25, 0.5, 0.75], dense_data(), verbose=0)
    assert [block.sparsity for block in result.blocks] == [0.25, 0.5, 0.75]


def test_outliers_decide_the_sparsity_of_blocks():
    """Owl: each block's density follows from its share of scores above five times their mean."""
    model = language_model(3)
    for number, scale in ((0, 1), (1, 30), (2, 8)):
        up = model.get_layer(f"block_{number}").up
        kernel = ops.convert_to_numpy(up.kernel).copy()
        kernel[:2] *= scale
        up.kernel.assign(kernel)
    owl = pruners.Owl(outlier=3.0, spread=0.1)
    result = pruners.wanda(model, 0.6, calibration(), distribution=owl, verbose=0)
    batches = calibration().batches(model)
    ratios = []
    for number in range(3):
        block = model.get_layer(f"block_{number}")
        attention = block.attention
        scores = []
        for layer in (
            attention.query_dense, attention.key_dense, attention.value_dense,
            attention.output_dense, block.up, block.down,
        ):  # fmt: skip
            x = np.concatenate(
                [ops.convert_to_numpy(a[0]) for a, _ in block_inputs(model, layer, batches)]
            )
            kernel = ops.convert_to_numpy(layer.kernel)
            inputs = (
                kernel.shape[0]
                if layer is not attention.output_dense
                else np.prod(kernel.shape[:2])
            )
            norms = np.linalg.norm(x.reshape(-1, inputs).astype("float64"), axis=0)
            scores.append((np.abs(kernel.reshape(inputs, -1)) * norms[:, None]).ravel())
        scores = np.concatenate(scores)
        ratios.append((scores > 3 * scores.mean()).mean())
    ratios = np.array(ratios)
    assert len(set(ratios)) == 3
    raised = (ratios - ratios.min()) / (ratios.max() - ratios.min()) * 0.2
    expected = 1 - (raised - raised.mean() + 0.4)
    # Each output is rounded on its own: to a sixteenth.
    np.testing.assert_allclose([b.sparsity for b in result.blocks], expected, atol=1 / 32)


# -- Going on --------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", METHODS[1:], ids=lambda method: method.__name__)
def test_a_run_goes_on_where_it_was_killed(method, tmp_path, monkeypatch):
    whole = method(language_model(2), 0.5, calibration(), verbose=0)
    original = methods.ByMagnitude.prune, methods.ByWanda.prune, methods.BySparseGPT.prune
    done = []

    def killed(prune):
        def wrapper(self, product, kernel, *rest):
            done.append(rest[-1])
            if len(done) > 8:
                raise KeyboardInterrupt
            return prune(self, product, kernel, *rest)

        return wrapper

    kinds = (methods.ByMagnitude, methods.ByWanda, methods.BySparseGPT)
    for kind, prune in zip(kinds, original, strict=True):
        monkeypatch.setattr(kind, "prune", killed(prune))
    with pytest.raises(KeyboardInterrupt):
        method(language_model(2), 0.5, calibration(), path=tmp_path / "run", verbose=0)
    for kind, prune in zip(kinds, original, strict=True):
        monkeypatch.setattr(kind, "prune", prune)
    assert [p.name for p in (tmp_path / "run").glob("*.npz")] == ["block_0000.npz"]
    again = method(language_model(2), 0.5, calibration(), path=tmp_path / "run", verbose=0)
    for one, two in zip(values(whole.model), values(again.model), strict=True):
        np.testing.assert_array_equal(one, two)
    assert [b.error for b in again.blocks] == [b.error for b in whole.blocks]
    with pytest.raises(ValueError, match="of this configuration"):
        method(language_model(2), 0.25, calibration(), path=tmp_path / "run", verbose=0)


def test_a_folder_of_other_layers_is_refused(tmp_path):
    model = keras.Sequential([keras.Input((8,)), layers.Dense(8), layers.Dense(8)])
    first, second = (layer.name for layer in model.layers)
    pruners.magnitude(model, 0.5, layers=[first], path=tmp_path / "run", verbose=0)
    with pytest.raises(ValueError, match="of this configuration, blocks="):
        pruners.magnitude(model, 0.5, layers=[second], path=tmp_path / "run", verbose=0)


# -- Data ------------------------------------------------------------------------------------------


def test_texts_tokens_and_data_sets_are_the_same():
    model = language_model(2)
    text = "".join(chr(97 + n % 26) for n in range(40))

    def tokenize(one):
        return [ord(letter) - 97 for letter in one]

    of_texts = pruners.Calibration([text, text], tokenize, 6, LENGTH).batches(model)
    of_tokens = pruners.Calibration(np.array([tokenize(text)] * 2), None, 6, LENGTH).batches(model)
    of_rows = pruners.Calibration([tokenize(text)] * 2, None, 6, LENGTH).batches(model)
    made = (pruners.Calibration((t for t in [text, text]), tokenize, 6, LENGTH)).batches(model)
    for other in (of_tokens, of_rows, made):
        np.testing.assert_array_equal(of_texts[0]["token_ids"], other[0]["token_ids"])
    assert of_texts[0]["padding_mask"].all()
    again = pruners.Calibration(of_texts[0], num_samples=6).batches(model)
    np.testing.assert_array_equal(of_texts[0]["token_ids"], again[0]["token_ids"])
    # Windows lie at equal distances, from the first token to the last.
    stream = np.array(tokenize(text + text))
    np.testing.assert_array_equal(of_texts[0]["token_ids"][0], stream[:LENGTH])
    np.testing.assert_array_equal(of_texts[0]["token_ids"][-1], stream[-LENGTH:])


class Refusing(keras.layers.Layer):
    def call(self, x):
        return x * float("nan")


def nan_network():
    return keras.Sequential([keras.Input((8,)), Refusing(), layers.Dense(4), layers.Dense(2)])


BAD = {
    "too few tokens": (
        lambda: pruners.wanda(language_model(2), 0.5, calibration(4, num_samples=5)),
        "num_samples=5 samples. Received: 48 tokens, which are 4 sequences",
    ),
    "too few samples": (
        lambda: pruners.wanda(dense_network(), 0.5, dense_data(num_samples=65)),
        "num_samples=65 samples. Received: 64 samples",
    ),
    "token outside": (
        lambda: pruners.wanda(
            language_model(2),
            0.5,
            pruners.Calibration(tokens() + 5, num_samples=8, sequence_length=LENGTH),
        ),
        f"tokens from 0 to {VOCABULARY - 1}, the vocabulary of 'embedding'",
    ),
    "no tokenizer": (
        lambda: pruners.wanda(language_model(2), 0.5, ["some text"]),
        "a tokenizer for texts",
    ),
    "one text": (lambda: pruners.wanda(language_model(2), 0.5, "text"), "a list of texts"),
    "other inputs": (
        lambda: pruners.wanda(
            dense_network(), 0.5, pruners.Calibration(correlated(64, 9), **of_samples)
        ),
        "data that 'sequential",
    ),
    "no data": (
        lambda: pruners.wanda(dense_network(), 0.5, None),
        "calibration data",
    ),
    "no such block": (
        lambda: pruners.wanda(language_model(2), 0.5, calibration(), blocks=["tower_*"]),
        "the blocks to be layers of 'lm'",
    ),
    "an empty block": (
        lambda: pruners.wanda(language_model(2), 0.5, calibration(), blocks=["final"]),
        "blocks with weights that can be pruned",
    ),
    "nothing to prune": (
        lambda: pruners.wanda(
            keras.Sequential([keras.Input((4,), dtype="int32"), layers.Embedding(8, 4)]),
            0.5,
            np.zeros((4, 4), "int32"),
        ),
        "blocks with Dense, EinsumDense or convolution layers",
    ),
    "another pattern": (
        lambda: pruners.wanda(dense_network(), 0.5, dense_data(), pattern="filter"),
        "`pattern` to be Unstructured or NOfM",
    ),
    "another sparsity": (
        lambda: pruners.wanda(dense_network(), 0.6, dense_data(), pattern=tfprune.NOfM(2, 4)),
        "to end at 2/4",
    ),
    "a percentage": (lambda: pruners.wanda(dense_network(), 50, dense_data()), "did you mean 0.5"),
    "too few sparsities": (
        lambda: pruners.wanda(dense_network(), [0.5], dense_data()),
        "one sparsity for each of the 3 blocks",
    ),
    "a distribution by shape": (
        lambda: pruners.wanda(dense_network(), 0.5, dense_data(), distribution="erdos_renyi"),
        "`distribution` to be a tfprune.pruners.Owl",
    ),
    "not finite": (
        lambda: pruners.sparse_gpt(nan_network(), 0.5, dense_data()),
        "finite inputs of",
    ),
    "a damping": (
        lambda: pruners.sparse_gpt(dense_network(), 0.5, dense_data(), damping=-1),
        "`damping` to be a number from 0",
    ),
    "not built": (
        lambda: pruners.wanda(keras.Sequential([layers.Dense(4)]), 0.5, dense_data()),
        "a built model",
    ),
    "not a model": (lambda: pruners.wanda("model", 0.5, dense_data()), "a Keras 3 layer or model"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input(name):
    call, words = BAD[name]
    scope = keras.saving.custom_object_scope({"Refusing": Refusing})
    with scope, pytest.raises((ValueError, TypeError)) as raised:
        call()
    assert words in str(raised.value)
    assert "Expected" in str(raised.value)


def test_a_quantized_model_is_refused():
    model = dense_network()
    model.quantize("int8")
    with pytest.raises(ValueError, match="quantize"):
        pruners.wanda(model, 0.5, dense_data())


def test_owl_alone_says_where_it_belongs():
    with pytest.raises(ValueError, match="Use it as `distribution`"):
        model = tfprune.prune_low_magnitude(
            dense_network(), tfprune.ConstantSparsity(0.5, 0), scope=pruners.Owl()
        )
        tfprune.UpdatePruningStep(model)
    with pytest.raises(ValueError, match=r"`spread` from 0 to 0\.5"):
        pruners.Owl(spread=2)
