"""One Dense layer against its sparse form, on the active backend.

    KERAS_BACKEND=jax taskset -c 0 python benchmarks/sparse_kernels.py

Writes `results/sparse_kernels_<backend>.json`: milliseconds and gains of Dense(2048) on 2,048
inputs, by sparsity and batch, as `tfprune.plan_sparse` measures them.
"""

import harness
import keras
import numpy as np

from tfprune._formats.processors import limited_to
from tfprune.sparse.forms import sparse_form
from tfprune.sparse.timing import race

WIDTH = 2048


def pruned_layer(sparsity):
    random = np.random.default_rng(0)
    layer = keras.layers.Dense(WIDTH)
    layer.build((None, WIDTH))
    kernel = random.normal(size=(WIDTH, WIDTH)) / WIDTH**0.5
    layer.kernel.assign(np.where(random.random(kernel.shape) < sparsity, 0, kernel))
    return layer


def main():
    parser = harness.arguments(__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    backend, cells = keras.backend.backend(), []
    for sparsity in (0.8, 0.9, 0.95, 0.98):
        layer = pruned_layer(sparsity)
        form = sparse_form(layer, (1, WIDTH))
        for batch in (1, 8, 64):
            x = np.random.default_rng(1).normal(size=(batch, WIDTH)).astype("float32")
            with limited_to(args.threads):
                found = race(layer, form, [keras.ops.convert_to_tensor(x)], args.rounds)
            cells.append(
                {
                    "sparsity": sparsity,
                    "batch": batch,
                    "dense": 1000 * found.dense,
                    "sparse": 1000 * found.sparse,
                    "gain": found.gain,
                }
            )
    harness.write(
        f"sparse_kernels_{backend}", args.output, {"threads": args.threads, "cells": cells}
    )
    rows = [
        (
            f"{c['sparsity']:.0%}",
            c["batch"],
            f"{c['dense']:.2f}",
            f"{c['sparse']:.2f}",
            f"{c['gain']:.2f}x",
        )
        for c in cells
    ]
    columns = ["sparsity", "batch", "dense, ms", "sparse, ms", "faster"]
    harness.show(f"Dense({WIDTH}) on {backend}, {args.threads} thread(s)", columns, rows)


if __name__ == "__main__":
    main()
