"""KerasHub: a third of the families through all checks, and what a pruned task still does."""

import importlib
import json
import os
import subprocess
import sys
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import pytest

import tfprune
from tfprune import Rule

keras_hub = pytest.importorskip("keras_hub")

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))
matrix = importlib.import_module("kerashub")
samples = importlib.import_module("kerashub_models")
shrinking = importlib.import_module("kerashub_shrink")

HALF = tfprune.ConstantSparsity(0.5, begin_step=0)
QUICK = matrix.chosen(quick=True)
BY_NAME = {sample.name: sample for sample in samples.SAMPLES}


def updated(model):
    tfprune.UpdatePruningStep(model)
    return model


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("saved")


def test_a_third_of_the_models_is_quick():
    assert len(QUICK) >= len(samples.SAMPLES) / 3
    assert len({sample.family for sample in samples.SAMPLES}) >= 36


@pytest.mark.parametrize("sample", QUICK, ids=lambda sample: sample.name)
def test_all_checks(sample, folder):
    row = matrix.measure(sample, folder)
    assert row["errors"] == {}
    assert [column for column, fine in row["found"].items() if fine is False] == []


def test_all_models_load_in_a_new_process(folder):
    # Written by the checks before this one.
    saved = {path.stem.replace("_", " ") for path in folder.glob("*.npz")}
    assert saved <= {sample.name for sample in QUICK}
    if not saved:
        pytest.skip("the checks that write the files did not run")
    for name, found in matrix.load_elsewhere(folder).items():
        assert found == {"load": True, "plain": True}, name


def gpt2(**arguments):
    tokenizer = keras_hub.models.GPT2Tokenizer(
        vocabulary={"<|endoftext|>": 0, "a": 1, "b": 2, "ab": 3, "Ġ": 4, "Ġa": 5},
        merges=["a b", "Ġ a"],
    )
    preprocessor = keras_hub.models.GPT2CausalLMPreprocessor(tokenizer, sequence_length=8)
    backbone = keras_hub.models.GPT2Backbone(
        vocabulary_size=6,
        num_layers=1,
        num_heads=2,
        hidden_dim=16,
        intermediate_dim=32,
        max_sequence_length=8,
    )
    return keras_hub.models.GPT2CausalLM(backbone, preprocessor, **arguments)


TEXTS = ["ab ab a", "a ab", "b a ab", "ab"]


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="text goes through tf.data")
def test_a_pruned_task_takes_strings(tmp_path):
    plain = gpt2()
    pruned = tfprune.prune_low_magnitude(plain, HALF)
    assert isinstance(pruned, keras_hub.models.GPT2CausalLM)
    assert isinstance(pruned.backbone, keras_hub.models.GPT2Backbone)
    pruned.compile(
        optimizer="adam",
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        sampler="greedy",
    )
    pruned.fit(TEXTS, batch_size=2, verbose=0, callbacks=[tfprune.UpdatePruningStep()])
    assert pruned.preprocessor.tokenizer("ab a") is not None
    expected = pruned.generate("ab", max_length=6)
    pruned.save(tmp_path / "task.keras")
    loaded = keras.saving.load_model(tmp_path / "task.keras")
    stripped = tfprune.strip_pruning(pruned)
    for model in (loaded, stripped):
        model.compile(sampler="greedy")
        assert model.generate("ab", max_length=6) == expected
    assert type(stripped) is keras_hub.models.GPT2CausalLM


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="text goes through tf.data")
def test_presets(tmp_path):
    pruned = updated(tfprune.prune_low_magnitude(gpt2(), HALF))
    pruned.save_to_preset(str(tmp_path / "preset"))
    assert isinstance(pruned.save_to_preset.__self__, keras_hub.models.GPT2CausalLM)
    inputs = samples.inputs_for(pruned)
    inputs["token_ids"] %= 6
    plain = keras_hub.models.CausalLM.from_preset(str(tmp_path / "preset"))
    assert type(plain) is keras_hub.models.GPT2CausalLM
    masked = tfprune.load_preset(keras_hub.models.CausalLM, tmp_path / "preset")
    assert [w.zeros for w in masked.pruned_weights] == [w.zeros for w in pruned.pruned_weights]
    expected = matrix.outputs(pruned, inputs)
    for model in (plain, masked):
        assert matrix.same(matrix.outputs(model, inputs), expected)
    backbone = updated(tfprune.prune_low_magnitude(gpt2().backbone, HALF))
    backbone.save_to_preset(str(tmp_path / "backbone"))
    loaded = tfprune.load_preset(keras_hub.models.Backbone, tmp_path / "backbone")
    assert len(loaded.pruned_weights) == len(backbone.pruned_weights)


