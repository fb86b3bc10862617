"""What is masked by default, how configs say so, and weights that need knowing: ties, experts."""

import json

import keras
import numpy as np
import pytest
from keras import layers, ops

import tfprune
from tfprune import Rule
from tfprune._layers import registry
from tfprune._layers.exemptions import TOKEN_EMBEDDING
from tfprune._wrapping.wrapper import pruned_weights
from tfprune.patterns import KernelAxes

register = keras.saving.register_keras_serializable(package="defaults")
HALF = tfprune.ConstantSparsity(0.5, begin_step=0)
TOKENS = np.arange(12).reshape(3, 4) % 10


def updated(model):
    tfprune.UpdatePruningStep(model)
    return model


def output(layer, inputs):
    return ops.convert_to_numpy(layer(inputs))


# A class of KerasHub in all that tfprune looks at: its name and the package of its module.
Backbone = type("Backbone", (keras.Model,), {"__module__": "keras_hub.src.models.backbone"})


@register
class Language(Backbone):
    """A backbone with an embedding, and a head that is tied to it."""

    def __init__(self, **kwargs):
        tokens = keras.Input((None,), dtype="int32")
        embedding = layers.ReversibleEmbedding(10, 8, name="token_embedding")
        hidden = layers.Dense(8, name="dense")(embedding(tokens))
        super().__init__(tokens, embedding(hidden, reverse=True), **kwargs)

    def get_config(self):
        return {"name": self.name}


def around(model):
    tokens = keras.Input((None,), dtype="int32")
    return keras.Model(tokens, layers.Dense(2, name="head")(model(tokens)))


@pytest.mark.parametrize("make", [Language, lambda: around(Language(name="body"))])
def test_embeddings_of_a_backbone_are_exempt(make):
    pruned = updated(tfprune.prune_low_magnitude(make(), HALF))
    status = {row.layer.split("/")[-1]: row.status for row in tfprune.sparsity_report(pruned).rows}
    assert status["token_embedding"] == TOKEN_EMBEDDING
    assert status["dense"] == "pruned"


@pytest.mark.parametrize(
    "rule", [Rule("token_embedding"), Rule(layers.Embedding), Rule(layers.ReversibleEmbedding)]
)
def test_a_rule_brings_them_in(rule):
    pruned = updated(tfprune.prune_low_magnitude(Language(), HALF, rules=[rule]))
    assert {w.name for w in pruned.pruned_weights} == {"token_embedding/embeddings", "dense/kernel"}


def test_a_rule_for_all_layers_does_not():
    pruned = tfprune.prune_low_magnitude(Language(), HALF, rules=[Rule("*", scope="global")])
    assert [weight.name for weight in pruned.pruned_weights] == ["dense/kernel"]


def test_embeddings_elsewhere_are_pruned():
    embedding = layers.ReversibleEmbedding(10, 8)
    embedding(TOKENS)
    assert tfprune.prune_low_magnitude(embedding, HALF).pruned_weights[0].size == 80
    tokens = keras.Input((None,), dtype="int32")
    model = keras.Model(tokens, layers.Dense(2)(layers.Embedding(10, 8)(tokens)))
    pruned = tfprune.prune_low_magnitude(model, HALF)
    assert len(tfprune.sparsity_report(pruned).rows) == 2
    assert all(row.status == "pruned" for row in tfprune.sparsity_report(pruned).rows)


# -- Ties ------------------------------------------------------------------------------------------


def test_a_tied_weight_is_one(tmp_path):
    rules = [Rule("token_embedding")]
    pruned = updated(tfprune.prune_low_magnitude(Language(), HALF, rules=rules))
    assert len(pruned.weights) == len(Language().weights) + 2
    assert sum(row.parameters for row in tfprune.sparsity_report(pruned).rows) == 80 + 64
    stripped = tfprune.strip_pruning(pruned)
    assert len(stripped.weights) == len(Language().weights)
    np.testing.assert_array_equal(output(stripped, TOKENS), output(pruned, TOKENS))
    pruned.save(tmp_path / "tied.keras")
    loaded = keras.saving.load_model(tmp_path / "tied.keras")
    np.testing.assert_array_equal(output(loaded, TOKENS), output(pruned, TOKENS))


@register
class Tied(layers.Layer):
    """A head that is tied to an embedding, whose config holds another copy of it."""

    def __init__(self, embedding, **kwargs):
        super().__init__(**kwargs)
        self.embedding = embedding

    def call(self, inputs):
        return self.embedding(inputs, reverse=True)

    def get_config(self):
        config = {"embedding": keras.saving.serialize_keras_object(self.embedding)}
        return {**super().get_config(), **config}

    @classmethod
    def from_config(cls, config):
        config["embedding"] = keras.saving.deserialize_keras_object(config["embedding"])
        return cls(**config)


def tied():
    tokens = keras.Input((None,), dtype="int32")
    embedding = layers.ReversibleEmbedding(10, 8, name="embedding")
    return keras.Model(tokens, Tied(embedding)(layers.Dense(8)(embedding(tokens))))


