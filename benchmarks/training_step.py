"""A training step, pruned and dense, in tfprune and in tfmot: five Dense(1024), batch 128.

Beside the time that passed stands the processor time, summed over all cores: on a machine that
other programs slow down, it is the steadier of the two. tfmot runs on tf_keras in a process of its
own; each library is compared with the dense model of its own Keras, all sides in turn.
"""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import argparse
import json
import subprocess
import sys
import time
import warnings

import numpy as np
from harness import arguments, milliseconds, ratios, show, summary, write

FREQUENCIES = (100, 10, 1)
STEPS, BATCH, WIDTH = 40, 128, 1024
LIBRARIES = ("tfprune", "tfmot")


def train(library, rounds):
    """Seconds of one step of each side, `rounds` times: `(passed, of the processor)`."""
    if library == "tfmot":
        import tensorflow_model_optimization as tfmot
        import tf_keras as keras

        library_of = tfmot.sparsity.keras
    else:
        import keras

        import tfprune as library_of

    warnings.simplefilter("ignore")
    rng = np.random.default_rng(0)
    x = rng.standard_normal((STEPS * BATCH, WIDTH), dtype="float32")
    y = rng.standard_normal((STEPS * BATCH, WIDTH), dtype="float32")

    def side(frequency):
        keras.utils.set_random_seed(0)
        dense = [keras.layers.Dense(WIDTH, activation="relu") for _ in range(5)]
        model, callbacks = keras.Sequential([keras.layers.InputLayer((WIDTH,)), *dense]), []
        if frequency is not None:
            # A ramp longer than the run: every update that is due has something to prune.
            schedule = library_of.PolynomialDecay(
                0.0, 0.9, 0, (rounds + 2) * STEPS, frequency=frequency
            )
            model = library_of.prune_low_magnitude(model, schedule)
            callbacks = [library_of.UpdatePruningStep()]
        model.compile("adam", "mse")
        return lambda: model.fit(
            x, y, batch_size=BATCH, verbose=0, shuffle=False, callbacks=callbacks
        )

    sides = {"dense": side(None), **{str(f): side(f) for f in FREQUENCIES}}
    seconds, processor = {name: [] for name in sides}, {name: [] for name in sides}
    for turn in range(rounds + 1):
        for name, fit in sides.items():
            start, used = time.perf_counter(), time.process_time()
            fit()
            if turn:
                seconds[name].append((time.perf_counter() - start) / STEPS)
                processor[name].append((time.process_time() - used) / STEPS)
    return seconds, processor


def shown(ratio):
    return f"{ratio['median']:.2f} ({ratio['low']:.2f} to {ratio['high']:.2f})"


def main():
    parser = arguments(__doc__)
    parser.add_argument("--library", choices=LIBRARIES, help=argparse.SUPPRESS)
    parser.add_argument(
        "--only", choices=LIBRARIES, help="measure this one, and keep the numbers of the other"
    )
    options = parser.parse_args()
    if options.library:
        print(json.dumps(train(options.library, options.rounds)))
        return
    result, rows = {}, []
    if options.only:
        result = json.loads((options.output / "training_step.json").read_text())
    for library in [options.only] if options.only else LIBRARIES:
        command = [sys.executable, __file__, "--library", library]
        done = subprocess.run(
            [*command, "--rounds", str(options.rounds)], stdout=subprocess.PIPE, check=True
        )
        seconds, processor = json.loads(done.stdout.splitlines()[-1])
        result[library] = {
            kind: {name: {**summary(v), "least": min(v)} for name, v in found.items()}
            for kind, found in (("seconds", seconds), ("processor seconds", processor))
        }
        rows.append((library, "dense", milliseconds(seconds["dense"]), "", "", ""))
        for frequency in map(str, FREQUENCIES):
            ratio = ratios(seconds[frequency], seconds["dense"])
            fastest = min(seconds[frequency]) / min(seconds["dense"])
            name = f"frequency {frequency}"
            used = ratios(processor[frequency], processor["dense"])
            result[library][name] = {**ratio, "fastest": fastest, "processor": used}
            rows.append(
                (
                    library,
                    name,
                    milliseconds(seconds[frequency]),
                    shown(ratio),
                    f"{fastest:.2f}",
                    shown(used),
                )
            )
    show(
        "A training step: five Dense(1024), batch 128, Adam",
        (
            "library",
            "side",
            "milliseconds (quartiles)",
            "pruned / dense (quartiles)",
            "fastest rounds",
            "processor time (quartiles)",
        ),
        rows,
    )
    write("training_step", options.output, result)


if __name__ == "__main__":
    main()
