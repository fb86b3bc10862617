"""Removes half of the filters of every model of keras.applications, and counts what remains."""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import gc
import re
import time
from collections import Counter

import keras
import numpy as np
from harness import arguments, show, write

import tfprune

NAMES = [
    name
    for name in dir(keras.applications)
    if name[0].isupper() and callable(getattr(keras.applications, name))
]


def layer_at(model, path):
    for name in path.split("/"):
        model = model.get_layer(name)
    return model


def smallest(model, group, share):
    """The channels of a group whose kernels have the smallest sums, all coupled layers together."""
    number = min(round(group.size * share), group.removable)
    scores = np.zeros(group.size)
    for member in group.members:
        if "kernel" in member.weight and not member.reads:
            weight = getattr(layer_at(model, member.layer), member.weight)
            value = np.abs(np.asarray(keras.ops.convert_to_numpy(weight)))
            others = tuple(axis for axis in range(value.ndim) if axis != member.axis)
            known = member.units >= 0
            np.add.at(scores, member.units[known], value.sum(axis=others)[known])
    scores[list(group.fixed)] = np.inf
    units = np.argsort(scores, kind="stable")[:number]
    for path_units in group.makers.values():
        # No layer may lose its last channel.
        if np.isin(path_units, units).all():
            units = np.setdiff1d(units, path_units[:1])
    return units


def why_whole(model, groups):
    """`{reason: number of groups}`, with classes in place of the names of layers."""
    found: Counter = Counter()
    for group in groups:
        if not group.removable:
            reason = Counter(group.fixed.values()).most_common(1)[0][0]
            found[re.sub("'([^']*)'", lambda m: type(layer_at(model, m[1])).__name__, reason)] += 1
    return dict(found)


def measure(name, share):
    """Costs before and after, and the groups, of one model at its usual input size."""
    make = getattr(keras.applications, name)
    model = make(weights=None, classifier_activation=None)
    if None in model.input_shape[1:]:
        # Multiplications can be counted only where the size is known.
        model = make(weights=None, classifier_activation=None, input_shape=(224, 224, 3))
    groups = tfprune.dependency_groups(model)
    channels: dict = {}
    for group in groups:
        units = smallest(model, group, share)
        for path, path_units in group.makers.items():
            channels[path] = np.flatnonzero(np.isin(path_units, units)).tolist()
    start = time.perf_counter()
    small = tfprune.remove_channels(model, channels)
    seconds = time.perf_counter() - start
    before, after = tfprune.model_cost(model), tfprune.model_cost(small)
    return {
        "input": list(model.input_shape[1:]),
        "parameters": [before.parameters, after.parameters],
        "macs": [before.macs, after.macs],
        "groups": len(groups),
        "groups that lose channels": sum(group.removable > 0 for group in groups),
        "stay whole": why_whole(model, groups),
        "seconds": round(seconds, 1),
    }


def main():
    parser = arguments(__doc__)
    parser.add_argument("--share", type=float, default=0.5, help="of the filters of every group")
    parser.add_argument("--models", nargs="*", default=NAMES, help="names of keras.applications")
    options = parser.parse_args()
    result, rows = {}, []
    for name in options.models:
        keras.utils.set_random_seed(0)
        found = result[name] = measure(name, options.share)
        cells = [
            f"{size / 1e6:,.1f} → {left / 1e6:,.1f} ({left / size:.0%})"
            for size, left in (found["parameters"], found["macs"])
        ]
        groups = f"{found['groups that lose channels']} of {found['groups']}"
        why = "; ".join(f"{number}: {reason}" for reason, number in found["stay whole"].items())
        rows.append([name, *cells, groups, why])
        # As for the README of the benchmarks, and as a sign of life.
        print("| " + " | ".join(rows[-1]) + " |", flush=True)
        keras.backend.clear_session()
        gc.collect()
    columns = ["model", "parameters, M", "MACs, M", "groups that lose channels", "stay whole"]
    show(f"{options.share:.0%} of the filters removed", columns, rows)
    write("applications", options.output, {"share": options.share, "models": result})


if __name__ == "__main__":
    main()
