"""Measures how much `shrink` removes in each family of KerasHub, and whether outputs change."""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import tempfile
import warnings

import keras
import kerashub_models as samples
import numpy as np
from harness import show, write

import tfprune

HALF = tfprune.ConstantSparsity(0.5, begin_step=0)
_EMBEDDINGS = (
    "Embedding",
    "PositionEmbedding",
    "ReversibleEmbedding",
    "ViTPatchingAndEmbedding",
    "DINOV2Embedding",
)
_TEXT = {"vocabulary_size": 64, "num_layers": 2, "hidden_dim": 64, "intermediate_dim": 256}
_GROUPED = {"num_query_heads": 8, "num_key_value_heads": 4}
_BANK = {"num_experts": 4, "top_k": 2, **_GROUPED}
# The layers whose outputs are the logits of the experts.
_ROUTERS = ("sparse_feedforward_gate_dense", "router_dense")


def _backbone(name, **arguments):
    return lambda: getattr(samples.hub(), f"{name}Backbone")(**{**_TEXT, **arguments})


def _causal(name, **arguments):
    make = _backbone(name, **arguments)
    return lambda: getattr(samples.hub(), f"{name}CausalLM")(backbone=make(), preprocessor=None)


def _bert():
    backbone = _backbone("Bert", num_heads=8, max_sequence_length=16)()
    return samples.hub().BertTextClassifier(backbone, num_classes=3, preprocessor=None)


def _vit():
    backbone = samples.hub().ViTBackbone(
        image_shape=(32, 32, 3),
        patch_size=16,
        num_layers=2,
        num_heads=8,
        hidden_dim=64,
        mlp_dim=256,
    )
    return samples.hub().ViTImageClassifier(backbone, num_classes=3, preprocessor=None)


def _dinov2(**arguments):
    return lambda: samples.hub().DINOV2Backbone(
        patch_size=14,
        image_shape=(28, 28, 3),
        position_embedding_shape=(28, 28, 3),
        num_layers=2,
        num_heads=8,
        hidden_dim=64,
        intermediate_dim=256,
        num_register_tokens=2,
        **arguments,
    )


def _t5():
    backbone = _backbone("T5", num_heads=8, key_value_dim=8)()
    return samples.hub().T5Seq2SeqLM(backbone, preprocessor=None)


FAMILIES = {
    "BERT": _bert,
    "GPT-2": _causal("GPT2", num_heads=8, max_sequence_length=16),
    "Llama3": _causal("Llama3", **_GROUPED),
    "Mistral": _causal("Mistral", **_GROUPED),
    "Gemma3": _causal("Gemma3", image_size=16, head_dim=8, **_GROUPED),
    "Qwen": _causal("Qwen", **_GROUPED),
    "Qwen3": _causal("Qwen3", head_dim=8, **_GROUPED),
    "Phi3": _causal("Phi3", **_GROUPED),
    "Mixtral": _causal("Mixtral", **_BANK),
    "Qwen-MoE": _causal(
        "QwenMoe", moe_intermediate_dim=256, shared_expert_intermediate_dim=128, **_BANK
    ),
    "Qwen3-MoE": _causal("Qwen3Moe", moe_intermediate_dim=256, head_dim=8, **_BANK),
    "ViT": _vit,
    "DINOv2": _dinov2(),
    "DINOv2, gated": _dinov2(use_swiglu_ffn=True),
    "T5": _t5,
}
# The families whose normalizations let the stream between the blocks get narrower.
STREAMS = ("Llama3", "Mistral", "Qwen", "Qwen3", "Phi3", "T5")
MIXTURES = {
    **{name: FAMILIES[name] for name in ("Mixtral", "Qwen-MoE", "Qwen3-MoE")},
    "GPT-OSS": _causal("GptOss", head_dim=8, **_BANK),
}


def jitter(model, seed=0):
    """Moves the weights, so that no bias is zero and no scale one.

    The position embeddings of DINOv2 stay: what it computes from them is a weight too.
    """
    random = np.random.default_rng(seed)
    for weight in model.weights:
        if "float" in weight.dtype and "position_embeddings" not in weight.path:
            noise = random.normal(0, 0.1, weight.shape)
            weight.assign(keras.ops.convert_to_numpy(weight) + noise)
    return model


