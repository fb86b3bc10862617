"""Checks every family of KerasHub: pruning small random models in every way."""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import argparse
import gc
import json
import pathlib
import subprocess
import sys
import tempfile
import time
import warnings

import keras
import kerashub_models as samples
import kerashub_shrink
import numpy as np
from harness import RESULTS, show, write

import tfprune

# In the order of the table.
COLUMNS = {
    "class": "the result is of the model's class",
    "wrap": "same outputs as before",
    "train": "trained by fit, exactly sparse",
    "strip": "same outputs and class without masks",
    "ties": "as many variables as before",
    "load": "saved, and loaded in a new process",
    "plain": "the same without masks",
    "generate": "same tokens before and after the masks are taken off",
    "2:4": "every group has two zeros",
    "taylor": "pruned by gradients on data",
    "LoRA first": "pruned with LoRA weights, sparse in files too",
    "LoRA later": "given LoRA weights while pruned",
}
HALF = tfprune.ConstantSparsity(0.5, begin_step=0)
NOT_APPLICABLE = None


def values(structure):
    """The arrays in a structure."""
    return [keras.ops.convert_to_numpy(tensor) for tensor in keras.tree.flatten(structure)]


def outputs(model, inputs):
    return values(model(inputs, training=False))


def same(one, other):
    return len(one) == len(other) and all(
        np.array_equal(a, b, equal_nan=True) for a, b in zip(one, other, strict=True)
    )


def exact(model, sparsity=0.5):
    """Whether each weight has its zeros, and nothing else where it is masked."""
    for weight in model.pruned_weights:
        mask = keras.ops.convert_to_numpy(weight.mask)
        if keras.ops.convert_to_numpy(weight.variable)[~mask].any():
            return False
        parts = list(mask) if weight.axes.experts else [mask]
        for part in parts:
            kept = max(1, round(part.size * (1 - sparsity)))
            if np.count_nonzero(part) != kept:
                return False
    return True