def test_presets_that_cannot_be_loaded(tmp_path):
    with pytest.raises(ValueError, match=r"a folder without pruning\.json"):
        tfprune.load_preset(keras_hub.models.CausalLM, tmp_path)
    with pytest.raises(TypeError, match="Expected `preset` to be a folder"):
        tfprune.load_preset(keras_hub.models.CausalLM, 3)


def test_a_rule_for_a_class_of_kerashub_brings_embeddings_in():
    model = BY_NAME["GPT-2"].make()
    plain = tfprune.prune_low_magnitude(model, HALF)
    rules = [Rule(keras_hub.layers.ReversibleEmbedding)]
    more = tfprune.prune_low_magnitude(model, HALF, rules=rules)
    assert len(more.pruned_weights) == len(plain.pruned_weights) + 1
    statuses = {row.status for row in tfprune.sparsity_report(plain).rows}
    assert "token embedding: exempt by default" in statuses


def test_experts_are_known():
    for name in ("Mixtral", "GPT-OSS"):
        model = updated(tfprune.prune_low_magnitude(BY_NAME[name].make(), HALF))
        dense = [row for row in tfprune.sparsity_report(model).rows if row.status == "not wrapped"]
        assert dense == []
        experts = [weight for weight in model.pruned_weights if weight.axes.experts]
        assert len(experts) >= 2
        for weight in experts:
            masks = np.array(weight.mask)
            assert {int(mask.sum()) * 2 for mask in masks} == {masks[0].size}


def calibration(model):
    tokens = np.random.default_rng(0).integers(0, 6, (8, 8)).astype("int32")
    inputs = {name: tokens if "ids" in name else np.ones_like(tokens) for name in model.input}
    return tfprune.pruners.Calibration(inputs, num_samples=8)


@pytest.mark.parametrize(
    ("name", "method"),
    [
        *[("GPT-2", "sparse_gpt"), ("Gemma3", "wanda"), ("T5", "wanda")],
        *[("Mixtral", "wanda"), ("Mixtral", "sparse_gpt")],
    ],
)
def test_pruning_without_training(name, method):
    model = BY_NAME[name].make()
    data = calibration(model)
    result = getattr(tfprune.pruners, method)(model, 0.5, data, verbose=0)
    assert all("layer" in block.name or "block" in block.name for block in result.blocks)
    assert result.left_dense == {}
    assert result.sparsity == pytest.approx(0.5, abs=0.01)
    assert type(result.stripped()) is type(model)


def test_experts_that_no_token_reaches_are_listed():
    model = BY_NAME["Mixtral"].make()
    layers = [layer for layer in model._flatten_layers() if "gate_dense" in layer.name]
    routers = [layer for layer in layers if "feedforward" in layer.name]
    assert routers
    for router in routers:
        kernel = np.zeros(router.kernel.shape, "float32")
        router.kernel.assign(kernel)
    result = tfprune.pruners.sparse_gpt(model, 0.5, calibration(model), verbose=0)
    assert any("by magnitude: no sample reached" in text for text in result.notes.values())


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="takes a separate process")
def test_the_tutorial_on_language_models(tmp_path):
    support = importlib.import_module("tutorial_support")
    arguments = ["--steps", 2, "--lora-steps", 1, "--output", tmp_path]
    done = support.run_tutorial("pruning_a_language_model.py", *arguments)
    assert done.returncode == 0, done.stderr
    rows = json.loads((tmp_path / "results.json").read_text())
    zeros = [row["zeros"] for row in rows.values()]
    assert zeros[0] < 0.01
    # 8 bits may round small weights to zero; none comes back.
    assert zeros[1:4] == [0.5, 0.5, 0.5] and zeros[4] >= 0.5
    assert rows["in 8 bits"]["bytes"] < rows["2:4 by SparseGPT"]["bytes"] / 2
    assert "def __init__(self, " in done.stdout


def test_without_a_copy():
    model = BY_NAME["Gemma"].make()
    assert updated(tfprune.prune_low_magnitude(model, HALF, copy=False)) is model
    expected = samples.generated(model)
    assert tfprune.strip_pruning(model, copy=False) is model
    assert type(model) is keras_hub.models.GemmaCausalLM
    np.testing.assert_array_equal(samples.generated(model), expected)


