"""Prunes a small language model without training: perplexity, loss, seconds and memory.

    python benchmarks/language_model.py

A GPT-2 of 1.9 million parameters reads bytes, 128 at a time. It is trained on the source text of
Python's standard library, whose files are split: one in twenty is for validation. The trained
model is kept in a folder and used again by the next run; an interrupted training goes on. Then
each method prunes a copy of it, at 50, 60 and 70 % and at 2:4, and the result is fine-tuned under
its masks.

Needs keras-hub. `--size large` has 10 million parameters; `--size tiny` has 0.48 million and reads
64 bytes at a time.
"""

import argparse
import functools
import hashlib
import json
import os
import pathlib
import time
import tracemalloc

import harness
import keras
import keras_hub
import numpy as np

import tfprune
from tfprune import pruners
from tfprune._updates.mask_update import MaskUpdate

# Tokens of a training step, however long the sequences are.
TOGETHER = 2048
SIZES = {
    "tiny": {
        "num_layers": 4,
        "num_heads": 3,
        "hidden_dim": 96,
        "intermediate_dim": 384,
    },
    "small": {
        "num_layers": 6,
        "num_heads": 5,
        "hidden_dim": 160,
        "intermediate_dim": 640,
    },
    "large": {
        "num_layers": 8,
        "num_heads": 5,
        "hidden_dim": 320,
        "intermediate_dim": 1280,
    },
}
LENGTHS = {"tiny": 64, "small": 128, "large": 128}
METHODS = {
    "magnitude": pruners.magnitude,
    "Wanda": pruners.wanda,
    "SparseGPT": pruners.sparse_gpt,
}
SPARSITIES = {
    "50 %": (0.5, None),
    "2:4": (0.5, tfprune.NOfM(2, 4)),
    "60 %": (0.6, None),
    "70 %": (0.7, None),
}
LEFT_OUT = {"site-packages", "test", "tests", "idlelib", "lib2to3", "encodings"}


def texts():
    """`{"train", "validation"}`: the bytes of all files of each side, in a fixed order."""
    root = pathlib.Path(os.__file__).parent
    parts = {"train": [], "validation": []}
    for path in sorted(root.rglob("*.py")):
        name = path.relative_to(root).as_posix()
        if not LEFT_OUT & set(name.split("/")):
            first = hashlib.sha256(name.encode()).digest()[0]
            parts["validation" if first < 13 else "train"].append(path.read_bytes() + b"\0")
    return {side: np.frombuffer(b"".join(found), np.uint8) for side, found in parts.items()}


def language_model(size):
    keras.utils.set_random_seed(0)
    backbone = keras_hub.models.GPT2Backbone(
        vocabulary_size=256,
        dropout=0.0,
        max_sequence_length=LENGTHS[size],
        **SIZES[size],
    )
    return keras_hub.models.GPT2CausalLM(backbone=backbone, preprocessor=None)


