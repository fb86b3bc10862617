"""Masks chosen where the weights are, against masks through the host.

`KERAS_BACKEND=jax python benchmarks/device_masks.py`, likewise torch or tensorflow; each package
alone is enough, on a CPU as on a GPU. Sizes are millions of weights, in matrices of at most
4,096 x 4,096.
"""

import os

os.environ.setdefault("KERAS_BACKEND", "jax")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import math
import time

import keras
import numpy as np
from harness import arguments, interleave, milliseconds, ratios, show, summary, write
from keras import ops

from tfprune import _keras, criteria, patterns
from tfprune.masks import DeviceRequest, MaskRequest, masks_in_groups

SPARSITY = 0.8
COMPILED = 200
SIDES = {
    "local": ("local", patterns.get(None)),
    "global": ("global", patterns.get(None)),
    "2:4": ("local", patterns.NOfM(2, 4)),
    "4 x 4 blocks": ("global", patterns.Block((4, 4))),
}


def matrices(millions):
    """Tensors of so many million weights together, on the device."""
    left, found, generator = int(millions * 1e6), [], np.random.default_rng(0)
    while left >= 4 * 4096:
        # Whole groups of four, for 2:4.
        rows = min(4096, left // 16384 * 4)
        found.append(
            ops.convert_to_tensor(generator.standard_normal((rows, 4096), dtype="float32"))
        )
        left -= rows * 4096
    return found


def share_of(pattern):
    return 0.5 if isinstance(pattern, patterns.NOfM) else SPARSITY


def groups_of(requests, scope, share):
    groups = [requests] if scope == "global" else [[request] for request in requests]
    return [(group, int(share * sum(r.units for r in group)), None) for group in groups]


def through_the_host(tensors, scope, pattern):
    """Copies weights to the host, chooses, and copies the masks back."""
    axes = patterns.KernelAxes().resolve(2)
    requests = [
        MaskRequest(_keras.on_host(tensor), pattern, criteria.get(None), axes) for tensor in tensors
    ]
    groups = groups_of(requests, scope, share_of(pattern))
    found = [kept for masks, _ in masks_in_groups(groups) for kept in masks]
    masks = [ops.convert_to_tensor(r.spread(kept)) for r, kept in zip(requests, found, strict=True)]
    wait(masks)


def on_the_device(tensors, scope, pattern):
    axes = patterns.KernelAxes().resolve(2)
    requests = [
        DeviceRequest(tensor, pattern, criteria.get(None), axes, None, 0) for tensor in tensors
    ]
    found = masks_in_groups(groups_of(requests, scope, share_of(pattern)))
    found = [kept for masks, _ in found for kept in masks]
    wait([r.spread(kept) for r, kept in zip(requests, found, strict=True)])


def wait(tensors):
    """Waits until the last of some tensors is computed."""
    _keras.on_host(ops.sum(tensors[-1]))


def bandwidth(tensors):
    """Bytes a second, read and written, of a copy on the device."""
    (largest,) = sorted(tensors, key=lambda tensor: -math.prod(tensor.shape))[:1]
    run = _keras.compiled(lambda tensor: tensor + 1)
    seconds = interleave({"copy": lambda: wait([run(largest)])}, 5)["copy"]
    return 2 * 4 * math.prod(largest.shape) / summary(seconds)["median"]


def compile_seconds():
    """Seconds until the first masks of many small weights of eight shapes are there."""
    generator = np.random.default_rng(0)
    tensors = [
        ops.convert_to_tensor(generator.standard_normal((16 + n % 8, 32), dtype="float32"))
        for n in range(COMPILED)
    ]
    start = time.perf_counter()
    on_the_device(tensors, "global", patterns.get(None))
    return time.perf_counter() - start


def main():
    parser = arguments(__doc__)
    parser.add_argument("--millions", type=float, nargs="+", default=[8, 80, 200])
    options = parser.parse_args()
    result, rows = {"compile 200 weights, seconds": compile_seconds()}, []
    for millions in options.millions:
        tensors = matrices(millions)
        own = result[f"{millions:g} million"] = {"copy, bytes a second": bandwidth(tensors)}
        for name, (scope, pattern) in SIDES.items():
            seconds = interleave(
                {
                    "host": lambda t=tensors, s=scope, p=pattern: through_the_host(t, s, p),
                    "device": lambda t=tensors, s=scope, p=pattern: on_the_device(t, s, p),
                },
                options.rounds,
            )
            ratio = ratios(seconds["host"], seconds["device"])
            own[name] = {side: summary(values) for side, values in seconds.items()}
            own[name]["host / device"] = ratio
            spread = f"{ratio['median']:.2f} ({ratio['low']:.2f} to {ratio['high']:.2f})"
            shown = [milliseconds(seconds[side]) for side in ("host", "device")]
            rows.append((f"{millions:g} M, {name}", *shown, spread))
        del tensors
    places = _keras.on_accelerator(keras.Variable([0.0]))
    where = f"{keras.backend.backend()}, {'GPU or TPU' if places else 'CPU'}"
    result["where"] = where
    show(
        f"Masks of magnitude, {where}; compile {COMPILED} weights: "
        f"{result['compile 200 weights, seconds']:.1f} s",
        ("weights", "host, ms (quartiles)", "device, ms (quartiles)", "host / device"),
        rows,
    )
    kind = "accelerator" if places else "cpu"
    write(f"device_masks_{keras.backend.backend()}_{kind}", options.output, result)


if __name__ == "__main__":
    main()
