"""Calls the whole public API with valid, borderline and senseless arguments.

    python benchmarks/fuzz.py --calls 20000

Every call has to succeed, or to raise ValueError, TypeError, OSError or ImportError with a message
in the order "Expected ... Received: ... How to mend". A model that was passed in stays as it was,
and a mask has the sparsity that was asked for. Calls come from fixed seeds: `--first N` goes on
with the N-th, so that a finding can be looked at alone.
"""

import argparse
import collections
import contextlib
import io
import json
import os
import pathlib
import sys
import tempfile
import warnings

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import harness
import keras
import numpy as np
from keras import layers

import tfprune
from tfprune._base.files import written_atomically
from tfprune._layers import facts

FINE = (ValueError, TypeError, OSError, ImportError)
# Python's own words for a call that does not fit a signature.
SIGNATURE = ("positional argument", "unexpected keyword", "required keyword", "multiple values")


class Text(str):
    """A text of a class of its own."""


def models():
    """`{name: function}` that makes small models of several kinds."""
    return {
        "dense": lambda: keras.Sequential(
            [keras.Input((6,)), layers.Dense(4, name="a"), layers.Dense(2, name="b")]
        ),
        "convolutions": lambda: keras.Sequential(
            [
                keras.Input((6, 6, 2)),
                layers.Conv2D(4, 3, name="conv"),
                layers.BatchNormalization(name="norm"),
                layers.DepthwiseConv2D(3, name="depthwise"),
                layers.GlobalAveragePooling2D(),
                layers.Dense(2, name="head"),
            ]
        ),
        "empty": lambda: keras.Sequential([keras.Input((4,)), layers.Activation("relu")]),
        "unbuilt": lambda: keras.Sequential([layers.Dense(2)]),
    }


def odd(random):
    """A value that fits nowhere in particular."""
    values = [
        None,
        True,
        0,
        -1,
        1,
        2,
        0.5,
        0.9,
        1.0,
        50,
        -0.1,
        float("nan"),
        float("inf"),
        10**30,
        2**40,
        2**32,
        "",
        "filter",
        "no such name",
        "a/b",
        Text("magnitude"),
        b"bytes",
        [],
        (),
        {},
        {"class_name": "Dense", "config": {"units": 2}},
        {"a": 1},
        [1, 2],
        (2, 4),
        (0, 0),
        ("a", "b"),
        object(),
        int,
        keras.layers.Dense,
        np.float64(0.5),
        np.int64(3),
        np.array([0.5]),
        np.array("text"),
        1j,
        lambda *arguments: None,
        np.zeros((2, 2)),
        np.array([object()], dtype=object),
        np.array([1 + 2j]),
        tfprune.Unstructured(),
        tfprune.Magnitude(),
        tfprune.Uniform(),
        tfprune.PruningPolicy(),
    ]
    return values[random.integers(len(values))]


class Arguments:
    """Draws arguments: mostly ones that fit, now and then an odd one."""

    def __init__(self, random, oddness=0.25):
        self.random = random
        self._oddness = oddness

    def of(self, *fitting):
        if self.random.random() < self._oddness:
            return odd(self.random)
        return fitting[self.random.integers(len(fitting))]

    def sparsity(self):
        return self.of(0.0, 0.25, 0.5, 0.75, 0.9, 0.99)

    def schedule(self):
        constant = tfprune.ConstantSparsity(0.5, 0)
        return self.of(constant, tfprune.PolynomialDecay(0.0, 0.5, 0, 10), constant)

    def pattern(self):
        several = ["unstructured", "filter", "channel", tfprune.Block((2, 2))]
        return self.of(None, *several, tfprune.NOfM(2, 4), tfprune.Kernel())

    def criterion(self):
        return self.of(None, "magnitude", "random", "gradient", "movement")

    def scope(self):
        return self.of(None, "local", "global", "erdos_renyi", tfprune.Global(0.9))

    def rules(self):
        rule = [tfprune.Rule("a", prune=False)]
        return self.of(None, None, None, rule, [tfprune.Rule(layers.Dense)], [])

    def array(self, *shape):
        plain = self.random.normal(size=shape or (4, 8))
        return self.of(plain, plain.astype("float32"), plain.astype("float16"), plain[:0], plain)