def test_a_copy_never_breaks_a_tie_in_silence():
    model = tied()
    assert len(model.weights) == 3
    with pytest.raises(ValueError, match=r"weights that layers share.*copy=False"):
        tfprune.prune_low_magnitude(model, HALF)
    updated(tfprune.prune_low_magnitude(model, HALF, copy=False))
    assert [weight.zeros for weight in model.pruned_weights] == [40, 32]
    assert len(tfprune.strip_pruning(model, copy=False).weights) == 3


def test_n_of_m_in_a_tied_embedding_runs_along_the_hidden_axis():
    rules = [Rule("token_embedding")]
    pruned = tfprune.prune_low_magnitude(Language(), HALF, sparsity_m_by_n=(2, 4), rules=rules)
    updated(pruned)
    masks = {w.name: w.mask.numpy() for w in pruned.pruned_weights}
    rows = masks["token_embedding/embeddings"].reshape(10, 2, 4)
    np.testing.assert_array_equal(rows.sum(axis=2), 2)
    np.testing.assert_array_equal(masks["dense/kernel"].reshape(2, 4, 8).sum(axis=1), 2)


def test_an_untied_reverse_matrix_is_known():
    layer = layers.ReversibleEmbedding(12, 8, tie_weights=False)
    layer(TOKENS)
    wrapper = tfprune.prune_low_magnitude(layer, HALF, sparsity_m_by_n=(2, 4))
    updated(wrapper)
    masks = {weight.path: weight.mask.numpy() for weight in wrapper.pruned_weights}
    np.testing.assert_array_equal(masks["embeddings"].reshape(3, 4, 8).sum(axis=1), 2)
    np.testing.assert_array_equal(masks["reverse_embeddings"].reshape(2, 4, 12).sum(axis=1), 2)


# -- Experts ---------------------------------------------------------------------------------------


class GptOssExperts(layers.Layer):
    """Experts as KerasHub stores them."""

    __module__ = "keras_hub.src.models.gpt_oss.gpt_oss_decoder"

    def build(self, shape):
        self.gate_up_proj = self.add_weight(shape=(3, 8, 4), name="gate_up_proj")
        self.down_proj = self.add_weight(shape=(3, 4, 8), name="down_proj")

    def call(self, inputs):
        up = ops.einsum("th,ehm->etm", inputs, self.gate_up_proj)
        return ops.mean(ops.einsum("etm,emh->eth", up, self.down_proj), axis=0)


def experts(**arguments):
    layer = GptOssExperts()
    layer(np.ones((2, 8), "float32"))
    # One expert has small weights: under one threshold for all it would lose most.
    scale = np.array([0.01, 1, 2], "float32")[:, None, None]
    random = np.random.default_rng(0)
    for variable in layer.weights:
        variable.assign(random.normal(size=variable.shape) * scale)
    return updated(tfprune.prune_low_magnitude(layer, copy=False, **arguments))


def per_expert(wrapper):
    return [(~w.mask.numpy()).sum(axis=(1, 2)).tolist() for w in wrapper.pruned_weights]


def test_each_expert_is_its_own_unit():
    wrapper = experts(pruning_schedule=HALF)
    assert per_expert(wrapper) == [[16, 16, 16], [16, 16, 16]]
    for weight in wrapper.pruned_weights:
        for kernel, mask in zip(weight.variable.numpy(), weight.mask.numpy(), strict=True):
            np.testing.assert_array_equal(
                mask.ravel(), tfprune.compute_mask(kernel.ravel(), 0.5) | (kernel.ravel() != 0)
            )
    assert per_expert(experts(pruning_schedule=HALF, scope="global"))[0][0] == 32
    rows = tfprune.sparsity_report(wrapper).rows
    assert [row.status for row in rows] == ["pruned, experts"]


@pytest.mark.parametrize(
    "pattern", [tfprune.NOfM(2, 4), tfprune.Block((2, 2)), "filter", "channel"], ids=str
)
def test_patterns_stay_inside_an_expert(pattern):
    wrapper = experts(pruning_schedule=HALF, pattern=pattern)
    assert per_expert(wrapper) == [[16, 16, 16], [16, 16, 16]]
    for weight in wrapper.pruned_weights:
        first = weight.mask.numpy()[0]
        alone = tfprune.compute_mask(
            np.where(first, 1.0, 0.0), 0.5, pattern=pattern, axes=KernelAxes()
        )
        np.testing.assert_array_equal(first, alone)


def test_experts_were_not_known_before():
    layer = GptOssExperts()
    layer(np.ones((2, 8), "float32"))
    assert registry.own_prunable_weights(layer, before_lists=True) is None
    assert len(registry.own_prunable_weights(layer)) == 2


# -- Old and new configs ---------------------------------------------------------------------------