@pytest.mark.parametrize("name", ["GPT-2", "Llama3"])
def test_a_task_with_sparse_layers_generates_the_same(name, tmp_path):
    pruned = tfprune.pruners.one_shot(BY_NAME[name].make(), 0.7)
    expected = samples.generated(pruned)
    plan = tfprune.plan_sparse(pruned, samples.inputs_for(pruned), prefer="size")
    kinds = {type(layer).__name__ for layer in plan.apply()._flatten_layers()}
    assert [row.kind for row in plan.rows if not row.sparse] == ["ReversibleEmbedding"]
    assert kinds >= {"SparseDense", "SparseEinsumDense"} and not kinds & {"Dense", "EinsumDense"}
    plan.apply().save(tmp_path / "task.keras")
    for model in (plan.apply(), keras.saving.load_model(tmp_path / "task.keras")):
        assert isinstance(model, type(tfprune.strip_pruning(pruned)))
        np.testing.assert_array_equal(samples.generated(model), expected)


def test_predict_step_of_a_task():
    model = BY_NAME["BERT classifier"].make()
    pruned = tfprune.prune_low_magnitude(model, HALF)
    inputs = samples.inputs_for(model)
    np.testing.assert_array_equal(
        pruned.predict(inputs, verbose=0), model.predict(inputs, verbose=0)
    )


def test_a_retrieval_model_of_keras_rs():
    keras_rs = pytest.importorskip("keras_rs")

    class Retrieval(keras.Model):
        """Two towers, and the best items for a user, as in the guides of keras_rs."""

        def __init__(self):
            super().__init__()
            self.user = keras.Sequential(
                [keras.layers.Embedding(12, 8), keras.layers.Dense(6, name="dense")]
            )
            self.item = keras.Sequential(
                [keras.layers.Embedding(12, 8), keras.layers.Dense(6, name="dense")]
            )
            self.best = keras_rs.layers.BruteForceRetrieval(k=3, return_scores=False)
            self.own_loss = keras.losses.CategoricalCrossentropy(from_logits=True)

        def call(self, inputs, training=False):
            users = self.user(inputs)
            if training:
                return {"users": users}
            self.best.update_candidates(self.item(np.arange(12)))
            return {"users": users, "best": self.best(users)}

        def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
            items = self.item(y)
            scores = keras.ops.matmul(y_pred["users"], keras.ops.transpose(items))
            return self.own_loss(keras.ops.eye(keras.ops.shape(scores)[0]), scores)

    users, items = np.arange(12), np.arange(12)[::-1].copy()
    model = Retrieval()
    model(users)
    tfprune.prune_low_magnitude(model, HALF, copy=False)
    model.compile(keras.optimizers.Adam(0.1))
    callback = tfprune.UpdatePruningStep()
    history = model.fit(users, items, 12, 20, verbose=0, callbacks=[callback]).history["loss"]
    assert history[-1] < history[0] and isinstance(model, Retrieval)
    assert matrix.exact(model) and len(model.pruned_weights) == 4
    best = keras.ops.convert_to_numpy(model(users)["best"])
    assert best.shape == (12, 3)
    tfprune.strip_pruning(model, copy=False)
    np.testing.assert_array_equal(keras.ops.convert_to_numpy(model(users)["best"]), best)


def test_the_guide_runs(tmp_path, monkeypatch):
    readme = importlib.import_module("test_readme")
    page = Path(__file__).parents[1] / "docs" / "guide" / "kerashub.md"
    monkeypatch.chdir(tmp_path)
    exec(compile(readme.program(page.read_text()), str(page), "exec"), {"__name__": "page"})


OTHERS = ("Gemma3", "Qwen3", "Mistral", "T5", "DINOv2")
SLOW = [pytest.param(name, marks=pytest.mark.slow) for name in OTHERS]


@pytest.mark.parametrize("name", ["BERT", "GPT-2", "Llama3", "Mixtral", "ViT", *SLOW])
def test_a_masked_and_a_shrunk_model_compute_the_same(name, tmp_path):
    row = shrinking.measure(name, tmp_path, generate=name == "T5")
    assert row["class"] and row["removable"] >= 0.5
    assert row["masked against shrunk"] <= 1e-5 and row["shrunk against loaded"] == 0
    assert row.get("same tokens") is not False
    # The outputs depend on the inputs, and on what the masks take away.
    assert min(row["other inputs"], row["dense against masked"]) > 1e-2


@pytest.mark.parametrize("name", shrinking.MIXTURES)
def test_removed_experts_are_those_that_get_no_token(name, tmp_path):
    row = shrinking.measure_experts(name, tmp_path)
    assert row["class"] and row["experts"] == [4, 2] and row["kept"] == [2, 2]
    assert row["masked against shrunk"] <= 1e-5 and row["shrunk against loaded"] == 0
    # Both what is removed and how it is masked make a difference.
    assert min(row["dense against masked"], row["router of zeros against shrunk"]) > 1e-3


UNIFORM = {
    "BERT classifier": {"intermediate_dim"},
    "Qwen3": {"intermediate_dim", "num_query_heads", "num_key_value_heads"},
    "T5": {"intermediate_dim", "num_heads", "key_value_dim"},
}