def outputs(model, inputs):
    found = keras.tree.flatten(model(inputs, training=False))
    return np.concatenate([keras.ops.convert_to_numpy(tensor).ravel() for tensor in found])


def difference(one, other):
    """The largest difference, by the largest number."""
    return float(np.abs(one - other).max() / np.abs(one).max())


def parameters_in(model, classes=None):
    """Parameters of the layers of some classes; of the whole model by default."""
    layers = [
        layer
        for layer in model._flatten_layers()
        if classes is None or type(layer).__name__ in classes
    ]
    weights = {id(weight): weight for layer in layers for weight in layer.weights}
    return sum(int(np.prod(w.shape)) for w in weights.values() if "seed" not in w.path)


def removable(model):
    """Counts the parameters removed if each group keeps its fixed channels, or one."""
    channels: dict = {}
    for group in tfprune.dependency_groups(model):
        # By default, token embeddings are exempt, and with them the stream between the blocks.
        if not group.removable or any("embedding" in path for path in group.layers):
            continue
        free = [unit for unit in range(group.size) if unit not in group.fixed]
        gone = free[: group.removable]
        for path, units in group.makers.items():
            channels[path] = np.flatnonzero(np.isin(units, gone))
    small = tfprune.structural.remove_channels(model, channels)
    return parameters_in(model) - parameters_in(small)


def masked_and_shrunk(model, folder, rules=None):
    """Prunes half of all filters, shrinks, saves and loads.

    Returns:
        The models: masked, shrunk, and loaded from its file.
    """
    pruned = tfprune.prune_low_magnitude(model, HALF, pattern="filter", rules=rules)
    tfprune.UpdatePruningStep(pruned)
    small = tfprune.shrink(pruned)
    path = os.path.join(folder, "small.keras")
    small.save(path)
    return tfprune.strip_pruning(pruned), small, keras.saving.load_model(path)


def barriers(model):
    """`{class name: share of the model's parameters}` of the layers without a rule."""
    found: dict = {}
    paths = tfprune.plan_shrink(model).barriers
    names = {path.rsplit("/", 1)[-1]: kind for path, kind in paths.items()}
    for layer in model._flatten_layers():
        kind = names.get(layer.name)
        if kind == type(layer).__name__ and layer.weights:
            found[kind] = found.get(kind, 0) + layer.count_params()
    return {kind: number / parameters_in(model) for kind, number in found.items()}


def measure(name, folder, generate=True):
    """The row of one family; `generate` compares what language models write, too."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = jitter(FAMILIES[name]())
        inputs, others = samples.inputs_for(model), samples.inputs_for(model, seed=1)
        masked, small, loaded = masked_and_shrunk(model, folder)
        outside = parameters_in(model) - parameters_in(model, _EMBEDDINGS)
        values = outputs(masked, inputs)
        row = {
            "family": name,
            "class": type(small).__name__ == type(model).__name__,
            "parameters outside embeddings": outside,
            "removable": removable(model) / outside,
            "removed by half": 1 - (parameters_in(small) / parameters_in(model)),
            "masked against shrunk": difference(values, outputs(small, inputs)),
            "shrunk against loaded": difference(outputs(small, inputs), outputs(loaded, inputs)),
            "dense against masked": difference(values, outputs(model, inputs)),
            "other inputs": difference(values, outputs(small, others)),
            "barriers": barriers(model),
        }
        if generate and samples.generates(model):
            tokens = [samples.generated(each) for each in (masked, small)]
            row["same tokens"] = bool(np.array_equal(*tokens))
    return row


def routers(model):
    """The layers that make the logits of experts, in their order."""
    return [layer for layer in model._flatten_layers() if layer.name in _ROUTERS]


def without_experts(model, small):
    """Lets the routers of a model give minus infinity for experts that a smaller model lacks.

    Returns:
        For each router, a bool array of the experts that are there.
    """
    stay = []
    for old, new in zip(routers(model), routers(small), strict=True):
        columns = [keras.ops.convert_to_numpy(layer.kernel).T for layer in (old, new)]
        kept = np.array(
            [any(np.array_equal(column, c) for c in columns[1]) for column in columns[0]]
        )
        old.activation = lambda x, kept=kept: keras.ops.where(kept, x, -np.inf)
        stay.append(kept)
    return stay


def measure_experts(name, folder, n=2):
    """Removes experts of one family, and compares with routers that send no token to them."""
    model = jitter(MIXTURES[name]())
    inputs, others = samples.inputs_for(model), samples.inputs_for(model, seed=1)
    dense = outputs(model, inputs)
    small = tfprune.structural.remove_experts(model, n, inputs)
    path = os.path.join(folder, "fewer.keras")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        small.save(path)
        loaded = keras.saving.load_model(path)
    stay = without_experts(model, small)
    masked = outputs(model, others)
    row = {
        "family": name,
        "class": type(small) is type(model),
        "experts": [model.backbone.num_experts, small.backbone.num_experts],
        "kept": [int(kept.sum()) for kept in stay],
        "removed": 1 - parameters_in(small) / parameters_in(model),
        "masked against shrunk": difference(masked, outputs(small, others)),
        "shrunk against loaded": difference(outputs(small, inputs), outputs(loaded, inputs)),
        "dense against masked": difference(dense, outputs(model, inputs)),
    }
    for router, kept in zip(routers(model), stay, strict=True):
        router.activation = keras.activations.linear
        router.kernel.assign(router.kernel * kept)
    row["router of zeros against shrunk"] = difference(outputs(model, others), masked)
    return row


def measure_stream(name, folder):
    """Prunes half of all filters of one family, and with them half of the embedding's channels."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = jitter(FAMILIES[name]())
        rules = [tfprune.Rule(keras.layers.ReversibleEmbedding)]
        masked, small, loaded = masked_and_shrunk(model, folder, rules)
    inputs = samples.inputs_for(model)
    values = outputs(masked, inputs)
    widths = [m.backbone.token_embedding.embeddings.shape[1] for m in (model, small)]
    return {
        "family": name,
        "widths": widths,
        "removed": 1 - parameters_in(small) / parameters_in(model),
        "masked against shrunk": difference(values, outputs(small, inputs)),
        "shrunk against loaded": difference(outputs(small, inputs), outputs(loaded, inputs)),
        "dense against masked": difference(values, outputs(model, inputs)),
        "same tokens": bool(np.array_equal(*map(samples.generated, (masked, small)))),
    }