def test_the_masked_weights_are_in_the_config():
    layer = layers.SeparableConv2D(4, 3)
    layer(np.ones((1, 5, 5, 2), "float32"))
    wrapper = tfprune.prune_low_magnitude(layer, HALF)
    config = json.loads(json.dumps(wrapper.get_config()))
    assert config["weights"] == ["depthwise_kernel", "pointwise_kernel"]
    config["weights"] = ["pointwise_kernel"]
    again = tfprune.PruneLowMagnitude.from_config(config)
    again(np.ones((1, 5, 5, 2), "float32"))
    assert [weight.path for weight in again.pruned_weights] == ["pointwise_kernel"]
    config["weights"] = ["kernel"]
    with pytest.raises(ValueError, match="a layer without kernel"):
        tfprune.PruneLowMagnitude.from_config(config)


def test_a_config_without_the_list_stays_one():
    layer = layers.ReversibleEmbedding(12, 8)
    layer(TOKENS)
    wrapper = tfprune.prune_low_magnitude(layer, HALF, sparsity_m_by_n=(2, 4))
    config = wrapper.get_config()
    del config["weights"]
    old = tfprune.PruneLowMagnitude.from_config(config)
    old(TOKENS)
    updated(old)
    # As in version 0.1, groups run along the vocabulary.
    mask = old.pruned_weights[0].mask.numpy()
    np.testing.assert_array_equal(mask.reshape(3, 4, 8).sum(axis=1), 2)
    assert "weights" not in old.get_config()


# -- LoRA ------------------------------------------------------------------------------------------

X = np.random.default_rng(2).normal(size=(16, 8)).astype("float32")
Y = np.random.default_rng(3).normal(size=(16, 3)).astype("float32")


def sequential():
    return keras.Sequential(
        [keras.Input((8,)), layers.Dense(6, name="first"), layers.Dense(3, name="last")]
    )


def fit(model):
    model.compile(keras.optimizers.Adam(0.1), "mse")
    model.fit(X, Y, 4, verbose=0, callbacks=[tfprune.UpdatePruningStep()])
    return model


def inner(model, name):
    layer = model.get_layer(name)
    return getattr(layer, "layer", layer)


@pytest.mark.parametrize("copy", [True, False])
@pytest.mark.parametrize("first", [True, False], ids=["lora first", "lora later"])
def test_lora_trains_under_the_mask(copy, first, tmp_path):
    model = sequential()
    if first:
        model.get_layer("first").enable_lora(2)
    model = tfprune.prune_low_magnitude(model, HALF, copy=copy)
    if not first:
        updated(model)
        model.get_layer("first").enable_lora(2)
    layer = inner(model, "first")
    assert [v.name for v in layer.trainable_variables] == ["bias", "lora_kernel_a", "lora_kernel_b"]
    fit(model)
    weight = pruned_weights(model)[0]
    mask = weight.mask.numpy()
    a, b = layer.lora_kernel_a.numpy(), layer.lora_kernel_b.numpy()
    assert b.any() and np.count_nonzero(~mask) == 24
    expected = np.where(mask, layer._kernel.numpy() + a @ b, 0)
    np.testing.assert_allclose(ops.convert_to_numpy(layer.kernel), expected, atol=1e-6)
    bias = layer.bias.numpy()
    np.testing.assert_allclose(output(layer, X), X @ expected + bias, atol=1e-5)
    before = model.predict(X, verbose=0)
    model.save(tmp_path / "lora.keras")
    loaded = keras.saving.load_model(tmp_path / "lora.keras")
    # The file holds the masked sum.
    stored = inner(loaded, "first")._kernel.numpy()
    np.testing.assert_allclose(stored, expected, atol=1e-6)
    assert not stored[~mask].any()
    np.testing.assert_allclose(loaded.predict(X, verbose=0), before, atol=1e-5)
    stripped = tfprune.strip_pruning(model, copy=copy)
    np.testing.assert_allclose(stripped.predict(X, verbose=0), before, atol=1e-5)
    plain = stripped.get_layer("first")
    assert type(plain) is layers.Dense
    assert not ops.convert_to_numpy(plain.kernel)[~mask].any()


def test_reports_of_lora_and_quantized_models():
    model = sequential()
    model.get_layer("first").enable_lora(2)
    rows = {row.layer: row for row in tfprune.sparsity_report(model).rows}
    assert rows["first"].parameters == 48 and rows["first"].status == "not wrapped"
    for mode in ("int8", "int4", "float8"):
        model = sequential()
        model.quantize(mode)
        rows = tfprune.sparsity_report(model).rows
        assert [row.status for row in rows] == ["quantized", "quantized"]
        assert tfprune.sparsity_report(model).total.parameters > 0


def test_a_gptq_model_is_reported():
    layer = layers.Dense(4)
    layer.build((None, 8))
    config = keras.quantizers.GPTQConfig(dataset=None, tokenizer=None)
    layer.quantize("gptq", config=config)
    model = keras.Sequential([keras.Input((8,)), layer])
    assert [row.status for row in tfprune.sparsity_report(model).rows] == ["quantized"]
