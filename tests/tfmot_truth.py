"""Asks tfmot for its schedules and masks: `python tfmot_truth.py answers.npz`.

A script, because importing tfmot sets TF_USE_LEGACY_KERAS for the whole process. The tests import
the tables of questions from here; this file imports tfmot only when it is run.
"""

import os
import sys

import numpy as np

# Class and constructor arguments, and the number of steps to ask for.
SCHEDULES = {
    "cubic": ("PolynomialDecay", (0.0, 0.9, 0, 1000, 3, 100), 1200),
    "from_half": ("PolynomialDecay", (0.5, 0.9, 200, 700, 3, 100), 900),
    "out_of_phase": ("PolynomialDecay", (0.0, 0.8, 3, 250, 3, 7), 300),
    "linear": ("PolynomialDecay", (0.1, 0.75, 10, 110, 1, 10), 150),
    "square_root": ("PolynomialDecay", (0.2, 0.6, 0, 97, 0.5, 5), 120),
    "falling": ("PolynomialDecay", (0.8, 0.3, 5, 55, 2, 1), 70),
    "constant": ("ConstantSparsity", (0.5, 0, -1, 100), 500),
    "constant_with_end": ("ConstantSparsity", (0.98, 20, 95, 10), 150),
    "one_shot": ("ConstantSparsity", (0.3, 40, 40, 1), 60),
}

# Layer, shape of its kernel, and what is asked of tfmot's prune_low_magnitude.
MASKS = {
    **{
        f"dense_{sparsity}": ("Dense", (40, 25), {"sparsity": sparsity})
        for sparsity in (0.0, 0.1, 0.5, 0.75, 0.9, 0.99)
    },
    "dense_nothing_left": ("Dense", (3, 4), {"sparsity": 0.99}),
    "dense_large": ("Dense", (1000, 2000), {"sparsity": 0.9}),
    "conv_0.8": ("Conv2D", (3, 3, 5, 20), {"sparsity": 0.8}),
    "dense_2_of_4": ("Dense", (16, 6), {"m_by_n": (2, 4)}),
    "dense_1_of_4": ("Dense", (16, 6), {"m_by_n": (1, 4)}),
    "dense_4_of_8": ("Dense", (32, 5), {"m_by_n": (4, 8)}),
    "dense_2_of_4_cut_1": ("Dense", (17, 6), {"m_by_n": (2, 4)}),
    "dense_2_of_4_cut_2": ("Dense", (18, 6), {"m_by_n": (2, 4)}),
    "dense_2_of_4_cut_3": ("Dense", (19, 6), {"m_by_n": (2, 4)}),
    "conv_2_of_4": ("Conv2D", (3, 3, 8, 5), {"m_by_n": (2, 4)}),
    "conv_2_of_4_cut": ("Conv2D", (3, 2, 7, 5), {"m_by_n": (2, 4)}),
    "block_avg": ("Dense", (16, 24), {"sparsity": 0.5, "block": (4, 1), "pooling": "AVG"}),
    "block_max": ("Dense", (16, 24), {"sparsity": 0.5, "block": (4, 1), "pooling": "MAX"}),
    "block_avg_wide": ("Dense", (16, 24), {"sparsity": 0.75, "block": (2, 3), "pooling": "AVG"}),
    "block_max_wide": ("Dense", (16, 24), {"sparsity": 0.75, "block": (2, 3), "pooling": "MAX"}),
    # Where more than one row or column is missing, tfmot pads on both sides and its masks are
    # shifted against its scores.
    "block_avg_cut": ("Dense", (15, 12), {"sparsity": 0.5, "block": (4, 3), "pooling": "AVG"}),
    "block_max_cut": ("Dense", (15, 12), {"sparsity": 0.5, "block": (4, 3), "pooling": "MAX"}),
}


def weight_of(name):
    """The weight that a mask is asked for: no two of one magnitude."""
    _, shape, _ = MASKS[name]
    size = int(np.prod(shape))
    random = np.random.default_rng(sum(name.encode()))
    magnitudes = random.permutation(np.arange(1, size + 1)) / size
    return (magnitudes * random.choice([-1, 1], size)).reshape(shape).astype("float32")


def main(path):
    os.environ["TF_USE_LEGACY_KERAS"] = "1"
    import tensorflow as tf
    import tensorflow_model_optimization as tfmot
    import tf_keras

    sparsity = tfmot.sparsity.keras
    answers = {}
    for name, (kind, arguments, steps) in SCHEDULES.items():
        schedule = getattr(sparsity, kind)(*arguments)
        pairs = [schedule(tf.constant(step, tf.int64)) for step in range(steps)]
        answers[f"{name}/due"] = np.array([due.numpy() for due, _ in pairs])
        answers[f"{name}/sparsity"] = np.array([value.numpy() for _, value in pairs])
    for name, (kind, shape, asked) in MASKS.items():
        if kind == "Dense":
            layer = tf_keras.layers.Dense(shape[-1], use_bias=False)
        else:
            layer = tf_keras.layers.Conv2D(shape[-1], shape[:2], use_bias=False)
        schedule = sparsity.ConstantSparsity(asked.get("sparsity", 0.5), 1, frequency=1)
        wrapped = sparsity.prune_low_magnitude(
            layer,
            schedule,
            block_size=asked.get("block", (1, 1)),
            block_pooling_type=asked.get("pooling", "AVG"),
            sparsity_m_by_n=asked.get("m_by_n"),
        )
        wrapped.build((None, shape[0]) if kind == "Dense" else (None, 9, 9, shape[2]))
        layer.kernel.assign(weight_of(name))
        wrapped.pruning_step.assign(1)
        wrapped.pruning_obj.conditional_mask_update()
        answers[f"{name}/mask"] = wrapped.pruning_vars[0][1].numpy().astype(bool)
    np.savez(path, **answers)


if __name__ == "__main__":
    main(sys.argv[1])