def exact(mask, weight, sparsity):
    """Whether a mask of single weights has the sparsity that was asked for."""
    kept = max(1, round(weight.size * (1 - sparsity)))
    return abs(int(np.count_nonzero(mask)) - kept) <= 1


# -- Calls: each takes `Arguments` and a wrapped or plain model, and returns nothing ---------------


def call_compute_mask(a, model):
    weight, sparsity, pattern = a.array(), a.sparsity(), a.pattern()
    axes = a.of(None, None, tfprune.patterns.KernelAxes())
    mask = a.of(None, None, np.ones((4, 8), bool), np.ones((3, 3), bool))
    evidence = a.of(None, None, {"gradient": np.ones((4, 8))})
    found = tfprune.compute_mask(
        weight,
        sparsity,
        pattern=pattern,
        criterion=a.criterion(),
        axes=axes,
        mask=mask,
        evidence=evidence,
    )
    assert found.dtype == bool and found.shape == np.shape(weight)
    if pattern is None and mask is None and np.size(weight):
        assert exact(found, np.asarray(weight), float(sparsity)), "another sparsity"


def call_axes(a, model):
    axes = tfprune.patterns.KernelAxes(inputs=a.of((-2,), (0,)), outputs=a.of((-1,), (1,)))
    shapes = [(4, 4), (3, 3, 2, 4), (5,), ()]
    tfprune.compute_mask(np.ones(shapes[a.random.integers(4)]), 0.5, axes=axes)


def call_schedules(a, model):
    kinds = [tfprune.ConstantSparsity, tfprune.PolynomialDecay, tfprune.Cosine, tfprune.OneCycle]
    kinds += [tfprune.Exponential, tfprune.Iterative, tfprune.DenseSparseDense]
    kind = kinds[a.random.integers(len(kinds))]
    if kind is tfprune.ConstantSparsity:
        made = kind(a.sparsity(), a.of(0, 10), a.of(-1, 20), a.of(1, 100))
    else:
        made = kind(a.of(0.0, 0.1), a.sparsity(), a.of(0, 10), a.of(20, 100), frequency=a.of(1, 5))
    made.evaluate(np.arange(8))
    tfprune.schedules.deserialize(tfprune.schedules.serialize(made))


def call_epochs(a, model):
    tfprune.PolynomialDecay.from_epochs(
        a.of(0.0), a.sparsity(), steps_per_epoch=a.of(None, 10, 3.5), end_epoch=a.of(2, 0.5, 4)
    )


def call_get(a, model):
    modules = [tfprune.schedules, tfprune.patterns, tfprune.criteria, tfprune.scopes]
    module = [*modules, tfprune.distributions][a.random.integers(5)]
    module.get(odd(a.random))


def call_patterns(a, model):
    kind = [tfprune.Block, tfprune.NOfM, tfprune.Filter, tfprune.Slice][a.random.integers(4)]
    if kind is tfprune.Block:
        pattern = kind(a.of((2, 2), (1, 4)), a.of("AVG", "MAX"))
    elif kind is tfprune.NOfM:
        pattern = kind(a.of(2, 1), a.of(4, 2))
    else:
        pattern = kind(a.of((0,), "AVG"))
    tfprune.compute_mask(np.ones((8, 8)), 0.5, pattern=pattern)


def call_rule(a, model):
    rule = tfprune.Rule(
        a.of("a", "*", layers.Dense), a.schedule(), a.pattern(), prune=a.of(True, False)
    )
    tfprune.prune_low_magnitude(model, tfprune.ConstantSparsity(0.5, 0), rules=[rule])


