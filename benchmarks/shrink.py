"""Shrunk models: multiplications saved, and seconds saved, in Keras and in LiteRT; accuracy.

python benchmarks/shrink.py speed                     latency of dense, masked and shrunk models
python benchmarks/shrink.py cifar10 --data FOLDER     half of the MACs of a small ResNet
"""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import contextlib
import functools
import pathlib
import sys
import time
import warnings

import keras
import numpy as np
from accuracy_tasks import compiled, data_set, small_resnet
from harness import arguments, interleave, milliseconds, ratios, show, summary, write

import tfprune

SHARES = (0.3, 0.5, 0.7)
# With glibc's own settings, large batches spend their time on page faults: the same for all sides.
MALLOC = {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": str(1 << 36)}


# -- Speed -----------------------------------------------------------------------------------------


def transformer(width=256, heads=8, length=64, blocks=4):
    """An encoder that normalizes before each part."""
    layers = keras.layers
    inputs = keras.Input((length, 32))
    x = layers.Dense(width)(inputs)
    for _ in range(blocks):
        y = layers.LayerNormalization()(x)
        x = x + layers.MultiHeadAttention(heads, width // heads)(y, y)
        y = layers.LayerNormalization()(x)
        x = x + layers.Dense(width)(layers.Dense(4 * width, activation="gelu")(y))
    return keras.Model(inputs, layers.Dense(10)(layers.GlobalAveragePooling1D()(x)))


def application(name, size, classes=1000):
    build = getattr(keras.applications, name)
    shape = {"input_shape": (size, size, 3), "classes": classes}
    return lambda: build(weights=None, classifier_activation=None, **shape)


MODELS = {
    "VGG16-CIFAR": application("VGG16", 32, 10),
    "ResNet50": application("ResNet50", 224),
    "MobileNetV2": application("MobileNetV2", 224),
    "EfficientNetB0": application("EfficientNetB0", 224),
    "Transformer": transformer,
    "ResNet20-CIFAR": small_resnet,
}


def pruned(model, share, round_to):
    """The model with this share of the filters of every group silent."""
    schedule = tfprune.ConstantSparsity.one_shot(share)
    pattern = tfprune.Filter(round_to=round_to)
    wrapped = tfprune.prune_low_magnitude(model, schedule, pattern=pattern)
    tfprune.UpdatePruningStep(wrapped)
    return wrapped


def in_keras(model, x):
    model.predict_on_batch(x)
    return lambda: model.predict_on_batch(x)


@functools.cache
def converted(model):
    import tensorflow as tf

    with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere):
        return tf.lite.TFLiteConverter.from_keras_model(model).convert()


def in_litert(model, x):
    """A function that runs the converted model, after its outputs were compared with Keras's."""
    import tensorflow as tf

    interpreter = tf.lite.Interpreter(model_content=converted(model), num_threads=2)
    (entry,) = interpreter.get_input_details()
    interpreter.resize_tensor_input(entry["index"], x.shape, strict=False)
    interpreter.allocate_tensors()
    (out,) = interpreter.get_output_details()
    interpreter.set_tensor(entry["index"], x)
    interpreter.invoke()
    truth = np.asarray(model.predict_on_batch(x))
    off = np.abs(interpreter.get_tensor(out["index"]) - truth).max()
    assert off <= 1e-3 * np.abs(truth).max(), f"LiteRT is {off} off"
    return interpreter.invoke


def speed(options):
    warnings.simplefilter("ignore")
    result: dict = {"rounds": options.rounds, "round_to": options.round_to}
    for name in options.models:
        keras.utils.set_random_seed(0)
        dense = MODELS[name]()
        start = time.perf_counter()
        wrapped = pruned(dense, 0.5, 1)
        between = time.perf_counter()
        half = tfprune.plan_shrink(wrapped)
        half.apply()
        planning = time.perf_counter() - between
        sides = {"dense": dense, "masked 50 %": tfprune.strip_pruning(wrapped)}
        macs = {"dense": half.before.macs, "masked 50 %": half.before.macs}
        for share in SHARES:
            for step in sorted({1, options.round_to}):
                side = f"shrunk {share:.0%}" + (f", multiples of {step}" if step > 1 else "")
                sides[side] = tfprune.shrink(pruned(dense, share, step))
                macs[side] = tfprune.model_cost(sides[side]).macs
        result[name] = {
            "pruning, seconds": between - start,
            "planning and shrinking, seconds": planning,
            "macs": macs,
        }
        for batch in options.batches:
            random = np.random.default_rng(0)
            x = random.normal(size=(batch, *dense.input_shape[1:])).astype("float32")
            for runtime, prepare in (("Keras", in_keras), ("LiteRT", in_litert)):
                ready = {side: prepare(model, x) for side, model in sides.items()}
                seconds = interleave(ready, options.rounds)
                rows, found = [], {}
                for side in sides:
                    faster = ratios(seconds["dense"], seconds[side])
                    saved = macs["dense"] / macs[side]
                    found[side] = {
                        "seconds": summary(seconds[side]),
                        "faster": faster,
                        "fewer MACs": saved,
                        "faster / fewer MACs": faster["median"] / saved,
                    }
                    rows.append(
                        [
                            side,
                            milliseconds(seconds[side]),
                            f"{saved:.2f}",
                            f"{faster['median']:.2f} ({faster['low']:.2f} to {faster['high']:.2f})",
                            f"{faster['median'] / saved:.2f}",
                        ]
                    )
                title = f"{name}, {runtime}, batch {batch}"
                columns = ["", "milliseconds", "fewer MACs", "times as fast", "of the MACs"]
                show(title, columns, rows)
                result[name][f"{runtime}, batch {batch}"] = found
                del ready
        converted.cache_clear()
        keras.backend.clear_session()
        write("shrink_speed", options.output, result)


# -- Accuracy --------------------------------------------------------------------------------------


def cifar10(options):
    """Dense, pruned gradually to half of the MACs and shrunk, or pruned at once and fine-tuned."""
    warnings.simplefilter("ignore")
    (x, y), (x_test, y_test) = data_set("cifar10", options.data)
    x, y = x[: options.images], y[: options.images]
    epochs, more = options.epochs - options.epochs // 3, options.epochs // 3
    steps = -(-len(x) // 64)

    def fit(model, epochs, callbacks=()):
        decay = keras.optimizers.schedules.CosineDecay(2e-3, epochs * steps)
        compiled(model, keras.optimizers.Adam(decay))
        model.fit(x, y, batch_size=64, epochs=epochs, verbose=0, callbacks=list(callbacks))

    def measured(model):
        return float(model.evaluate(x_test, y_test, batch_size=500, verbose=0)[1])

    keras.utils.set_random_seed(options.seeds[0])
    base = small_resnet()
    fit(base, epochs)
    # All sides train for as long as the dense model does in the end.
    longer = tfprune.strip_pruning(base)
    fit(longer, more)
    models, accuracy = {"dense": longer}, {"dense": measured(longer)}
    target = tfprune.plan_shrink(base, {"macs": 0.5}).sparsity

    def gradual():
        end = steps * more // 2
        # Half of the time the filters go, then the last of them settle, then the small model.
        schedule = tfprune.PolynomialDecay(0.0, target, 0, end, frequency=20)
        wrapped = tfprune.prune_low_magnitude(base, schedule, pattern="filter")
        fit(wrapped, more - more // 3, [tfprune.UpdatePruningStep()])
        small = tfprune.shrink(wrapped)
        return small, more // 3

    sides = {
        "gradual, shrunk, fine-tuned": gradual,
        "L1Filter, shrunk, fine-tuned": lambda: (
            tfprune.shrink(base, {"macs": 0.5}, criterion="l1_filter"),
            more,
        ),
        "FPGM, shrunk, fine-tuned": lambda: (
            tfprune.shrink(base, {"macs": 0.5}, criterion="fpgm"),
            more,
        ),
    }
    for name, side in sides.items():
        keras.utils.set_random_seed(options.seeds[0])
        small, left = side()
        fit(small, left)
        models[name], accuracy[name] = small, measured(small)
        print(name, accuracy[name], flush=True)
    batch = x_test[:32].astype("float32")
    ready = {name: in_keras(model, batch) for name, model in models.items()}
    seconds = interleave(ready, options.rounds)
    result, rows = {}, []
    for name, model in models.items():
        cost = tfprune.model_cost(model)
        faster = ratios(seconds["dense"], seconds[name])
        result[name] = {
            "accuracy": accuracy[name],
            "parameters": cost.parameters,
            "macs": cost.macs,
            "seconds, batch 32": summary(seconds[name]),
            "faster": faster,
        }
        rows.append(
            [
                name,
                f"{accuracy[name]:.4f}",
                f"{cost.parameters:,}",
                f"{cost.macs:,}",
                milliseconds(seconds[name]),
                f"{faster['median']:.2f}",
            ]
        )
    columns = ["", "accuracy", "parameters", "MACs", "ms, batch 32", "times as fast"]
    show("CIFAR-10, ResNet-20, half of the MACs", columns, rows)
    budget = {"images": len(x), "epochs": [epochs, more], "seeds": options.seeds}
    write("shrink_cifar10", options.output, {**budget, "models": result})


THEMES = {"speed": speed, "cifar10": cifar10}


def main():
    parser = arguments(__doc__)
    parser.add_argument("theme", choices=THEMES)
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS))
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 8, 32])
    parser.add_argument("--round-to", type=int, default=8)
    parser.add_argument("--data", type=pathlib.Path, help="cifar10: folder with cifar10.npz")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--images", type=int, default=50_000)
    parser.add_argument("--epochs", type=int, default=30)
    options = parser.parse_args()
    if os.environ.get("MALLOC_MMAP_MAX_") != "0":
        os.execve(sys.executable, [sys.executable, *sys.argv], {**os.environ, **MALLOC})
    THEMES[options.theme](options)


if __name__ == "__main__":
    main()