@pytest.mark.parametrize(
    "name", ["BERT classifier", "Qwen3", pytest.param("T5", marks=pytest.mark.slow)]
)
def test_uniform_widths_are_arguments_of_the_class(name, tmp_path):
    backbone = shrinking.jitter(BY_NAME[name].make().backbone)
    pruned = updated(tfprune.prune_low_magnitude(backbone, HALF, pattern="filter"))
    plan = tfprune.plan_shrink(pruned, uniform=True)
    small = plan.apply()
    assert type(small) is type(backbone)
    before, after = backbone.get_config(), small.get_config()
    assert {key for key in before if before[key] != after[key]} - {"name"} == UNIFORM[name]
    inputs = samples.inputs_for(backbone)
    masked = shrinking.outputs(tfprune.strip_pruning(pruned), inputs)
    assert shrinking.difference(masked, shrinking.outputs(small, inputs)) <= 1e-5
    heads = [group for group in plan.groups if group.layers[0].endswith(":heads")]
    if len(UNIFORM[name]) == 1:
        assert any("no argument of the class counts them" in group.why for group in heads)
    else:
        assert all(group.removed for group in heads)


@pytest.mark.slow
def test_a_uniform_model_needs_no_tfprune(tmp_path):
    backbone = gpt2().backbone
    small = tfprune.shrink(backbone, {"parameters": 0.8}, uniform=True, verbose=0)
    assert small.count_params() <= 0.8 * backbone.count_params()
    path = str(tmp_path / "small.keras")
    small.save(path)
    code = f"import sys, keras, keras_hub; keras.saving.load_model({path!r}); " + (
        "assert 'tfprune' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


def test_a_stack_with_fewer_blocks():
    backbone = shrinking.jitter(shrinking.FAMILIES["Llama3"]().backbone)
    inputs = samples.inputs_for(backbone)
    small = tfprune.structural.remove_blocks(backbone, 1, inputs)
    assert type(small) is type(backbone)
    assert (backbone.num_layers, small.num_layers) == (2, 1)
    left = small.transformer_layers[0].get_weights()
    assert any(
        all(
            np.array_equal(one, other) for one, other in zip(left, layer.get_weights(), strict=True)
        )
        for layer in backbone.transformer_layers
    )


def gemma3_of_six():
    """The sixth block attends to all tokens, the others to a window; the first does nothing."""
    sizes = {"hidden_dim": 16, "intermediate_dim": 16, "head_dim": 8, "image_size": 16}
    heads = {"num_query_heads": 2, "num_key_value_heads": 1, "use_sliding_window_attention": True}
    model = keras_hub.models.Gemma3Backbone(64, num_layers=6, **sizes, **heads)
    first = model.transformer_layers[0]
    first.set_weights([np.zeros_like(weight) for weight in first.get_weights()])
    return model


@pytest.mark.parametrize("make", [gemma3_of_six, BY_NAME["T5"].make], ids=["Gemma3", "T5"])
def test_stacks_that_no_number_describes_stay(make):
    # One number counts both stacks of T5.
    model = make()
    before = model.get_weights()
    with pytest.raises(ValueError, match="a model of which any block can be left out"):
        tfprune.structural.remove_blocks(model, 1, samples.inputs_for(model))
    for one, other in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


def test_macs_of_unknown_lengths_are_no_target():
    with pytest.raises(ValueError, match="inputs have unknown lengths"):
        tfprune.shrink(gpt2(), {"macs": 0.5})


SLOW_STREAMS = [pytest.param(name, marks=pytest.mark.slow) for name in shrinking.STREAMS[1:]]


@pytest.mark.parametrize("name", [shrinking.STREAMS[0], *SLOW_STREAMS])
def test_the_stream_gets_narrower_where_a_rule_brings_the_embedding_in(name, tmp_path):
    row = shrinking.measure_stream(name, tmp_path)
    assert row["widths"] == [64, 32] and row["same tokens"]
    assert row["masked against shrunk"] <= 1e-5 and row["shrunk against loaded"] == 0
    assert row["dense against masked"] > 1e-2


@pytest.mark.parametrize("name", ["Llama3", "Gemma3"])
def test_the_stream_stays_without_a_rule_and_where_code_counts_it(name, tmp_path):
    model = shrinking.FAMILIES[name]()
    rules = None if name == "Llama3" else [Rule(keras_hub.layers.ReversibleEmbedding)]
    _, small, _ = shrinking.masked_and_shrunk(model, tmp_path, rules)
    assert small.backbone.token_embedding.embeddings.shape[1] == 64
