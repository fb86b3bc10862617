"""LiteRT files stored without zeros: the conditions under which they are faster.

python benchmarks/sparse_litert.py

XNNPACK, which computes for LiteRT, has sparse kernels for 1x1 convolutions, and never runs them on
an x86 processor with AVX. So each file is timed twice: by LiteRT as it is installed, and by a copy
of it that is told there is no AVX (x86-64 alone; elsewhere the first is enough). Each model differs
in one thing from the one that fits.
"""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import contextlib
import importlib.util
import json
import pathlib
import platform
import shutil
import subprocess
import sys
import tempfile
from importlib.metadata import version

SPARSITY = 0.9
SIZE = 64
# A dense file that takes this many times as long as the sparse one: the sparse kernels ran.
RAN = 1.5


# -- Models ----------------------------------------------------------------------------------------


def parts():
    """The parts of the model that fits, by name."""
    from keras import layers

    return {
        "shape": (SIZE, SIZE, 3),
        "batch": 1,
        "start": lambda: [
            layers.ZeroPadding2D(1, name="pad"),
            layers.Conv2D(32, 3, strides=2, name="entry"),
        ],
        "activation": lambda: [layers.ReLU(6.0)],
        "point": lambda: [layers.Conv2D(128, 1)],
        "depthwise": lambda: [layers.DepthwiseConv2D(3, padding="same")],
        "merge": layers.Add,
        "leave": lambda: [layers.GlobalAveragePooling2D(keepdims=True, name="leave")],
        "tap": False,
    }


def chain(**changes):
    """A small MobileNet: an entry, two blocks with a shortcut around each, an average, classes."""
    import keras

    made = {**parts(), **changes}
    keras.utils.set_random_seed(0)
    inputs = keras.Input(made["shape"], batch_size=made["batch"], name="image")

    def follow(tensor, *factories):
        for factory in factories:
            for layer in factory():
                tensor = layer(tensor)
        return tensor

    x = follow(inputs, made["start"], made["activation"], made["point"], made["activation"])
    for _ in range(2):
        y = follow(x, made["depthwise"], made["activation"], made["point"])
        x = made["merge"]()([x, y]) if x.shape[1:3] == y.shape[1:3] else y
    outputs = keras.layers.Dense(10)(keras.layers.Flatten()(follow(x, made["leave"])))
    return keras.Model(inputs, [outputs, x] if made["tap"] else outputs, name="chain")


