"""GPT-2 small, random and pruned without a copy: seconds, memory at its highest, training steps."""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import gc
import pathlib
import time

import keras
import numpy as np
from harness import arguments, interleave, ratios, summary, write

import tfprune

MIB = 2**20


class Peak:
    """The highest memory of this process while something runs, as Linux counts it."""

    def __enter__(self):
        # Sets the highest value so far to the present one.
        pathlib.Path("/proc/self/clear_refs").write_text("5")
        self.start = self.highest()
        return self

    def __exit__(self, *error):
        self.added = self.highest() - self.start

    @staticmethod
    def highest():
        lines = pathlib.Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))


def gpt2_small():
    from keras_hub import models

    return models.GPT2CausalLM(
        models.GPT2Backbone(
            vocabulary_size=50257,
            num_layers=12,
            num_heads=12,
            hidden_dim=768,
            intermediate_dim=3072,
            max_sequence_length=1024,
        ),
        preprocessor=None,
        # An optimizer would add its own 8 bytes for each weight.
        compile=False,
    )


def measure(embeddings):
    """Wrapping and two mask updates over all weights under one threshold.

    Args:
        embeddings: Whether the token embedding is pruned too.
    """
    model = gpt2_small()
    tokens = np.ones((1, 8), "int32")
    model({"token_ids": tokens, "padding_mask": tokens})
    size = model.count_params()
    rules = [tfprune.Rule("token_embedding")] if embeddings else None
    schedule = tfprune.PolynomialDecay(0.5, 0.8, begin_step=0, end_step=1, frequency=1)
    found = {"weights": size, "weights in MiB": round(4 * size / MIB)}
    added = {}

    def part(name, function):
        with Peak() as peak:
            start = time.perf_counter()
            result = function()
            found[f"{name}, seconds"] = round(time.perf_counter() - start, 2)
        added[name] = peak.added
        return result

    part(
        "wrap",
        lambda: tfprune.prune_low_magnitude(
            model, schedule, scope="global", rules=rules, copy=False
        ),
    )
    pruning = part("first mask update", lambda: tfprune.UpdatePruningStep(model))
    part("second mask update", pruning.step)
    # The masks that stay, and the highest that any part added to what was there before it.
    masked = sum(weight.size for weight in model.pruned_weights)
    before = {"wrap": 0, "first mask update": masked, "second mask update": masked}
    peak = max(added[name] + before[name] for name in added)
    found["masked"] = masked
    found["bytes added at most, for each weight"] = round(peak / size, 3)
    found["bytes added at most, for each masked weight"] = round(peak / masked, 3)
    found["sparsity"] = sum(w.zeros for w in model.pruned_weights) / masked
    part("strip", lambda: tfprune.strip_pruning(model, copy=False))
    return found


def measure_steps(rounds):
    """Training steps of the plain and of the pruned model in turn, in seconds and as a ratio."""
    tokens = np.random.default_rng(0).integers(0, 50257, (1, 64))
    inputs = {"token_ids": tokens, "padding_mask": np.ones_like(tokens)}
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    models = {"plain": gpt2_small(), "pruned": gpt2_small()}
    for name, model in models.items():
        model(inputs)
        if name == "pruned":
            schedule = tfprune.ConstantSparsity(0.5, begin_step=0)
            tfprune.prune_low_magnitude(model, schedule, scope="global", copy=False)
            tfprune.UpdatePruningStep(model)
        model.compile(optimizer="adam", loss=loss)
    sides = {
        name: lambda model=model: model.train_on_batch(inputs, tokens)
        for name, model in models.items()
    }
    seconds = interleave(sides, rounds)
    found = {name: summary(values) for name, values in seconds.items()}
    return {**found, "ratio": ratios(seconds["pruned"], seconds["plain"])}


def main():
    parser = arguments(__doc__)
    options = parser.parse_args()
    result = {}
    for name, embeddings in (("by default", False), ("with the token embedding", True)):
        result[name] = measure(embeddings)
        keras.backend.clear_session()
        gc.collect()
        print(name, result[name], flush=True)
    result["training step"] = measure_steps(options.rounds)
    print("training step", result["training step"], flush=True)
    write("kerashub_size", options.output, result)


if __name__ == "__main__":
    main()
