"""From a trained GPT-2 to one with 2:4 sparsity in 8 bits: prune, LoRA, quantize, generate.

Trains a small GPT-2 of KerasHub on the bytes of Python's own modules, prunes it to 2:4 without
training by magnitude and by SparseGPT, tunes the latter with LoRA under its masks, quantizes it to
8 bits, and compares losses, zeros and bytes, and what the models write. Needs `keras-hub`.

python tutorials/pruning_a_language_model.py               a few minutes
python tutorials/pruning_a_language_model.py --steps 2000  a better model
"""

import argparse
import gzip
import inspect
import json
import os
import pathlib
import sys
import warnings

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
from rich.console import Console
from rich.table import Table

import tfprune

LENGTH, BATCH = 64, 32
MODULES = ("argparse", "ast", "dataclasses", "enum", "functools", "inspect", "pathlib", "typing")


def main():
    args = parse_arguments()
    keras_hub = keras_hub_or_exit()
    text = np.frombuffer(source_text().encode(), np.uint8).astype("int32")
    train_text, test_text = np.split(text, [len(text) * 9 // 10])
    keras.utils.set_random_seed(args.seed)

    print(f"1. Train a GPT-2 on {len(train_text):,} bytes for {args.steps} steps")
    backbone = keras_hub.models.GPT2Backbone(
        vocabulary_size=256,
        num_layers=3,
        num_heads=4,
        hidden_dim=64,
        intermediate_dim=256,
        max_sequence_length=LENGTH,
        dropout=0.0,
    )
    dense = keras_hub.models.GPT2CausalLM(backbone=backbone, preprocessor=None)
    train(dense, train_text, args.steps, rate=3e-3)

    print("2. Prune to 2:4 without training")
    data = tfprune.pruners.Calibration(train_text, num_samples=64, sequence_length=LENGTH)
    pattern = tfprune.NOfM(2, 4)
    by_magnitude = tfprune.pruners.magnitude(dense, 0.5, pattern=pattern, verbose=0)
    result = tfprune.pruners.sparse_gpt(dense, 0.5, data, pattern=pattern, verbose=0)
    print(result)

    print(f"3. Tune with LoRA for {args.lora_steps} steps; the masks stay")
    pruned = result.stripped()
    masked = result.model
    masked.backbone.enable_lora(rank=4)
    train(masked, train_text, args.lora_steps, 1e-3, [tfprune.UpdatePruningStep()])
    tuned = tfprune.strip_pruning(masked)

    print("4. Quantize to 8 bits")
    warnings.filterwarnings("ignore", message=".*does not have a `quantize` method.*")
    small = tfprune.strip_pruning(masked)
    small.quantize("int8")

    models = {
        "dense": dense,
        "2:4 by magnitude": by_magnitude.stripped(),
        "2:4 by SparseGPT": pruned,
        "tuned with LoRA": tuned,
        "in 8 bits": small,
    }
    results = {name: measured(model, test_text) for name, model in models.items()}
    Console(width=100).print(as_table(results))
    output = pathlib.Path(args.output)
    output.mkdir(parents=True, exist_ok=True)
    (output / "results.json").write_text(json.dumps(results, indent=1))

    print("5. Let them write")
    for name in ("dense", "in 8 bits"):
        print(f"   {name}: {written(models[name], 'def __init__(self, ')!r}")


def source_text():
    return "\n".join(inspect.getsource(__import__(name)) for name in MODULES)


def inputs(tokens):
    return {"token_ids": tokens, "padding_mask": np.ones_like(tokens)}


def train(model, text, steps, rate, callbacks=None):
    """Trains on random windows of the text."""
    random = np.random.default_rng(0)
    starts = random.integers(0, len(text) - LENGTH - 1, steps * BATCH)
    windows = text[starts[:, None] + np.arange(LENGTH + 1)]
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(rate), loss)
    x, y = inputs(windows[:, :-1]), windows[:, 1:]
    model.fit(x, y, batch_size=BATCH, verbose=0, shuffle=False, callbacks=callbacks)


def measured(model, text):
    """Loss on unseen text, zeros in the blocks, and bytes of the compressed weights."""
    windows = text[: len(text) // (LENGTH + 1) * (LENGTH + 1)].reshape(-1, LENGTH + 1)[:128]
    logits = model.predict(inputs(windows[:, :-1]), verbose=0)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    size = len(gzip.compress(b"".join(array.tobytes() for array in model.get_weights())))
    kernels = [
        keras.ops.convert_to_numpy(weight)
        for block in model.backbone.transformer_layers
        for weight in block.weights
        if weight.path.endswith("kernel")
    ]
    zeros = sum(int((kernel == 0).sum()) for kernel in kernels)
    return {
        "loss": float(loss(windows[:, 1:], logits)),
        "zeros": zeros / sum(kernel.size for kernel in kernels),
        "bytes": size,
    }


def as_table(results):
    table = Table(title="The same model, step by step")
    table.add_column("model")
    for name in ("loss", "perplexity", "zeros in the blocks", "bytes, compressed"):
        table.add_column(name, justify="right")
    for name, row in results.items():
        numbers = f"{row['loss']:.3f}", f"{np.exp(row['loss']):.2f}"
        table.add_row(name, *numbers, f"{row['zeros']:.1%}", f"{row['bytes']:,}")
    return table


def written(model, prompt, number=40):
    """Greedy continuation, byte by byte."""
    tokens = np.frombuffer(prompt.encode(), np.uint8).astype("int32")
    padded = np.zeros((1, LENGTH), "int32")
    mask = np.zeros((1, LENGTH), "int32")
    padded[0, : len(tokens)], mask[0, : len(tokens)] = tokens, 1
    batch = {"token_ids": padded, "padding_mask": mask}
    model.compile(sampler="greedy")
    # Without a preprocessor, `generate` takes and returns tokens.
    found = model.generate(batch, max_length=LENGTH, stop_token_ids=None)
    ids = keras.ops.convert_to_numpy(found["token_ids"])[0, : len(tokens) + number]
    return bytes(ids.astype("uint8")).decode(errors="replace")


def keras_hub_or_exit():
    try:
        import keras_hub
    except ImportError:
        fail('needs keras-hub: pip install "tfprune[hub]"')
    return keras_hub


def parse_arguments():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--steps", type=int, default=600, help="training steps of the dense model")
    parser.add_argument("--lora-steps", type=int, default=100, help="steps of tuning")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", default="pruning_a_language_model", help="folder for results")
    args = parser.parse_args()
    for name in ("steps", "lora_steps"):
        if getattr(args, name) < 1:
            fail(f"--{name.replace('_', '-')} has to be at least 1")
    return args


def fail(message):
    sys.exit(f"{pathlib.Path(__file__).name}: {message}")


if __name__ == "__main__":
    main()