def variants():
    """`{what is different: parts of the model that are different}`."""
    import keras
    from keras import layers

    def start(*args, pad=1, **kwargs):
        padding = [layers.ZeroPadding2D(pad)] if pad else []
        return lambda: [*padding, layers.Conv2D(*args, name="entry", **kwargs)]

    def one(kind, *args, **kwargs):
        return lambda: [kind(*args, **kwargs)]

    def squeezed():
        class Squeeze:
            def __call__(self, tensors):
                x, y = tensors
                scale = layers.GlobalAveragePooling2D(keepdims=True)(y)
                scale = layers.Conv2D(128, 1, activation="sigmoid")(scale)
                return layers.Add()([x, layers.Multiply()([y, scale])])

        return Squeeze()

    depthwise = layers.DepthwiseConv2D
    return {
        "nothing": {},
        # Entry.
        "entry: padding='same', even size": {
            "start": start(32, 3, strides=2, padding="same", pad=0)
        },
        "entry: padding='same', odd size": {
            "start": start(32, 3, strides=2, padding="same", pad=0),
            "shape": (SIZE + 1, SIZE + 1, 3),
        },
        "entry: no padding": {"start": start(32, 3, strides=2, pad=0)},
        "entry: zeros below and right alone": {
            "start": start(32, 3, strides=2, pad=((0, 1), (0, 1)))
        },
        "entry: strides=1": {"start": start(32, 3)},
        "entry: 5x5": {"start": start(32, 5, strides=2, pad=2)},
        "entry: 1 channel": {"shape": (SIZE, SIZE, 1)},
        "entry: 4 channels": {"shape": (SIZE, SIZE, 4)},
        "entry: a 1x1": {"start": one(layers.Conv2D, 32, 1)},
        "entry: scaled before it": {
            "start": lambda: [layers.Rescaling(1 / 127.5, offset=-1.0), *parts()["start"]()]
        },
        "entry: activation inside": {"start": start(32, 3, strides=2, activation="relu")},
        "entry: BatchNormalization": {
            "start": lambda: [*parts()["start"](), layers.BatchNormalization()]
        },
        # Activations.
        **{
            f"activation: {name}": {"activation": one(layers.Activation, name)}
            for name in (
                "relu",
                "hard_swish",
                "sigmoid",
                "silu",
                "elu",
                "leaky_relu",
                "tanh",
                "gelu",
            )
        },
        "activation: ReLU up to 4": {"activation": one(layers.ReLU, 4.0)},
        "activation: PReLU": {"activation": one(layers.PReLU, shared_axes=[1, 2])},
        "activation: Softmax": {"activation": one(layers.Softmax)},
        # Depthwise convolutions.
        "depthwise: 5x5": {"depthwise": one(depthwise, 5, padding="same")},
        "depthwise: 7x7": {"depthwise": one(depthwise, 7, padding="same")},
        "depthwise: no padding": {"depthwise": one(depthwise, 3)},
        "depthwise: strides=2, padding='same'": {
            "depthwise": one(depthwise, 3, strides=2, padding="same")
        },
        "depthwise: strides=2, zeros around": {
            "depthwise": lambda: [layers.ZeroPadding2D(1), depthwise(3, strides=2)]
        },
        "depthwise: 5x5, strides=2, zeros around": {
            "depthwise": lambda: [layers.ZeroPadding2D(2), depthwise(5, strides=2)]
        },
        "depthwise: depth_multiplier=2": {
            "depthwise": one(depthwise, 3, padding="same", depth_multiplier=2)
        },
        "depthwise: dilation_rate=2": {
            "depthwise": one(depthwise, 3, padding="same", dilation_rate=2)
        },
        # 1x1 convolutions.
        "1x1: padding='same'": {"point": one(layers.Conv2D, 128, 1, padding="same")},
        "1x1: strides=2": {"point": one(layers.Conv2D, 128, 1, strides=2)},
        "1x1: groups=2": {"point": one(layers.Conv2D, 128, 1, groups=2)},
        "1x1: a 3x3 instead": {"point": one(layers.Conv2D, 128, 3, padding="same")},
        "1x1: BatchNormalization": {
            "point": lambda: [layers.Conv2D(128, 1), layers.BatchNormalization()]
        },
        # Merges, and other layers inside.
        "merge: none": {"merge": lambda: lambda tensors: tensors[1]},
        "merge: Multiply": {"merge": layers.Multiply},
        "merge: Subtract": {"merge": layers.Subtract},
        "merge: Maximum": {"merge": layers.Maximum},
        "merge: Average": {"merge": layers.Average},
        "merge: Concatenate": {"merge": layers.Concatenate},
        "merge: squeeze and excitation": {"merge": squeezed},
        "merge: BatchNormalization behind": {
            "merge": lambda: lambda t: layers.BatchNormalization()(layers.Add()(t))
        },
        "inside: Dropout": {"depthwise": lambda: [layers.Dropout(0.5), *parts()["depthwise"]()]},
        "inside: MaxPooling2D": {"depthwise": one(layers.MaxPooling2D, 3, 1, padding="same")},
        "inside: AveragePooling2D": {
            "depthwise": one(layers.AveragePooling2D, 3, 1, padding="same")
        },
        "inside: UpSampling2D, bilinear": {
            "depthwise": lambda: [
                layers.ZeroPadding2D(1),
                depthwise(3, strides=2),
                layers.UpSampling2D(2, interpolation="bilinear"),
            ]
        },
        "inside: UpSampling2D, nearest": {
            "depthwise": lambda: [
                layers.ZeroPadding2D(1),
                depthwise(3, strides=2),
                layers.UpSampling2D(2),
            ]
        },
        "inside: ZeroPadding2D before a 1x1": {
            "point": lambda: [layers.ZeroPadding2D(1), layers.Conv2D(128, 1)]
        },
        "inside: a product with a constant": {
            "merge": lambda: lambda t: layers.Rescaling(0.5)(layers.Add()(t))
        },
        # Exit.
        "exit: keepdims=False": {"leave": layers_of(layers.GlobalAveragePooling2D)},
        "exit: GlobalMaxPooling2D": {"leave": layers_of(layers.GlobalMaxPooling2D)},
        "exit: Flatten alone": {"leave": lambda: []},
        "exit: AveragePooling2D of all": {"leave": one(layers.AveragePooling2D, SIZE // 2)},
        "exit: the average of keras.ops": {
            "leave": lambda: [lambda x: keras.ops.mean(x, axis=(1, 2), keepdims=True)]
        },
        "exit: Dense(1000) just behind": {
            "leave": lambda: [layers.GlobalAveragePooling2D(), layers.Dense(1000)]
        },
        "exit: a 1x1 behind": {
            "leave": lambda: [
                layers.GlobalAveragePooling2D(keepdims=True),
                layers.Conv2D(1000, 1),
            ]
        },
        "exit: an output from inside": {"tap": True},
        # The model as a whole.
        "batch: any": {"batch": None},
        "batch: 4": {"batch": 4},
        "size: 224": {"shape": (224, 224, 3)},
        "channels: 64": {"point": one(layers.Conv2D, 64, 1)},
        "channels: 512": {"point": one(layers.Conv2D, 512, 1)},
    }


def layers_of(kind):
    return lambda: [kind()]


SPARSITIES = (0.5, 0.65, 0.7, 0.8, 0.95)
QUANTIZED = ("float16", "dynamic", "int8")


def pruned(model, sparsity):
    """The model with zeros in the 1x1 convolutions alone, fitting or not."""
    import tfprune

    class Pointwise(tfprune.PruningPolicy):
        def allow_pruning(self, layer):
            return tfprune.PruneForLatencyOnXNNPack().allow_pruning(layer)

    schedule = tfprune.ConstantSparsity.one_shot(sparsity)
    with contextlib.suppress(ValueError):  # Some variants leave nothing to prune.
        model = tfprune.prune_low_magnitude(model, schedule, pruning_policy=Pointwise())
        tfprune.UpdatePruningStep(model)
        model = tfprune.strip_pruning(model)
    return model


def cases():
    """Yields `(name, model, arguments of export)`."""
    for name, changes in variants().items():
        yield name, pruned(chain(**changes), SPARSITY), {}
    for sparsity in SPARSITIES:
        yield f"sparsity: {sparsity}", pruned(chain(), sparsity), {}
    for quantize in QUANTIZED:
        yield f"weights: {quantize}", pruned(chain(), SPARSITY), {"quantize": quantize}


def verdict(model):
    """Returns the objections of the policy to a model; empty if it fits."""
    import tfprune

    try:
        tfprune.PruneForLatencyOnXNNPack().ensure_model_supports_pruning(model)
    except ValueError as error:
        return str(error)
    return ""


def written(model, name, folder, options):
    """The same weights in a file with zeros and in one without, and the bytes of both."""
    import numpy as np

    import tfprune

    size = {}
    shape = tuple(n or 1 for n in model.inputs[0].shape)
    data = np.random.default_rng(0).normal(size=shape).astype("float32")
    for form in ("dense", "sparse"):
        path = folder / f"{name}.{form}.tflite"
        if not path.exists():
            sparse = form == "sparse"
            tfprune.export(model, path, sparse=sparse, data=data, samples=shape[0], **options)
        size[form] = path.stat().st_size
    return size


# -- Timing ----------------------------------------------------------------------------------------


def without_avx(folder):
    """Copies LiteRT, and lets the copy read from the processor that AVX is switched off."""
    package = pathlib.Path(importlib.util.find_spec("ai_edge_litert").origin).parent
    skipped = shutil.ignore_patterns("vendors", "aot", "libLiteRtWebGpu*")
    copy = pathlib.Path(shutil.copytree(package, folder / "ai_edge_litert", ignore=skipped))
    library = copy / "libpywrap_litert_common.so"
    code = library.read_bytes()
    # XGETBV says which registers the system saves; `xor eax, eax; nop` says none beyond SSE's.
    read, none = bytes.fromhex("0f01d0"), bytes.fromhex("31c090")
    if not 1 <= code.count(read) <= 4:
        raise RuntimeError(f"{library.name} is not built as expected: {code.count(read)} XGETBV")
    library.write_bytes(code.replace(read, none))
    return folder


def timed(folder, rounds, threads, path=None):
    """Median seconds of every file in a folder, from a process that imports LiteRT from `path`."""
    environment = {**os.environ, "PYTHONPATH": str(path or "")}
    command = [sys.executable, __file__, "--time", str(folder), str(rounds), str(threads)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(done.stderr)
    return json.loads(done.stdout.splitlines()[-1])


def time_files(folder, rounds, threads):
    """Runs the two forms of each model in turn; prints medians, or errors, as JSON."""
    import statistics
    import time

    found = {}
    for dense in sorted(pathlib.Path(folder).glob("*.dense.tflite")):
        name = dense.name.removesuffix(".dense.tflite")
        seconds: dict = {"dense": [], "sparse": []}
        try:
            ready = {
                form: opened(dense.with_name(f"{name}.{form}.tflite"), int(threads))
                for form in seconds
            }
        except RuntimeError as error:
            found[name] = {"error": str(error)}
            continue
        for _ in range(int(rounds)):
            for form, interpreter in ready.items():
                start = time.perf_counter()
                interpreter.invoke()
                seconds[form].append(time.perf_counter() - start)
        found[name] = {form: statistics.median(values) for form, values in seconds.items()}
        # Round by round: what slows down both falls out.
        pairs = zip(seconds["dense"], seconds["sparse"], strict=True)
        found[name]["ratio"] = statistics.median(dense / sparse for dense, sparse in pairs)
    print(json.dumps(found))


def opened(path, threads):
    """An interpreter that was run once."""
    import numpy as np
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(str(path), num_threads=threads)
    interpreter.allocate_tensors()
    entry = interpreter.get_input_details()[0]
    x = np.random.default_rng(0).normal(size=entry["shape"]).astype("float32")
    interpreter.set_tensor(entry["index"], x)
    interpreter.invoke()
    return interpreter


# -- All of it -------------------------------------------------------------------------------------


def measure(folder, rounds):
    rows = {}
    for number, (name, model, options) in enumerate(cases()):
        rows[name] = row = {"policy": verdict(model), "options": options}
        try:
            row["bytes"] = written(model, f"{number:03}", folder, options)
        except ValueError as error:
            # export checks each file, and says so where LiteRT cannot run it.
            row["refused"] = str(error)
            (folder / f"{number:03}.dense.tflite").unlink(missing_ok=True)
        print(f"{name}: {row.get('bytes') or row['refused']}", file=sys.stderr)
    package, hidden = folder / "package", None
    if platform.machine() == "x86_64":
        shutil.rmtree(package, ignore_errors=True)
        package.mkdir()
        hidden = without_avx(package)
    places = {"installed": (1, None)}
    if hidden:
        places |= {"without AVX": (1, hidden), "without AVX, 2 threads": (2, hidden)}
    for place, (threads, path) in places.items():
        measured = timed(folder, rounds, threads, path)
        for number, row in enumerate(rows.values()):
            if f"{number:03}" in measured:
                row[place] = measured[f"{number:03}"]
    key = "without AVX" if hidden else "installed"
    for row in rows.values():
        if key in row:
            times = row[key]
            row["ran sparse"] = times.get("ratio", 0) > RAN
    return rows


def ratio(row, key):
    if key not in row:
        return "-"
    if "error" in row[key]:
        return "cannot be run"
    dense, sparse = row[key]["dense"], row[key]["sparse"]
    return f"{row[key]['ratio']:.2f} ({1000 * dense:.1f} / {1000 * sparse:.1f})"


def main():
    from harness import arguments, show, write

    parser = arguments(__doc__)
    parser.set_defaults(rounds=31)
    parser.add_argument("--files", type=pathlib.Path, help="folder to keep files in, and to reuse")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        rows = measure(args.files or pathlib.Path(temporary), args.rounds)
    table = [
        (
            name,
            ratio(row, "installed"),
            ratio(row, "without AVX"),
            {True: "yes", False: "no"}.get(row.get("ran sparse"), "refused"),
            "no" if row["policy"] else "yes",
        )
        for name, row in rows.items()
    ]
    columns = ("what is different", "dense / sparse (ms)", "without AVX", "ran sparse", "policy")
    show(f"LiteRT, 1x1 convolutions at {SPARSITY}", columns, table)
    result = {"sparsity": SPARSITY, "ai-edge-litert": version("ai-edge-litert"), "models": rows}
    write("sparse_litert", args.output, result)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--time"]:
        time_files(*sys.argv[2:])
    else:
        main()
