"""Seconds of a mask update by criterion, on MobileNetV2, and of a dynamic update."""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
from accuracy_tasks import compiled, mnist_cnn
from harness import arguments, interleave, milliseconds, ratios, show, summary, write

import tfprune
from tfprune import criteria
from tfprune._updates.evidence import Evidence
from tfprune._updates.mask_update import MaskUpdate

# "scale" is there for some layers of MobileNetV2 only.
WITHOUT = (*criteria.FROM_DATA, "scale")


def updates(pattern, scope):
    """`{criterion: (setup, update)}`: from no zeros to 80 %, on MobileNetV2."""
    keras.utils.set_random_seed(0)
    model = keras.applications.MobileNetV2(weights=None)
    sides = {}
    for name, cls in criteria.built_in().items():
        if set(cls.needs) & set(WITHOUT):
            continue
        pruned = tfprune.prune_low_magnitude(model, criterion=name, pattern=pattern, scope=scope)
        masks = MaskUpdate(pruned)
        weights = masks.weights
        for weight in weights:
            # As training would: some criteria go by how far weights have moved.
            weight.variable.assign(np.asarray(weight.variable) * 1.1 + 0.01)
        evidence = Evidence(pruned)

        def setup(weights=weights):
            for weight in weights:
                weight.set_mask(np.ones(weight.variable.shape, dtype=bool))

        def update(masks=masks, evidence=evidence):
            masks.apply([(0.8, weight) for weight in masks.weights], evidence)

        sides[name] = (setup, update)
    return sides


def dense_network():
    """Five Dense(1024)."""
    layers = [keras.layers.Dense(1024, activation="relu") for _ in range(5)]
    return keras.Sequential([keras.Input((1024,)), *layers, keras.layers.Dense(10)])


def dynamic(make, shape):
    """Seconds of a training step, without and with a RigL update after it, batch 128."""
    random = np.random.default_rng(0)
    x = random.normal(size=(128, *shape)).astype("float32")
    y = random.integers(0, 10, 128)
    settings = {"update_every": 1, "total_steps": 10**6, "data": (x, y), "batch_size": 128}
    model = compiled(tfprune.RigL(0.9, **settings).prune(make()), "adam")
    rigl = tfprune.RigL(0.9, **settings, model=model)

    def step():
        model.train_on_batch(x, y)

    return {"train step": step, "RigL update": rigl.step}


def main():
    options = arguments(__doc__).parse_args()
    result, rows = {}, []
    for pattern, scope in (
        ("unstructured", "local"),
        ("unstructured", "global"),
        ("filter", "local"),
    ):
        seconds = interleave(updates(pattern, scope), options.rounds)
        for name, values in seconds.items():
            rows.append([name, pattern, scope, f"{summary(values)['median']:.3f}"])
        result[f"{pattern}, {scope}"] = {name: summary(v) for name, v in seconds.items()}
    show("Scores and masks of MobileNetV2", ["criterion", "pattern", "scope", "seconds"], rows)
    worst = max(s["median"] for side in result.values() for s in side.values())
    print(f"slowest: {worst:.3f} s (goal: 2 s)")
    rows = []
    for name, make, shape in (
        ("MNIST CNN", mnist_cnn, (28, 28, 1)),
        ("5 x Dense(1024)", dense_network, (1024,)),
    ):
        seconds = interleave(dynamic(make, shape), 3 * options.rounds)
        ratio = ratios(seconds["RigL update"], seconds["train step"])
        result[name] = {**{side: summary(v) for side, v in seconds.items()}, "ratio": ratio}
        rows.append([name, *map(milliseconds, seconds.values()), f"{ratio['median']:.2f}"])
    columns = ["model, batch 128", "train step, ms", "RigL update, ms", "update / step"]
    show("A dynamic update (goal: 3 steps)", columns, rows)
    write("criteria", options.output, result)


if __name__ == "__main__":
    main()
