"""GPT-2 small, with random weights, pruned without a copy: seconds, and memory at its highest."""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import argparse
import pathlib
import resource
import threading
import time

import keras
import numpy as np
from harness import RESULTS, write

import tfprune

MIB = 2**20


def resident():
    """Memory of this process now, in bytes."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * resource.getpagesize()


class Peak:
    """The highest memory of this process while something runs."""

    def __enter__(self):
        self.start = self.highest = resident()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()
        return self

    def _watch(self):
        while not self._stop.wait(0.002):
            self.highest = max(self.highest, resident())

    def __exit__(self, *error):
        self._stop.set()
        self._thread.join()

    @property
    def added(self):
        return self.highest - self.start


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
    """Wrapping and one mask update over all weights under one threshold.

    Args:
        embeddings: Whether the token embedding is pruned too.
    """
    model = gpt2_small()
    tokens = np.ones((1, 8), "int32")
    model({"token_ids": tokens, "padding_mask": tokens})
    size = model.count_params()
    rules = [tfprune.Rule("token_embedding")] if embeddings else None
    found = {"weights": size, "weights in MiB": round(4 * size / MIB)}
    with Peak() as peak:
        start = time.perf_counter()
        tfprune.prune_low_magnitude(
            model, tfprune.ConstantSparsity(0.5, 0), scope="global", rules=rules, copy=False
        )
        found["wrap, seconds"] = round(time.perf_counter() - start, 2)
        start = time.perf_counter()
        tfprune.UpdatePruningStep(model)
        found["mask update, seconds"] = round(time.perf_counter() - start, 2)
    masked = sum(weight.size for weight in model.pruned_weights)
    found["masked"] = masked
    found["bytes added at most, for each weight"] = round(peak.added / size, 3)
    found["bytes added at most, for each masked weight"] = round(peak.added / masked, 3)
    found["sparsity"] = sum(w.zeros for w in model.pruned_weights) / masked
    start = time.perf_counter()
    tfprune.strip_pruning(model, copy=False)
    found["strip, seconds"] = round(time.perf_counter() - start, 2)
    return found


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=pathlib.Path, default=RESULTS, help="folder for JSON")
    options = parser.parse_args()
    result = {}
    for name, embeddings in (("by default", False), ("with the token embedding", True)):
        result[name] = measure(embeddings)
        keras.backend.clear_session()
        print(name, result[name], flush=True)
    write("kerashub_size", options.output, result)


if __name__ == "__main__":
    main()
