"""One mask update: tfprune against tfmot, by size and by method; and its extra memory.

tfmot's side is the update that its wrapper puts into the training graph, compiled. tfprune's side
is everything that happens at an update: read the weight, compute and assign the mask, put the
pruned weights to zero. Both start from masks of ones in each round.
"""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import argparse
import subprocess
import sys

import keras
import numpy as np
import tensorflow as tf
from harness import arguments, interleave, milliseconds, ratios, show, summary, write

import tfprune
from tfprune._updates.mask_update import MaskUpdate
from tfprune._wrapping.wrapper import mask_owners

MILLION = 1_000_000


def wrapped(shapes, **method):
    """Weights of wrapped Dense layers of these shapes, and functions that reset and update them."""
    rng = np.random.default_rng(0)
    weights = []
    holder = keras.layers.Layer()
    holder.layers_inside = []
    for rows, columns in shapes:
        layer = keras.layers.Dense(columns, use_bias=False)
        layer = tfprune.PruneLowMagnitude(layer, tfprune.ConstantSparsity(0.5, 0), **method)
        layer.build((None, rows))
        (weight,) = mask_owners(layer)[0].pruned_weights
        weights.append((weight, rng.standard_normal((rows, columns), dtype="float32")))
        holder.layers_inside.append(layer)
    masks = MaskUpdate(holder)

    def reset():
        for weight, value in weights:
            weight.variable.assign(value)
            weight.mask.assign(np.ones(value.shape, bool))
            weight.forget_count()

    def update(sparsity=0.5):
        masks.apply([(sparsity, weight) for weight, _ in weights])

    return reset, update


def of_tfmot(shape):
    """tfmot's compiled mask update of one weight."""
    from tensorflow_model_optimization.python.core.sparsity.keras import (
        pruning_impl,
        pruning_schedule,
    )

    weight = tf.Variable(np.random.default_rng(0).standard_normal(shape, dtype="float32"))
    mask = tf.Variable(tf.ones(shape), trainable=False)
    threshold = tf.Variable(0.0, trainable=False)
    pruning = pruning_impl.Pruning(
        training_step_fn=lambda: tf.constant(0, tf.int64),
        pruning_vars=[(weight, mask, threshold)],
        pruning_schedule=pruning_schedule.ConstantSparsity(0.5, 0, frequency=1),
        block_size=(1, 1),
        block_pooling_type="AVG",
    )

    @tf.function
    def update():
        pruning.conditional_mask_update()

    def reset():
        mask.assign(tf.ones(shape))

    return reset, update


def extra_memory(rows):
    """Extra memory of one update at its peak, in multiples of the weight, in a new process."""
    command = [sys.executable, __file__, "--memory-of", str(rows)]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True)
    return float(done.stdout.splitlines()[-1])


def extra_memory_here(rows):
    for first, size in ((True, 100), (False, rows)):
        reset, update = wrapped([(size, 1000)])
        reset()
        if first:
            update()
    # Writing 5 here sets the process's high-water mark back to what it holds now.
    with open("/proc/self/clear_refs", "w") as control:
        control.write("5")
    before = _resident("VmRSS")
    update()
    return (_resident("VmHWM") - before) * 1024 / (4 * rows * 1000)


def _resident(name):
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith(name))


def main():
    parser = arguments(__doc__)
    parser.add_argument("--memory-of", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.memory_of:
        print(extra_memory_here(options.memory_of))
        return
    result: dict = {}

    sides = {
        "tfmot": of_tfmot((8000, 1000)),
        "tfprune": wrapped([(8000, 1000)]),
        "tfprune, 80 million": wrapped([(80_000, 1000)]),
    }
    times = interleave(sides, options.rounds)
    result["against_tfmot"] = ratios(times["tfmot"], times["tfprune"])
    result["ten_times_the_size"] = ratios(times["tfprune, 80 million"], times["tfprune"])
    result["seconds"] = {name: summary(values) for name, values in times.items()}
    show(
        "Mask update of 8 million float32 to a sparsity of 0.5",
        ("side", "milliseconds (quartiles)"),
        [(name, milliseconds(values)) for name, values in times.items()],
    )
    print(f"tfmot / tfprune: {result['against_tfmot']['median']:.1f}")
    print(f"80 million / 8 million: {result['ten_times_the_size']['median']:.1f}")

    layers = [(1024, 1024)] * 5
    sides = {"local": wrapped(layers), "global": wrapped(layers, scope="global")}
    times = interleave(sides, 3 * options.rounds)
    result["global_to_local"] = ratios(times["global"], times["local"])
    show(
        "Five Dense(1024), all masks",
        ("scope", "milliseconds (quartiles)"),
        [(name, milliseconds(values)) for name, values in times.items()],
    )
    print(f"global / local: {result['global_to_local']['median']:.2f}")

    methods = {
        "unstructured": {},
        "Block((4, 4))": {"pattern": tfprune.Block((4, 4))},
        "NOfM(2, 4)": {"pattern": tfprune.NOfM(2, 4)},
        "Filter()": {"pattern": tfprune.Filter()},
    }
    sides = {name: wrapped([(8000, 1000)], **method) for name, method in methods.items()}
    times = interleave(sides, options.rounds)
    result["patterns"] = {name: summary(values) for name, values in times.items()}
    show(
        "8 million float32 by pattern",
        ("pattern", "milliseconds (quartiles)"),
        [(name, milliseconds(values)) for name, values in times.items()],
    )

    result["extra_memory"] = {
        f"{rows * 1000 // MILLION} million": extra_memory(rows) for rows in (8000, 80_000)
    }
    show(
        "Extra memory at the peak of an update",
        ("size", "times the weight"),
        [(size, f"{value:.2f}") for size, value in result["extra_memory"].items()],
    )
    write("mask_update", options.output, result)


if __name__ == "__main__":
    main()