def call_prune(a, model):
    pruned = tfprune.prune_low_magnitude(
        a.of(model, model, model, layers.Dense(3), [layers.Dense(2)]),
        a.schedule(),
        block_size=a.of((1, 1), (2, 2)),
        block_pooling_type=a.of("AVG", "MAX"),
        pruning_policy=a.of(None, None, tfprune.PruneForLatencyOnXNNPack()),
        sparsity_m_by_n=a.of(None, None, (2, 4)),
        pattern=a.of(None, a.pattern()),
        scope=a.scope(),
        criterion=a.of(None, "magnitude"),
        rules=a.rules(),
        input_shape=a.of(None, None, None, (6,)),
    )
    if isinstance(pruned, keras.Model) and pruned.built:
        tfprune.UpdatePruningStep(pruned, data=(np.ones((2, *pruned.input_shape[1:])), np.ones(2)))
        tfprune.strip_pruning(pruned)


def call_wrapper(a, model):
    layer = a.of(layers.Dense(3), layers.Dense(3), layers.Dropout(0.5))
    wrapper = tfprune.PruneLowMagnitude(
        layer,
        a.schedule(),
        overrides=a.of(None, None, {}),
        followers=a.of(None, None, None, []),
        name=a.of("own", "other"),
    )
    wrapper(np.ones((2, 4), "float32"))
    config = wrapper.get_config()
    entry = list(config)[a.random.integers(len(config))]
    if a.random.random() < 0.5:
        config[entry] = odd(a.random)
    tfprune.PruneLowMagnitude.from_config(config)


def call_register(a, model):
    class Layer(layers.Layer):
        def build(self, input_shape):
            self.kernel = self.add_weight(shape=(input_shape[-1], 4), name="kernel")
            self.scalar = self.add_weight(shape=(), name="scalar")
            self.number = 3

        def call(self, inputs):
            return inputs @ self.kernel * self.scalar

    tfprune.register_prunable(
        a.of(Layer, Layer, Layer), a.of(["kernel"], "scalar", ["number"], ["missing"])
    )
    custom = keras.Sequential([keras.Input((4,)), Layer(), layers.Dense(2)])
    pruned = tfprune.prune_low_magnitude(custom, tfprune.ConstantSparsity(0.5, 0))
    tfprune.UpdatePruningStep(pruned)


def call_callbacks(a, model):
    kind = a.random.integers(4)
    if kind == 0:
        # It gives the model masks, so it gets one of its own.
        own = tfprune.prune_low_magnitude(model, tfprune.ConstantSparsity(0.5, 0))
        tfprune.UpdatePruningStep(a.of(None, own), batches=a.of(1, 2), batch_size=a.of(8, 32))
    elif kind == 1:
        tfprune.PruningSummaries(a.of("logs"), a.of("epoch", 5, "batch"))
    elif kind == 2:
        tfprune.PruningCheckpoint(a.of("best.keras", "a" * 300))
        tfprune.PruningBackup(a.of("run.weights.h5", "run"), a.of("epoch", 5))
    else:
        tfprune.RigL(a.sparsity(), a.of(100, 10))


def call_reports(a, model):
    model = a.of(model, model, model)
    kinds = [tfprune.sparsity_report, tfprune.model_cost, tfprune.layer_costs]
    kinds += [tfprune.dependency_groups, tfprune.strip_pruning, tfprune.fold_batch_norm]
    kinds[a.random.integers(len(kinds))](model)


def call_one_shot(a, model):
    tfprune.pruners.one_shot(
        a.of(model, model, model),
        a.sparsity(),
        pattern=a.pattern(),
        scope=a.scope(),
        criterion=a.of(None, "magnitude"),
        rules=a.rules(),
        verbose=0,
    )


def call_recipes(a, model):
    several = ["level", "slim", "fpgm", "l1_filter", "l2_filter"]
    name = several[a.random.integers(len(several))]
    getattr(tfprune.pruners, name)(a.of(model, model), a.sparsity(), rules=a.rules())