def compiled(model, rate, steps):
    warm = min(100, steps // 4)
    model.compile(
        keras.optimizers.AdamW(
            keras.optimizers.schedules.CosineDecay(
                0.0, steps - warm, warmup_target=rate, warmup_steps=warm
            ),
            weight_decay=0.1,
            beta_2=0.95,
            global_clipnorm=1.0,
        ),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        # XLA's compilation would take longer than these trainings on a CPU.
        jit_compile=keras.backend.backend() == "jax",
    )
    return model


def inputs(tokens):
    return {"token_ids": tokens, "padding_mask": np.ones_like(tokens)}


def batch_of(text, length, seed):
    number = TOGETHER // length
    starts = np.random.default_rng(seed).integers(0, len(text) - length - 1, number)
    windows = text[starts[:, None] + np.arange(length + 1)].astype("int32")
    return inputs(windows[:, :-1]), windows[:, 1:]


def trained(size, text, steps, folder, seconds):
    """The trained model, from the folder if it is there; `None` if time ran out."""
    folder.mkdir(parents=True, exist_ok=True)
    whole = folder / f"{size}_{steps}.weights.h5"
    part, count = (
        whole.with_name(f"{size}_part.weights.h5"),
        folder / f"{size}_part.txt",
    )
    model = compiled(language_model(size), 2e-3, steps)
    if whole.exists():
        model.load_weights(whole)
        return model
    done = 0
    if count.exists():
        model.optimizer.build(model.trainable_variables)
        model.load_weights(part)
        done = int(count.read_text())
    start = time.perf_counter()
    while done < steps:
        loss = model.train_on_batch(*batch_of(text, LENGTHS[size], done))
        done += 1
        if done % 50 == 0:
            done_in = time.perf_counter() - start
            print(
                f"step {done}: loss {float(np.ravel(loss)[0]):.3f}, {done_in:.0f} s",
                flush=True,
            )
        late = time.perf_counter() - start > seconds
        if late or done % 250 == 0:
            model.save_weights(part)
            count.write_text(str(done))
        if late:
            print(f"stopped after step {done}; the next run goes on from there")
            return None
    model.save_weights(whole)
    return model


def loss_of(model, text, sequences):
    """Mean loss over sequences at equal distances."""
    length = model.backbone.max_sequence_length
    starts = np.linspace(0, len(text) - length - 1, sequences).astype(int)
    windows = text[starts[:, None] + np.arange(length + 1)].astype("int32")
    total = 0.0
    for first in range(0, sequences, 64):
        part = windows[first : first + 64]
        logits = keras.ops.convert_to_numpy(model.predict_on_batch(inputs(part[:, :-1])))
        logits = logits - logits.max(-1, keepdims=True)
        chosen = np.take_along_axis(logits, part[:, 1:, None].astype(int), -1)[..., 0]
        total += float((np.log(np.exp(logits).sum(-1)) - chosen).sum())
    return total / windows[:, 1:].size


def fine_tuned(model, text, steps):
    """Trains under the masks, which stay."""
    compiled(model, 5e-4, steps)
    length = model.backbone.max_sequence_length
    callback = tfprune.UpdatePruningStep(model)
    masks = [keras.ops.convert_to_numpy(layer.mask) for layer in _masked(model)]

    # Arrays, as the `fit` of a KerasHub task takes no PyDataset.
    batches = [batch_of(text, length, 1_000_000 + step) for step in range(steps)]
    x = {name: np.concatenate([x[name] for x, _ in batches]) for name in batches[0][0]}
    y = np.concatenate([y for _, y in batches])
    size = TOGETHER // length
    model.fit(x, y, batch_size=size, verbose=0, shuffle=False, callbacks=[callback])
    for layer, mask in zip(_masked(model), masks, strict=True):
        if not np.array_equal(keras.ops.convert_to_numpy(layer.mask), mask):
            raise RuntimeError("a mask changed in fine-tuning")
    return model


def _masked(model):
    return MaskUpdate(model).weights


def measure(prune, text, sequences, steps):
    """Prunes, and fine-tunes for some steps; `prune` returns a result."""
    start = time.perf_counter()
    result = prune()
    row = {
        "seconds": time.perf_counter() - start,
        "seconds_per_block": [block.seconds for block in result.blocks],
        "sparsity": result.sparsity,
        "errors": [block.error for block in result.blocks],
        "errors_of_masks": [block.error_of_masks for block in result.blocks],
        "loss": loss_of(result.stripped(), text["validation"], sequences),
    }
    if steps:
        tuned = fine_tuned(result.model, text["train"], steps)
        row["loss_fine_tuned"] = loss_of(tuned, text["validation"], sequences)
    return row


def peak_of(prune):
    """The most bytes that Python and NumPy held at once, beyond those at the start."""
    tracemalloc.start()
    prune()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=pathlib.Path, default=harness.RESULTS)
    parser.add_argument("--size", choices=SIZES, default="small")
    parser.add_argument("--steps", type=int, default=2500, help="training steps")
    parser.add_argument("--seconds", type=float, default=np.inf, help="stop training after these")
    parser.add_argument("--fine-tuning", type=int, default=200, help="steps under the masks")
    parser.add_argument("--sequences", type=int, default=512, help="for validation")
    parser.add_argument("--only", nargs="*", default=list(SPARSITIES), help="sparsities")
    parser.add_argument("--methods", nargs="*", default=list(METHODS))
    parser.add_argument(
        "--folder",
        type=pathlib.Path,
        default=pathlib.Path.home() / ".cache" / "tfprune" / "language_model",
        help="where the trained model is kept",
    )
    parser.add_argument("--train-only", action="store_true")
    options = parser.parse_args()
    text = texts()
    size, length = options.size, LENGTHS[options.size]
    model = trained(size, text["train"], options.steps, options.folder, options.seconds)
    if model is None or options.train_only:
        return
    data = pruners.Calibration(text["train"], num_samples=128, sequence_length=length)
    dense = loss_of(model, text["validation"], options.sequences)
    print(f"dense: loss {dense:.4f}, perplexity {np.exp(dense):.3f}", flush=True)
    # So that no row pays for what is compiled once.
    pruners.sparse_gpt(model, 0.5, data, verbose=0)
    kept = options.folder / f"{size}_{options.steps}_{options.fine_tuning}_rows.json"
    rows = json.loads(kept.read_text()) if kept.exists() else {}
    peaks = {}
    result = {
        "size": size,
        "parameters": model.count_params(),
        "steps": options.steps,
        "tokens": options.steps * TOGETHER,
        "fine_tuning": options.fine_tuning,
        "backend": keras.backend.backend(),
        "dense": dense,
        "rows": rows,
        "peak_bytes": peaks,
    }
    for name in options.only:
        sparsity, pattern = SPARSITIES[name]
        for method in options.methods:
            row = f"{name}, {method}"
            if row not in rows:
                prune = functools.partial(
                    METHODS[method], model, sparsity, data, pattern=pattern, verbose=0
                )
                rows[row] = measure(prune, text, options.sequences, options.fine_tuning)
                kept.write_text(json.dumps(rows))
                harness.write("language_model", options.output, result)
            losses = {key: value for key, value in rows[row].items() if "loss" in key}
            print(name, method, losses, flush=True)
    for method in options.methods:
        prune = functools.partial(METHODS[method], model, 0.5, data, verbose=0)
        peaks[method] = peak_of(prune)
    harness.write("language_model", options.output, result)
    show(dense, rows, peaks)


def show(dense, rows, peaks):
    table = []
    for name, row in rows.items():
        tuned = row.get("loss_fine_tuned")
        table.append(
            [
                name,
                f"{np.exp(row['loss']):.3f}",
                f"+{row['loss'] - dense:.4f}",
                "" if tuned is None else f"{np.exp(tuned):.3f}",
                f"{np.mean(row['seconds_per_block']):.2f}",
            ]
        )
    columns = ("", "Perplexity", "Loss", "Fine-tuned", "s a block")
    harness.show(f"Language model, dense perplexity {np.exp(dense):.3f}", columns, table)
    memory = [[method, f"{peak / 2**20:.0f}"] for method, peak in peaks.items()]
    harness.show("Host memory at the peak, at 50 %", ("", "MiB"), memory)


if __name__ == "__main__":
    main()