class Checks:
    """All checks of one model.

    Args:
        sample: A `Sample`.
        folder: Folder for files that a new process is to load.
    """

    def __init__(self, sample, folder):
        self.sample, self.folder = sample, folder
        self.model = sample.make()
        self.inputs = samples.inputs_for(self.model)
        self.loss, self.targets = samples.targets_for(self.model, self.inputs)
        self.before = outputs(self.model, self.inputs)

    def fit(self, model, epochs=2):
        """Trains a model with all samples in one batch."""
        model.compile(optimizer="adam", loss=self.loss)
        callback = tfprune.UpdatePruningStep()
        model.fit(
            self.inputs,
            self.targets,
            batch_size=4,
            epochs=epochs,
            verbose=0,
            callbacks=[callback],
        )

    def trains(self):
        # KerasHub has no training for it.
        return self.sample.family != "SAM"

    def run(self):
        """Returns `{column: True, False or NOT_APPLICABLE}`, and the errors."""
        found, errors = {}, {}
        steps = (self.whole, self.n_of_m, self.taylor, self.lora_first, self.lora_later)
        for step in steps:
            try:
                found.update(step())
            except Exception as error:
                errors[step.__name__] = f"{type(error).__name__}: {error}"[:300]
        return found, errors

    def whole(self):
        schedule = tfprune.PolynomialDecay(0.0, 0.5, begin_step=0, end_step=2, frequency=1)
        pruned = tfprune.prune_low_magnitude(self.model, schedule)
        found = {"class": isinstance(pruned, type(self.model))}
        found["wrap"] = same(outputs(pruned, self.inputs), self.before)
        if self.trains():
            self.fit(pruned)
        else:
            callback = tfprune.UpdatePruningStep(pruned)
            callback.step(), callback.step()
        found["train"] = exact(pruned) and pruned.pruning_step == 2
        found["train"] &= same(outputs(self.model, self.inputs), self.before)
        plain = tfprune.strip_pruning(pruned)
        now = outputs(pruned, self.inputs)
        found["strip"] = type(plain) is type(self.model) and same(outputs(plain, self.inputs), now)
        found["ties"] = _variables(plain) == _variables(self.model)
        found["ties"] &= len({id(weight.variable) for weight in pruned.pruned_weights}) == len(
            pruned.pruned_weights
        )
        name = self.folder / self.sample.name.replace(" ", "_")
        np.savez(name.with_suffix(".npz"), *now)
        pruned.save(name.with_suffix(".keras"))
        plain.save(name.with_suffix(".plain.keras"))
        if samples.generates(self.model):
            tokens = [samples.generated(model) for model in (pruned, plain)]
            found["generate"] = bool(np.array_equal(*tokens))
        self.share = sum(w.size for w in pruned.pruned_weights) / self.model.count_params()
        return found

    def n_of_m(self):
        alone = {layer.name for layer in _flat(self.model) if _has_nothing_to_group(layer)}
        rules = [tfprune.Rule(name, prune=False) for name in sorted(alone)]
        pruned = tfprune.prune_low_magnitude(self.model, HALF, sparsity_m_by_n=(2, 4), rules=rules)
        tfprune.UpdatePruningStep(pruned)
        return {"2:4": all(map(_grouped, pruned.pruned_weights))}

    def taylor(self):
        if not self.trains():
            return {"taylor": NOT_APPLICABLE}
        # The pooler of an encoder has no part in a loss on tokens.
        names = [layer.name for layer in _flat(self.model) if layer.name == "pooled_dense"]
        masked = "Masked" in type(self.model).__name__
        rules = [tfprune.Rule(name, prune=False) for name in names if masked]
        pruned = tfprune.prune_low_magnitude(
            self.model, HALF, criterion="taylor", scope="global", rules=rules
        )
        pruned.compile(optimizer="adam", loss=self.loss)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            data = (self.inputs, self.targets)
            tfprune.UpdatePruningStep(pruned, data=data, batch_size=4)
        zeros = sum(weight.zeros for weight in pruned.pruned_weights)
        size = sum(weight.size for weight in pruned.pruned_weights)
        return {"taylor": zeros == size - round(size / 2)}

    def lora_first(self):
        model = self.sample.make()
        if not _enable_lora(model):
            return {"LoRA first": NOT_APPLICABLE}
        pruned = tfprune.prune_low_magnitude(model, HALF)
        self.fit(pruned, epochs=1)
        return {"LoRA first": self._sparse_with_lora(pruned)}

    def lora_later(self):
        pruned = tfprune.prune_low_magnitude(self.model, HALF)
        tfprune.UpdatePruningStep(pruned)
        if not _enable_lora(pruned):
            return {"LoRA later": NOT_APPLICABLE}
        self.fit(pruned, epochs=1)
        return {"LoRA later": self._sparse_with_lora(pruned)}

    def _sparse_with_lora(self, pruned):
        """Whether all sums of kernels and LoRA weights are masked, here and in a file."""
        weights = [w for w in pruned.pruned_weights if getattr(w.layer, "lora_enabled", False)]
        moved = any(values(w.layer.lora_kernel_b)[0].any() for w in weights)
        sparse = all(
            not values(w.layer.kernel)[0][~keras.ops.convert_to_numpy(w.mask)].any()
            for w in weights
        )
        path = self.folder / "lora.weights.h5"
        pruned.save_weights(path)
        again = tfprune.prune_low_magnitude(self.sample.make(), HALF)
        again.load_weights(path)
        close = all(
            np.allclose(a, b, atol=1e-5)
            for a, b in zip(outputs(again, self.inputs), outputs(pruned, self.inputs), strict=True)
        )
        return bool(weights) and moved and sparse and exact(again) and close


def _variables(model):
    return len({id(variable) for variable in model.weights})


def _grouped(weight):
    """Whether two of every four neighbours along the axis of the product are masked."""
    mask = keras.ops.convert_to_numpy(weight.mask)
    axes = weight.axes.of_product.resolve(mask.ndim)
    inputs = tuple(axis for axis in axes.inputs if axis not in axes.outputs)
    others = tuple(axis for axis in range(mask.ndim) if axis not in inputs)
    length = int(np.prod([mask.shape[axis] for axis in inputs]))
    columns = mask.transpose(*others, *inputs).reshape(-1, length)
    whole = columns.shape[1] // 4 * 4
    groups = columns[:, :whole].reshape(-1, 4)
    return bool((groups.sum(axis=1) == 2).all())


def _has_nothing_to_group(layer):
    """Whether each output of a convolution sees one input."""
    by_channel = (keras.layers.DepthwiseConv2D, keras.layers.SeparableConv2D)
    if isinstance(layer, by_channel):
        return True
    return isinstance(layer, keras.layers.Conv2D) and layer.built and layer.kernel.shape[-2] == 1