def call_agp(a, model):
    tfprune.pruners.agp(
        model,
        a.sparsity(),
        a.of(100, 1000),
        recipe=a.of("level", "fpgm"),
        initial_sparsity=a.of(0.0, 0.1),
        begin_step=a.of(0, 10),
        frequency=a.of(10, 100),
    )


def call_shrink(a, model):
    targets = a.of(None, {"macs": 0.5}, {"parameters": 0.5}, {"macs": 1e9}, {"none": 1})
    tfprune.shrink(model, targets, round_to=a.of(1, 2), verbose=0)


def call_remove(a, model):
    channels = a.of({"a": [1]}, {"conv": [0, 1]}, {"conv": [99]}, {"b": [0]}, {"missing": [0]})
    tfprune.remove_channels(model, channels)


def call_recalibrate(a, model):
    data = np.ones((4, *model.input_shape[1:])) if model.built else None
    tfprune.recalibrate(model, a.of(data, data, None), a.of(2, 32))


def call_distributions(a, model):
    kinds = [tfprune.Uniform, tfprune.ErdosRenyi, tfprune.LAMP, tfprune.FirstLayerDense]
    kind = kinds[a.random.integers(len(kinds))]
    scope = kind(*([odd(a.random)] if a.random.random() < 0.3 else []))
    pruned = tfprune.prune_low_magnitude(model, a.schedule(), scope=scope)
    tfprune.UpdatePruningStep(pruned)


def call_lottery(a, model):
    tfprune.LotteryTicket(
        model, a.sparsity(), rounds=a.of(2, 3), rewind=a.of(0, 2), seed=a.of(0, 1, None)
    )


def call_sensitivity(a, model):
    data = (np.ones((2, *model.input_shape[1:])), np.ones((2, 2))) if model.built else None
    with tempfile.TemporaryDirectory() as folder:
        tfprune.sensitivity(
            model,
            a.of(data, None),
            sparsities=a.of((0.5,), [0.5]),
            layers=a.of(None, ["a"], "none"),
            path=a.of(None, os.path.join(folder, "record.json")),
            verbose=0,
        )


def call_load(a, model):
    tfprune.load_plain_weights(a.of(model, model), a.of(model, "missing.weights.h5"))


def call_files(a, model):
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "file.json"
        with written_atomically(path) as unfinished:
            unfinished.write_text(repr(odd(a.random)))
        if a.random.random() < 0.5:
            tfprune.interop.from_tfmot(odd(a.random), odd(a.random))
        else:
            tfprune.interop.from_tf_keras(a.of(path.with_name("missing"), model))


def call_command(a, model):
    from tfprune.cli import main

    words = a.of("report", "prune", "shrink", "export", "compare")
    words = [str(words), str(a.of("missing.keras", ".", "file.txt")), "-o", str(a.of("out.keras"))]
    if a.random.random() < 0.4:
        words = ["schedule", "plot", "cosine", "--sparsity", str(a.sparsity())]
        words += ["--end-step", str(a.of(10, 1000))]
    said = io.StringIO()
    with contextlib.redirect_stderr(said), contextlib.redirect_stdout(io.StringIO()):
        try:
            code = main(words)
        except SystemExit as stopped:
            code = stopped.code
    assert code in (0, 1, 2), f"the command ended with {code}"
    if code == 1:
        assert "Expected" in said.getvalue(), f"a bare line: {said.getvalue()[:100]}"


# Quick ones are drawn more often.
CALLS = [
    *[call_compute_mask] * 8,
    *[call_axes, call_schedules, call_epochs, call_get, call_patterns] * 4,
    *[call_rule, call_wrapper, call_callbacks, call_reports] * 2,
    *[call_prune] * 2,
    call_register,
    call_one_shot,
    call_recipes,
    call_agp,
    call_shrink,
    call_remove,
    call_recalibrate,
    call_distributions,
    call_lottery,
    call_sensitivity,
    call_load,
    call_files,
    call_command,
]