def as_cells(row):
    """A row of the table, as text."""
    kinds = ", ".join(f"{kind} {share:.1%}" for kind, share in row["barriers"].items())
    return [
        row["family"],
        f"{row['removable']:.1%}",
        f"{row['removed by half']:.1%}",
        f"{row['masked against shrunk']:.1e}",
        f"{row['dense against masked']:.2f}",
        {True: "yes", False: "NO", None: "-"}[row.get("same tokens")],
        kinds or "none",
    ]


def _of_experts(row):
    return [
        row["family"],
        "{} of {}".format(*reversed(row["experts"])),
        f"{row['removed']:.1%}",
        f"{row['masked against shrunk']:.1e}",
        f"{row['dense against masked']:.2f}",
        f"{row['router of zeros against shrunk']:.2f}",
    ]


def _of_stream(row):
    return [
        row["family"],
        "{} of {}".format(*reversed(row["widths"])),
        f"{row['removed']:.1%}",
        f"{row['masked against shrunk']:.1e}",
        f"{row['dense against masked']:.2f}",
        "yes" if row["same tokens"] else "NO",
    ]


def show_rows(title, columns, rows):
    """Prints a table, and its rows as they stand in README."""
    show(title, columns, rows)
    for row in rows:
        print("| " + " | ".join(row) + " |")


def run(folder):
    """Measures all families, prints the table and writes it to a folder."""
    rows = []
    with tempfile.TemporaryDirectory() as files:
        for name in FAMILIES:
            rows.append(measure(name, files))
            print(rows[-1], flush=True)
    table = [as_cells(row) for row in rows]
    columns = ["family", "removable", "at half", "difference", "control", "tokens", "barriers"]
    show_rows("Shrinking KerasHub", columns, table)
    with tempfile.TemporaryDirectory() as files:
        experts = [measure_experts(name, files) for name in MIXTURES]
        streams = [measure_stream(name, files) for name in STREAMS]
    columns = ["family", "experts", "removed", "difference", "control", "router of zeros"]
    show_rows("Experts removed", columns, [_of_experts(row) for row in experts])
    columns = ["family", "width", "removed", "difference", "control", "tokens"]
    show_rows("Narrower streams", columns, [_of_stream(row) for row in streams])
    write("kerashub_shrink", folder, {"rows": rows, "experts": experts, "streams": streams})