def _enable_lora(model):
    """Gives a model's backbone LoRA weights; whether it has layers for them."""
    backbone = getattr(model, "backbone", model)
    names = backbone.default_lora_layer_names()
    found = [layer for layer in _flat(backbone) if layer.name in names]
    if not any(hasattr(layer, "enable_lora") and layer.weights for layer in found):
        return False
    backbone.enable_lora(2)
    return True


def _flat(layer):
    seen = {}
    stack = [layer]
    while stack:
        holder = stack.pop()
        if id(holder) in seen:
            continue
        seen[id(holder)] = holder
        for value in [*vars(holder).values(), getattr(holder, "layers", [])]:
            for item in value if isinstance(value, (list, tuple)) else [value]:
                if isinstance(item, keras.layers.Layer):
                    stack.append(item)
    return list(seen.values())


def load(folder):
    """In a new process: whether each saved model computes the same as before."""
    import keras_hub  # noqa: F401

    found = {}
    for path in sorted(folder.glob("*.npz")):
        name = path.stem.replace("_", " ")
        (sample,) = [item for item in samples.SAMPLES if item.name == name]
        with np.load(path) as arrays:
            expected = [arrays[key] for key in arrays.files]
        made = sample.make()
        inputs = samples.inputs_for(made)
        found[name] = {}
        for column, suffix in (("load", ".keras"), ("plain", ".plain.keras")):
            model = keras.saving.load_model(path.with_suffix(suffix))
            fine = isinstance(model, type(made)) and same(outputs(model, inputs), expected)
            if column == "load":
                fine = fine and model.pruning_step == 2 and exact(model)
            found[name][column] = bool(fine)
    print(json.dumps(found))


def load_elsewhere(folder):
    """Runs `load` in a new process."""
    done = subprocess.run(
        [sys.executable, __file__, "--load", str(folder)], capture_output=True, text=True
    )
    if done.returncode:
        raise RuntimeError(done.stderr[-3000:])
    return json.loads(done.stdout.strip().splitlines()[-1])


def chosen(names=None, quick=False):
    """Lists the samples of some families, of all by default."""
    return [
        sample
        for sample in samples.SAMPLES
        if (not names or sample.family in names) and (not quick or sample.quick)
    ]


def measure(sample, folder):
    """The row of a sample, without the columns that a new process fills in."""
    keras.utils.set_random_seed(0)
    start = time.perf_counter()
    checks = Checks(sample, folder)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found, errors = checks.run()
    row = {
        "family": sample.family,
        "found": found,
        "errors": errors,
        "share masked": round(getattr(checks, "share", 0.0), 3),
        "seconds": round(time.perf_counter() - start, 1),
    }
    keras.backend.clear_session()
    gc.collect()
    return row


def cell(row, column):
    value = row["found"].get(column, "missing")
    return {True: "yes", False: "no", None: "", "missing": "fails"}[value]


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--families", nargs="*", help="names of families, all by default")
    parser.add_argument("--quick", action="store_true", help="the part that runs in CI")
    parser.add_argument("--shrink", action="store_true", help="what shrinking removes instead")
    parser.add_argument("--output", type=pathlib.Path, default=RESULTS, help="folder for JSON")
    parser.add_argument("--load", type=pathlib.Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.load:
        load(options.load)
        return
    if options.shrink:
        kerashub_shrink.run(options.output)
        return
    rows = {}
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        for sample in chosen(options.families, options.quick):
            rows[sample.name] = measure(sample, folder)
            print(sample.name, rows[sample.name], flush=True)
        for name, found in load_elsewhere(folder).items():
            rows[name]["found"].update(found)
    for row in rows.values():
        if "generate" not in row["found"] and "whole" not in row["errors"]:
            row["found"]["generate"] = NOT_APPLICABLE
    columns = ["model", *COLUMNS]
    table = [[name, *(cell(row, column) for column in COLUMNS)] for name, row in rows.items()]
    show("KerasHub", columns, table)
    good = [
        name
        for name, row in rows.items()
        if all(row["found"].get(column, False) is not False for column in COLUMNS)
    ]
    families = {row["family"] for row in rows.values()}
    whole = families - {row["family"] for name, row in rows.items() if name not in good}
    print(f"{len(good)} of {len(rows)} models, {len(whole)} of {len(families)} families")
    for row in table:
        print("| " + " | ".join(row) + " |")
    result = {"backend": keras.backend.backend(), "models": rows}
    backend = keras.backend.backend()
    if not options.quick:
        write(
            "kerashub" + ("" if backend == "tensorflow" else f"_{backend}"), options.output, result
        )


if __name__ == "__main__":
    main()