@contextlib.contextmanager
def registrations_undone():
    """Forgets afterwards what a call registered: "missing" of Dense would fail every later call."""
    known = dict(facts._FACTS)
    try:
        yield
    finally:
        facts._FACTS.clear()
        facts._FACTS.update(known)


class Fuzzer:
    """Makes calls and keeps what went wrong.

    Args:
        first: Number of the first call, which is its seed.
    """

    def __init__(self, first=0):
        self._next = first
        self._kept: dict = {}
        self.findings: list = []
        self.counts: collections.Counter = collections.Counter()

    def model(self, random):
        """A model that earlier calls left as it was, plain or wrapped, and its state."""
        name = list(models())[random.integers(len(models()))]
        wrapped = bool(random.integers(2)) and name in ("dense", "convolutions")
        if (name, wrapped) not in self._kept:
            made = models()[name]()
            if wrapped:
                schedule = tfprune.ConstantSparsity(0.5, 0)
                made = tfprune.prune_low_magnitude(made, schedule)
            self._kept[name, wrapped] = (made, state(made))
        return (name, wrapped), *self._kept[name, wrapped]

    def call(self):
        number, self._next = self._next, self._next + 1
        random = np.random.default_rng(number)
        function = CALLS[random.integers(len(CALLS))]
        key, model, before = self.model(random)
        found = None
        with warnings.catch_warnings(), registrations_undone():
            warnings.simplefilter("ignore")
            try:
                function(Arguments(random), model)
                self.counts["successes"] += 1
            except FINE as error:
                self.counts["refusals"] += 1
                if not in_form(error):
                    found = f"{type(error).__name__} without the form: {str(error)[:160]}"
            except BaseException as error:
                if isinstance(error, KeyboardInterrupt):
                    raise
                found = f"{type(error).__name__}: {str(error)[:160]}"
        if found is None and state(model) != before:
            found = "the model was changed"
        if found is not None:
            self.findings.append({"call": number, "function": function.__name__, "found": found})
            self._kept.pop(key, None)
        self.counts["calls"] += 1


def in_form(error):
    """Whether an error says what was expected, what came, and how to mend it."""
    text = str(error)
    if isinstance(error, TypeError) and any(words in text for words in SIGNATURE):
        return True
    return "Expected " in text and "Received: " in text


def state(model):
    """All that a call must not change in a model, as bytes and names."""
    weights = tuple(np.asarray(keras.ops.convert_to_numpy(v)).tobytes() for v in model.weights)
    flags = tuple((n.name, n.trainable) for n in model._flatten_layers())
    return weights, flags, model.built, getattr(model, "compiled", None)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--calls", type=int, default=20_000)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--output", type=pathlib.Path, default=harness.RESULTS)
    arguments = parser.parse_args()
    fuzzer = Fuzzer(arguments.first)
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        for number in range(arguments.calls):
            known = len(fuzzer.findings)
            fuzzer.call()
            for finding in fuzzer.findings[known:]:
                print(finding, flush=True)
            if number % 200 == 199:
                keras.backend.clear_session()
    kinds = collections.Counter((f["function"], f["found"][:90]) for f in fuzzer.findings)
    examples = {(f["function"], f["found"][:90]): f["call"] for f in reversed(fuzzer.findings)}
    for (function, found), count in kinds.most_common():
        print(f"{count:5}  {function}, call {examples[function, found]}: {found}")
    print(dict(fuzzer.counts), f"findings: {len(fuzzer.findings)}")
    result = {**fuzzer.counts, "first": arguments.first, "findings": fuzzer.findings[:50]}
    arguments.output.mkdir(exist_ok=True, parents=True)
    (arguments.output / "fuzz.json").write_text(json.dumps(result, indent=1) + "\n")
    sys.exit(bool(fuzzer.findings))


if __name__ == "__main__":
    main()
